/** Which processes were there before this one. */
import { readFileSync } from 'node:fs';

let own: number | undefined;

/**
 * Whether the process was started before this one. One that has gone was not, nor was one of the same hundredth of a second; pids
 * may be used again, so a pid that names another process by now is judged by that one.
 */
export function isOlder(pid: number): boolean {
  own ??= startOf('self');
  const start = startOf(pid);
  return start !== undefined && own !== undefined && start < own;
}

/** Clock ticks from the boot to the start of a process, undefined when there is none (proc_pid_stat(5), field 22). */
function startOf(pid: number | 'self'): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The name in parentheses may hold anything, parentheses too; field 3 is behind the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[22 - 3]);
  return Number.isSafeInteger(ticks) ? ticks : undefined;
}
