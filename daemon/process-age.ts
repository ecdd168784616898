/** Which processes were there before this one. */
import { processStat } from './process-stat.ts';

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

/** Clock ticks from the boot, undefined when there is no such process. */
function startOf(pid: number | 'self'): number | undefined {
  const ticks = Number(processStat(pid)?.started);
  return Number.isSafeInteger(ticks) ? ticks : undefined;
}
