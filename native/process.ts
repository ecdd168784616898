import { readdirSync, readFileSync } from 'node:fs';
import { addon } from './addon.ts';

/** How a process ended. `signal` is 0 when it exited by itself; `code` is 0 when a signal ended it. */
export interface ExitStatus {
  code: number;
  signal: number;
}

/**
 * Makes this process the parent of every orphan among its descendants (or stops that). Survives fork only for the process
 * that asked: children of a subreaper are not subreapers (PR_SET_CHILD_SUBREAPER(2const)).
 */
export function setChildSubreaper(on: boolean): void {
  addon().setChildSubreaper(on);
}

/**
 * Reaps one child if it has ended, and never waits. Takes nothing from `child_process`, as libuv too waits for its own pids
 * one by one; do not call it on a pid that `child_process` has started.
 *
 * @returns the status, or undefined while the child runs
 * @throws ECHILD when the pid is not (or no longer) a child of this process
 */
export function waitPid(pid: number): ExitStatus | undefined {
  return addon().waitPid(pid);
}

/**
 * All children of this process, ended ones that nobody has reaped included. The kernel gives a snapshot: a child that comes
 * or goes meanwhile may or may not be in it (proc_pid_task(5)).
 */
export function childPids(): number[] {
  const pids: number[] = [];
  for (const thread of readdirSync('/proc/self/task')) {
    let children: string;
    try {
      children = readFileSync(`/proc/self/task/${thread}/children`, 'latin1');
    } catch (error) {
      // A thread that ended since the listing; the kernel has given its children to another one.
      if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) continue;
      throw error;
    }
    for (const pid of children.split(' ')) if (pid !== '') pids.push(Number(pid));
  }
  return pids;
}

/**
 * A descriptor (close-on-exec) that stands for the process whatever happens to its pid. It becomes readable when the process
 * ends, before anyone reaps it (pidfd_open(2)).
 *
 * @throws ESRCH when there is no such process
 */
export function pidfdOpen(pid: number): number {
  return addon().pidfdOpen(pid);
}

/**
 * Sends a signal by number; 0 only asks whether the process is there.
 *
 * @throws ESRCH when the process has ended and been reaped
 */
export function pidfdSendSignal(pidfd: number, signal: number): void {
  addon().pidfdSendSignal(pidfd, signal);
}

/**
 * Starts a new session without a controlling terminal.
 *
 * @throws EPERM when this process leads a process group already
 */
export function setSid(): void {
  addon().setSid();
}

/** This process's pid as the kernel knows it; `process.pid` was read at start and is stale in a forked child. */
export function getPid(): number {
  return addon().getPid();
}

/** Names the calling thread, and so what `ps` and /proc/PID/comm show of the process. At most 15 bytes; more are cut off. */
export function prctlName(name: string): void {
  addon().prctlName(name);
}
