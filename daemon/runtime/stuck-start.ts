/** Programs on Node that have begun where only some of Node's threads could be: it waits for the others for ever then, before it runs anything. */
import type { ChildProcess } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';

/** Milliseconds between two looks. */
const LOOK_MS = 500;
/** So many looks in a row see nobody at work: the thread that is waited for is not there. */
const LOOKS = 3;

/**
 * Kills the program if it is stuck in its start.
 *
 * How long a start may take says nothing where many processes begin at once. But one that all threads wait in, the first for another
 * one, goes no further.
 *
 * @param onStuck is called before
 */
export function endIfStuck(child: ChildProcess, onStuck: () => void): void {
  const { pid } = child;
  if (pid === undefined) return;
  let stuck = 0;
  const timer = setInterval(() => {
    const seen = look(pid);
    stuck = seen === 'waits for threads' ? stuck + 1 : 0;
    if (seen === 'has begun' || stuck === LOOKS) clearInterval(timer);
    if (stuck < LOOKS) return;
    onStuck();
    child.kill('SIGKILL');
  }, LOOK_MS).unref();
  child.once('exit', () => clearInterval(timer));
}

function look(pid: number): 'works' | 'waits for threads' | 'has begun' {
  try {
    const threads = `/proc/${pid}/task`;
    const sleeps = (thread: string) => {
      const stat = readFileSync(`${threads}/${thread}/stat`, 'latin1');
      return stat.startsWith('S', stat.lastIndexOf(')') + 2);
    };
    if (!readdirSync(threads).every(sleeps)) return 'works';
    // A program that has begun waits in its event loop.
    return readFileSync(`/proc/${pid}/wchan`, 'latin1').startsWith('futex')
      ? 'waits for threads'
      : 'has begun';
  } catch {
    return 'works'; // A thread has just ended, or all have.
  }
}
