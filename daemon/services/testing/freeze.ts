/** Processes that cannot say a word. */
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds that a thread may take to see the signal. */
const PATIENCE = 30_000;

/**
 * Stops a process with SIGSTOP, and returns when no thread of it runs any more: the signal is only sent when kill(2) returns, so that a
 * shim on another processor can still answer a call. SIGCONT lets it go on.
 */
export async function freeze(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  const deadline = performance.now() + PATIENCE;
  while (!readdirSync(`/proc/${pid}/task`).every((thread) => isStopped(pid, thread))) {
    if (performance.now() > deadline) throw new Error(`process ${pid} does not stop`);
    await sleep(5);
  }
}

/** One that has ended since it was listed does not run either. */
function isStopped(pid: number, thread: string): boolean {
  try {
    return / \(.*\) T /s.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8'));
  } catch {
    return true;
  }
}
