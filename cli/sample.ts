/** What a container uses, from two readings of its counters; the same for both versions of cgroups. */
import type { Metrics } from '../client/client.ts';

/** The counters of one container that people watch. */
export interface Counters {
  readonly id: string;
  /** Milliseconds since 1970. */
  readonly at: number;
  /** Nanoseconds of processor time so far. */
  readonly cpu: bigint;
  /** Bytes, without what the kernel can drop at once. */
  readonly memory: bigint;
  /** Undefined when there is none. */
  readonly memoryLimit: bigint | undefined;
  /** Bytes read from and written to devices so far. */
  readonly read: bigint;
  readonly written: bigint;
  readonly pids: bigint;
  readonly pidsLimit: bigint | undefined;
}

export interface Usage extends Counters {
  /** Percent of one processor, since the reading before; undefined for the first. */
  readonly cpuPercent: number | undefined;
  /** Percent of the limit; undefined without one. */
  readonly memoryPercent: number | undefined;
  /** Bytes a second. */
  readonly readRate: number | undefined;
  readonly writeRate: number | undefined;
}

/** Beyond it a limit of memory is none: version 1 has the largest number of pages in its place. */
const NO_LIMIT = 2n ** 60n;

export function countersOf(metrics: Metrics): Counters {
  const { id, timestamp } = metrics;
  const at = timestamp?.getTime() ?? Date.now();
  return { id, at, ...(metrics.version === 1 ? ofV1(metrics) : ofV2(metrics)) };
}

/** @param before the reading before it of the same container, if there is one */
export function usageOf(now: Counters, before: Counters | undefined): Usage {
  const milliseconds = before === undefined ? 0 : now.at - before.at;
  // A counter that went back belongs to another container of the same name.
  const isSame = before !== undefined && milliseconds > 0 && now.cpu >= before.cpu;
  const rate = (counter: 'cpu' | 'read' | 'written') =>
    isSame ? Math.max(0, Number(now[counter] - before[counter])) / milliseconds : undefined;
  const [cpu, read, written] = [rate('cpu'), rate('read'), rate('written')];
  return {
    ...now,
    // Nanoseconds a millisecond, of which there are a million.
    cpuPercent: cpu === undefined ? undefined : cpu / 1e4,
    memoryPercent:
      now.memoryLimit === undefined ? undefined : (100 * Number(now.memory)) / Number(now.memoryLimit),
    readRate: read === undefined ? undefined : read * 1000,
    writeRate: written === undefined ? undefined : written * 1000,
  };
}

type Parts = Omit<Counters, 'id' | 'at'>;

function ofV1({ cgroup: { cpu, memory, blkio, pids } }: Metrics & { version: 1 }): Parts {
  const bytes = (op: string) =>
    sum((blkio?.ioServiceBytesRecursive ?? []).filter((entry) => entry.op === op).map(({ value }) => value));
  return {
    cpu: cpu?.usage?.total ?? 0n,
    memory: above(memory?.usage?.usage, memory?.totalInactiveFile),
    memoryLimit: limitOf(memory?.usage?.limit),
    read: bytes('Read'),
    written: bytes('Write'),
    pids: pids?.current ?? 0n,
    pidsLimit: limitOf(pids?.limit),
  };
}

function ofV2({ cgroup: { cpu, memory, io, pids } }: Metrics & { version: 2 }): Parts {
  return {
    cpu: (cpu?.usageUsec ?? 0n) * 1000n,
    memory: above(memory?.usage, memory?.inactiveFile),
    memoryLimit: limitOf(memory?.usageLimit),
    read: sum((io?.usage ?? []).map(({ rbytes }) => rbytes)),
    written: sum((io?.usage ?? []).map(({ wbytes }) => wbytes)),
    pids: pids?.current ?? 0n,
    pidsLimit: limitOf(pids?.limit),
  };
}

function above(all: bigint = 0n, part: bigint = 0n): bigint {
  return all > part ? all - part : 0n;
}

function limitOf(limit: bigint = 0n): bigint | undefined {
  return limit === 0n || limit >= NO_LIMIT ? undefined : limit;
}

function sum(values: readonly bigint[]): bigint {
  return values.reduce((total, value) => total + value, 0n);
}
