/** Processes found by what they are, for when nobody knows their pids any more. */
import { closeSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Poll, pidfdOpen, pidfdSendSignal } from '../../native/native.ts';
import { type Bundle, hasCode } from './bundle.ts';

/** What the kernel appends to the name of a working directory that has been removed (proc_pid_cwd(5)). */
export const REMOVED = ' (deleted)';

const SIGKILL = 9;
const LOOK_AGAIN_MS = 10;

/**
 * Kills what runs for a bundle outside its container: a shim that no longer serves, and what it was in the middle of. Such
 * processes have the bundle as their working directory and are Moor's shims, or have the task's id among their arguments; an
 * operator's shell is neither.
 *
 * @param timeout milliseconds to wait until they are gone
 * @param shim the pid of a shim that has only just been started: it may not yet look like one
 * @throws the kernel's error when there is no descriptor to look with
 */
export async function killProcessesOf(bundle: Bundle, timeout: number, shim?: number): Promise<void> {
  const end = performance.now() + timeout;
  for (;;) {
    const found = await killFound(bundle, timeout);
    if (found || shim === undefined || !exists(shim) || performance.now() > end) return;
    await sleep(LOOK_AGAIN_MS);
  }
}

async function killFound(bundle: Bundle, timeout: number): Promise<boolean> {
  const ended: Promise<void>[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid || !worksFor(pid, bundle)) continue;
    const end = killed(pid, bundle, timeout);
    if (end !== undefined) ended.push(end);
  }
  await Promise.all(ended);
  return ended.length > 0;
}

/** Zombies do not count. */
function exists(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== '';
  } catch (error) {
    if (hasEnded(error)) return false;
    throw error;
  }
}

function worksFor(pid: number, bundle: Bundle): boolean {
  try {
    const directory = readlinkSync(`/proc/${pid}/cwd`);
    // A bundle that others had removed has been made again, and a foreign shim still works in the old one.
    if (directory !== bundle.path && directory !== `${bundle.path}${REMOVED}`) return false;
    if (readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('moor-shim')) return true;
    // Separated by spaces where a process has given itself a title.
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split(/[\0 ]/).includes(bundle.id);
  } catch (error) {
    if (hasEnded(error)) return false;
    throw error;
  }
}

/** It ended meanwhile, or is a kernel thread, or ended and nobody has reaped it. */
function hasEnded(error: unknown): boolean {
  return hasCode(error, 'ENOENT') || hasCode(error, 'ESRCH') || hasCode(error, 'EACCES');
}

/** The pid may have been given to another process since it was looked at: what is killed is looked at again, by its pidfd. */
function killed(pid: number, bundle: Bundle, timeout: number): Promise<void> | undefined {
  let pidfd: number;
  try {
    pidfd = pidfdOpen(pid);
  } catch (error) {
    if (hasEnded(error)) return undefined;
    throw error;
  }
  try {
    if (!worksFor(pid, bundle)) return undefined;
    pidfdSendSignal(pidfd, SIGKILL);
    return ending(pidfd, timeout);
  } catch (error) {
    if (hasCode(error, 'ESRCH')) return undefined;
    throw error;
  } finally {
    closeSync(pidfd);
  }
}

function ending(pidfd: number, timeout: number): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      poll.close();
      resolve();
    };
    const poll = new Poll(pidfd, 'readable', done);
    const timer = setTimeout(done, timeout);
  });
}
