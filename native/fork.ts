import { randomBytes } from 'node:crypto';
import { writeSync } from 'node:fs';
import { inspect } from 'node:util';
import { addon } from './addon.ts';

const STDERR = 2;

/**
 * Forks this process, with its JavaScript heap shared copy-on-write. Returns twice: the child's pid in the parent, 0 in the
 * child. Each condition below was found by breaking it:
 *
 * - Node runs with `--single-threaded` (checked). The child has the calling thread only. V8 otherwise gives compilation and
 *   collection to worker threads, and in the child waits for ever for those that are not there: hot loops and
 *   WebAssembly.compile hung. The threads need not be gone, just idle: Node starts DelayedTaskScheduler, at least one V8Worker
 *   and SignalInspector whatever the flags. `--v8-pool-size=1` keeps it at one worker; 0 means "one per processor, less one".
 * - It is the main thread (checked, EINVAL), and no request is in flight on its event loop (checked, EBUSY): no file operation,
 *   lookup, pbkdf2 or unfinished socket write. Idle threads of libuv's pool do no harm, the child starts a pool of its own.
 * - `UV_USE_IO_URING=0` in the environment. The kernel maps a ring as shared memory, so parent and child would take each
 *   other's completions.
 * - Best called from setImmediate. When called from the callback of a socket or a Poll, the events that the loop has fetched
 *   along with that one are handled by both processes.
 *
 * What the child must know:
 *
 * - It has every descriptor, timer and handle of the parent, and its event loop goes on with them. It closes what is not its
 *   own. Closing an inherited net.Server on a unix socket unlinks the parent's socket file; listenUnix with a Poll does not.
 * - It leaves through exitNow. Node's own exit joins threads that the child does not have, and hangs; so from the fork on,
 *   process.exit, an uncaught error and running out of work end in exitNow here, after the 'exit' listeners that the
 *   parent had. Listeners added by the child later do not run.
 * - `process.pid` is set right here. Math.random, which would go on with the parent's sequence, the same in all siblings, draws from
 *   the kernel once there has been a fork. crypto.randomUUID and crypto.randomInt repeat when the parent has used them, as they
 *   draw from a buffer. crypto.randomBytes is safe.
 *
 * Measured with Node 26.10 on two cores: a fork takes 0.7 to 1.2 ms; a child has 0.7 MB of its own, and after starting two
 * processes and serving a socket 3.8 MB, but 1.4 MB when the parent has run that code once before: what it has compiled and
 * allocated is then shared. (A full collection in between undoes half of this, as V8 drops bytecode with it.)
 *
 * @throws EBUSY, EINVAL (above), EAGAIN and ENOMEM (fork(2)), Error without `--single-threaded`
 */
export function fork(): number {
  prepareParent();
  const pid = addon().fork();
  if (pid === 0) settleChild();
  return pid;
}

/** Why `forkForLines` has returned. */
export type ForkOutcome =
  /** This is a child, forked for this line. */
  | { readonly kind: 'child'; readonly line: string }
  /** There was no fork for this line. */
  | { readonly kind: 'refused'; readonly line: string; readonly error: Error }
  /** A file is not what it was; the line that came in is still to be read. */
  | { readonly kind: 'changed' }
  /** The other end is closed. Lines that nobody can be answered for are dropped. */
  | { readonly kind: 'closed' };

/**
 * Forks, as `fork` does, once for each line that comes in on a stream socket, and reaps the children. Blocks: no JavaScript runs in
 * the parent meanwhile, so that its heap stays as it is and its children go on sharing it. Returns in each child, and in the
 * parent when there is something to see to; then call it again.
 *
 * @param watched paths of files that are looked at before each fork
 * @throws EBUSY, EINVAL, Error as `fork` does
 */
export function forkForLines(fd: number, watched: readonly string[]): ForkOutcome {
  prepareParent();
  const outcome = addon().forkForLines(fd, watched);
  if (outcome.kind === 'child') settleChild();
  return outcome;
}

let prepared = false;

function prepareParent(): void {
  if (prepared) return;
  if (!process.execArgv.includes('--single-threaded')) {
    throw new Error(
      'fork needs node --single-threaded: without it the child waits for threads it does not have',
    );
  }
  // In the parent, so that no child has to write to what it shares.
  Math.random = () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48;
  prepared = true;
}

/** Ends the process at once (_exit(2)): no 'exit' event, nothing flushed, no thread waited for. */
export function exitNow(code: number): never {
  return addon().exitNow(code);
}

let settled = false;

/** Replaces what Node has remembered of the parent, and the ways out that would hang. */
function settleChild(): void {
  Object.defineProperty(process, 'pid', { value: addon().getPid(), enumerable: true, configurable: true });
  if (settled) return;
  settled = true;
  process.on('exit', exitNow);
  // Node would print the error only after the 'exit' event, where this process has already ended.
  process.on('uncaughtExceptionMonitor', (error) => {
    if (process.listenerCount('uncaughtException') > 0 || process.hasUncaughtExceptionCaptureCallback())
      return;
    try {
      writeSync(STDERR, `Uncaught ${inspect(error)}\n`);
    } catch {
      // Nobody reads standard error; the exit code still tells.
    }
  });
}
