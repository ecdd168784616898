/**
 * What a group of processes uses: the kernel keeps the books of a control group, whoever in it has started and ended meanwhile.
 * Works with the first version of control groups (cpuacct) and the second.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { processes } from '../test/harness/processes.ts';
import { eventually } from '../test/harness/wait.ts';

const FIRST_VERSION = '/sys/fs/cgroup/cpuacct';
const mounted = existsSync(FIRST_VERSION) ? FIRST_VERSION : '/sys/fs/cgroup';

/** Milliseconds between two looks at the memory. */
const PACE = 20;

export class Account implements AsyncDisposable {
  /** Where a process writes its pid to be counted. */
  readonly door: string;
  readonly #directory: string;

  constructor(name: string) {
    this.#directory = join(mounted, `moor-bench-${process.pid}-${name}`);
    this.door = join(this.#directory, 'cgroup.procs');
    mkdirSync(this.#directory);
  }

  /** Counts a process and all that it has started, from now on; what they start later is counted by itself. */
  enlist(pid: number): void {
    for (const member of family(pid)) writeFileSync(this.door, String(member));
  }

  /** Milliseconds of processor time used so far. */
  processorTime(): number {
    if (mounted === FIRST_VERSION)
      return Number(readFileSync(join(this.#directory, 'cpuacct.usage'), 'utf8')) / 1e6;
    const text = readFileSync(join(this.#directory, 'cpu.stat'), 'utf8');
    return Number(/^usage_usec (\d+)$/m.exec(text)?.[1]) / 1000;
  }

  pids(): number[] {
    return readFileSync(this.door, 'utf8').split('\n').filter(Boolean).map(Number);
  }

  /** The most anonymous memory that all members had at one moment while the action ran, in bytes. */
  async peakDuring(action: () => Promise<void>): Promise<number> {
    let peak = 0;
    const look = (): void => {
      peak = Math.max(
        peak,
        this.pids().reduce((sum, pid) => sum + anonymousMemory(pid), 0),
      );
    };
    const over = new AbortController();
    const looking = (async () => {
      for (; !over.signal.aborted; await delay(PACE)) look();
    })();
    try {
      await action();
      look();
    } finally {
      over.abort();
      await looking;
    }
    return peak;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await eventually('the bench’s control group is empty', () => this.pids().length === 0);
    rmdirSync(this.#directory);
  }
}

/** The process and all its descendants. */
export function family(pid: number): number[] {
  const all = processes();
  const members = [pid];
  for (const member of members)
    members.push(...all.filter(({ parent }) => parent === member).map((child) => child.pid));
  return members;
}

/** A line of /proc/<pid>/status or smaps_rollup in bytes; 0 when the process is gone. */
function kilobytes(file: string, line: RegExp): number {
  try {
    return Number(line.exec(readFileSync(file, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** Heaps, stacks and buffers: what is not a file's. */
const anonymousMemory = (pid: number) => kilobytes(`/proc/${pid}/status`, /^RssAnon:\s+(\d+) kB$/m);

/** The process's share of all memory it sees: what several share is divided among them. */
export const proportionalMemory = (pid: number) =>
  kilobytes(`/proc/${pid}/smaps_rollup`, /^Pss:\s+(\d+) kB$/m);

/** The most that was resident at once since `forgetPeak`, in bytes. */
export const peakMemory = (pid: number) => kilobytes(`/proc/${pid}/status`, /^VmHWM:\s+(\d+) kB$/m);

/** proc(5), clear_refs: 5 sets the peak back to what is resident now. */
export function forgetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
}
