/** The host's process table, as /proc tells it. */
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { eventually } from './wait.ts';

export interface Process {
  readonly pid: number;
  readonly parent: number;
  /** One letter as in proc(5): `R`, `S`, `Z` … */
  readonly state: string;
  readonly name: string;
  /** Clock ticks since boot; with the pid it names a process for ever. */
  readonly started: string;
  /** Seconds of the processors that it has used. */
  readonly used: number;
}

/** Of the clock in which /proc counts, a second (proc(5), USER_HZ). */
const TICKS = 100;

/** The process with this pid, or undefined when there is none. Zombies are processes too. */
export function processOf(pid: number): Process | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The name is in parentheses and may hold any character, parentheses too: the last one closes it.
  const close = stat.lastIndexOf(')');
  const name = stat.slice(stat.indexOf('(') + 1, close);
  const fields = stat.slice(close + 2).split(' ');
  const used = (Number(fields[11]) + Number(fields[12])) / TICKS;
  return { pid, name, state: fields[0] ?? '?', parent: Number(fields[1]), started: fields[19] ?? '', used };
}

/** Every process there is. */
export function processes(): Process[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => processOf(Number(name)))
    .filter((found) => found !== undefined);
}

/** Whether the process lives: there, and not a zombie. */
export function alive(pid: number): boolean {
  const found = processOf(pid);
  return found !== undefined && found.state !== 'Z' && found.state !== 'X';
}

/** The arguments joined by spaces; empty for zombies and kernel threads. */
export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trimEnd();
  } catch {
    return '';
  }
}

/** The working directory, or an empty string when the process is gone. */
export function workingDirectory(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return '';
  }
}

/** Every ancestor of the process and the process itself. */
export function lineage(pid: number): Set<number> {
  const line = new Set<number>();
  for (let at = processOf(pid); at !== undefined && !line.has(at.pid); at = processOf(at.parent))
    line.add(at.pid);
  return line;
}

/** What each descriptor of the process refers to; empty when it is gone. */
export function descriptors(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
      } catch {
        return []; // closed since the listing
      }
    });
  } catch {
    return [];
  }
}

/** Sends SIGKILL and returns when the process is gone (or a zombie). A pid that is gone already is fine. */
export async function killProcess(pid: number): Promise<void> {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    return;
  }
  await eventually(`process ${pid} ends`, () => !alive(pid));
}

/** Bytes only this process holds: Private_Clean + Private_Dirty of smaps_rollup. */
export function privateMemory(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  let kilobytes = 0;
  for (const [, amount] of rollup.matchAll(/^Private_(?:Clean|Dirty):\s+(\d+) kB$/gm))
    kilobytes += Number(amount);
  return kilobytes * 1024;
}
