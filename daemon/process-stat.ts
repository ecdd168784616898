/** What the kernel says of a process in one line. */
import { readFileSync } from 'node:fs';

export interface ProcessStat {
  /** Of the letters of proc_pid_stat(5). */
  readonly state: string;
  /** Clock ticks from the boot to the start of the process. With the pid it names one process of this boot. */
  readonly started: string;
}

/** Undefined when there is no such process. */
export function processStat(pid: number | 'self'): ProcessStat | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The name in parentheses may hold anything, parentheses too; field 3 is behind the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', started: fields[22 - 3] ?? '' };
}

/** Whether it is there and has not ended: what nobody has reaped yet has. */
export function isAlive(stat: ProcessStat | undefined): boolean {
  return stat !== undefined && stat.state !== 'Z' && stat.state !== 'X';
}
