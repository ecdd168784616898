/** What a container uses, whichever version its cgroups have, in the measures that the CRI asks for. */
import {
  type BlkIOEntry,
  type BlkIOStat,
  type MemoryStat as MemoryV1,
  Metrics as MetricsV1,
} from '../../proto/gen/cgroups/v1.ts';
import { Metrics as MetricsV2, type PSIStats } from '../../proto/gen/cgroups/v2.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import type { PsiStats } from '../../proto/gen/runtime/v1/api.ts';
import { typeNameOf } from '../distribution/any.ts';

/** Times in nanoseconds, sizes in bytes. */
export interface CgroupUsage {
  readonly cpu: {
    readonly total: bigint;
    readonly user: bigint;
    readonly system: bigint;
    readonly periods: bigint;
    readonly throttledPeriods: bigint;
    readonly throttled: bigint;
  };
  readonly memory: {
    readonly usage: bigint;
    /** What cannot be taken away without harm: all but the files that nobody has used for a while. */
    readonly workingSet: bigint;
    readonly rss: bigint;
    readonly cache: bigint;
    readonly mappedFile: bigint;
    /** Undefined for none. */
    readonly limit: bigint | undefined;
    readonly max: bigint;
    readonly failures: bigint;
    readonly pageFaults: bigint;
    readonly majorPageFaults: bigint;
    readonly oomKills: bigint;
    /** Of the kernel, for the container. */
    readonly kernel: bigint;
  };
  readonly swap: { readonly usage: bigint; readonly limit: bigint | undefined };
  readonly threads: bigint;
  /** 0 for as many as there may be. */
  readonly threadsMax: bigint;
  /** What has gone to disks and come from them, by the kernel's accounts, which not every file system keeps. */
  readonly disks: readonly DiskUsage[];
  readonly hugePages: readonly HugePageUsage[];
  readonly pressure: {
    readonly cpu: PsiStats | undefined;
    readonly memory: PsiStats | undefined;
    readonly io: PsiStats | undefined;
  };
}

export interface DiskUsage {
  readonly major: bigint;
  readonly minor: bigint;
  readonly readBytes: bigint;
  readonly writtenBytes: bigint;
  readonly reads: bigint;
  readonly writes: bigint;
}

export interface HugePageUsage {
  /** As the kernel names it: `2MB`. */
  readonly pageSize: string;
  readonly usage: bigint;
  readonly max: bigint;
}

/** The kernel rounds "no limit" down to whole pages; nobody has that much. */
const UNLIMITED = 1n << 60n;
const MICROSECOND = 1000n;

/** @returns undefined for metrics of a kind that is not known, those of a virtual machine say */
export function usageOf(metrics: Any | undefined): CgroupUsage | undefined {
  if (metrics === undefined) return undefined;
  const type = typeNameOf(metrics);
  if (type === 'io.containerd.cgroups.v1.Metrics') return fromV1(MetricsV1.decode(metrics.value));
  return type === 'io.containerd.cgroups.v2.Metrics' ? fromV2(MetricsV2.decode(metrics.value)) : undefined;
}

export function fromV1({ cpu, memory, pids, memoryOomControl, blkio, hugetlb }: MetricsV1): CgroupUsage {
  const usage = memory?.usage?.usage ?? 0n;
  const swapped = (memory?.swap?.usage ?? 0n) - usage;
  return {
    cpu: {
      total: cpu?.usage?.total ?? 0n,
      user: cpu?.usage?.user ?? 0n,
      system: cpu?.usage?.kernel ?? 0n,
      periods: cpu?.throttling?.periods ?? 0n,
      throttledPeriods: cpu?.throttling?.throttledPeriods ?? 0n,
      throttled: cpu?.throttling?.throttledTime ?? 0n,
    },
    memory: {
      ...ofStat(memory),
      usage,
      workingSet: atLeast(usage - (memory?.totalInactiveFile ?? 0n)),
      limit: limited(memory?.usage?.limit),
      max: memory?.usage?.max ?? 0n,
      failures: memory?.usage?.failcnt ?? 0n,
      oomKills: memoryOomControl?.oomKill ?? 0n,
      kernel: memory?.kernel?.usage ?? 0n,
    },
    swap: { usage: atLeast(swapped), limit: swapLimit(memory) },
    threads: pids?.current ?? 0n,
    threadsMax: limited(pids?.limit) ?? 0n,
    disks: disksOf(blkio),
    hugePages: hugetlb.map(({ pagesize: pageSize, usage, max }) => ({ pageSize, usage, max })),
    pressure: { cpu: undefined, memory: undefined, io: undefined },
  };
}

/** Version 1 has an entry for each disk and direction. */
function disksOf(blkio: BlkIOStat | undefined): DiskUsage[] {
  const found = new Map<string, DiskUsage>();
  const count = (entries: readonly BlkIOEntry[], read: keyof DiskUsage, write: keyof DiskUsage): void => {
    for (const { op, major, minor, value } of entries) {
      const direction = { read, write }[op.toLowerCase()];
      if (direction === undefined) continue;
      const id = `${major}:${minor}`;
      const none = { major, minor, readBytes: 0n, writtenBytes: 0n, reads: 0n, writes: 0n };
      const before = found.get(id) ?? none;
      found.set(id, { ...before, [direction]: before[direction] + value });
    }
  };
  count(blkio?.ioServiceBytesRecursive ?? [], 'readBytes', 'writtenBytes');
  count(blkio?.ioServicedRecursive ?? [], 'reads', 'writes');
  return [...found.values()];
}

function ofStat(
  memory: MemoryV1 | undefined,
): Pick<CgroupUsage['memory'], 'rss' | 'cache' | 'mappedFile' | 'pageFaults' | 'majorPageFaults'> {
  return {
    rss: memory?.totalRss ?? 0n,
    cache: memory?.totalCache ?? 0n,
    mappedFile: memory?.totalMappedFile ?? 0n,
    pageFaults: memory?.totalPgFault ?? 0n,
    majorPageFaults: memory?.totalPgMajFault ?? 0n,
  };
}

/** Version 1 counts memory and swap together. */
function swapLimit(memory: MemoryV1 | undefined): bigint | undefined {
  const both = limited(memory?.swap?.limit);
  return both === undefined ? undefined : atLeast(both - (limited(memory?.usage?.limit) ?? 0n));
}

export function fromV2({ cpu, memory, memoryEvents, pids, io, hugetlb }: MetricsV2): CgroupUsage {
  const usage = memory?.usage ?? 0n;
  return {
    cpu: {
      total: (cpu?.usageUsec ?? 0n) * MICROSECOND,
      user: (cpu?.userUsec ?? 0n) * MICROSECOND,
      system: (cpu?.systemUsec ?? 0n) * MICROSECOND,
      periods: cpu?.nrPeriods ?? 0n,
      throttledPeriods: cpu?.nrThrottled ?? 0n,
      throttled: (cpu?.throttledUsec ?? 0n) * MICROSECOND,
    },
    memory: {
      usage,
      workingSet: atLeast(usage - (memory?.inactiveFile ?? 0n)),
      rss: memory?.anon ?? 0n,
      cache: memory?.file ?? 0n,
      mappedFile: memory?.fileMapped ?? 0n,
      limit: limited(memory?.usageLimit),
      max: memory?.maxUsage ?? 0n,
      failures: memoryEvents?.max ?? 0n,
      pageFaults: memory?.pgfault ?? 0n,
      majorPageFaults: memory?.pgmajfault ?? 0n,
      oomKills: memoryEvents?.oomKill ?? 0n,
      kernel: (memory?.kernelStack ?? 0n) + (memory?.slab ?? 0n),
    },
    swap: { usage: memory?.swapUsage ?? 0n, limit: limited(memory?.swapLimit) },
    threads: pids?.current ?? 0n,
    threadsMax: limited(pids?.limit) ?? 0n,
    disks: (io?.usage ?? []).map(({ major, minor, rbytes, wbytes, rios, wios }) => ({
      major,
      minor,
      readBytes: rbytes,
      writtenBytes: wbytes,
      reads: rios,
      writes: wios,
    })),
    hugePages: hugetlb.map(({ pagesize: pageSize, current: usage, max }) => ({ pageSize, usage, max })),
    pressure: { cpu: psiOf(cpu?.psi), memory: psiOf(memory?.psi), io: psiOf(io?.psi) },
  };
}

function psiOf(psi: PSIStats | undefined): PsiStats | undefined {
  if (psi === undefined) return undefined;
  const data = (of: PSIStats['full']) =>
    of && { Total: of.total * MICROSECOND, Avg10: of.avg10, Avg60: of.avg60, Avg300: of.avg300 };
  return { Full: data(psi.full), Some: data(psi.some) };
}

function limited(limit: bigint | undefined): bigint | undefined {
  return limit === undefined || limit === 0n || limit >= UNLIMITED ? undefined : limit;
}

function atLeast(value: bigint): bigint {
  return value < 0n ? 0n : value;
}

type Numbers<T> = { readonly [K in keyof T]: bigint };

/** All that are known together: what a pod without a cgroup uses is what its containers do. */
export function sumOf(all: readonly (CgroupUsage | undefined)[]): CgroupUsage | undefined {
  const usages = all.filter((usage) => usage !== undefined);
  if (usages.length === 0) return undefined;
  const limits = usages.map(({ memory }) => memory.limit);
  return {
    cpu: added(usages.map(({ cpu }) => cpu)),
    memory: {
      ...added(usages.map(({ memory }) => ({ ...memory, limit: 0n }))),
      limit: limits.includes(undefined) ? undefined : limits.reduce<bigint>((sum, each) => sum + each!, 0n),
    },
    swap: { usage: usages.reduce((sum, { swap }) => sum + swap.usage, 0n), limit: undefined },
    threads: usages.reduce((sum, { threads }) => sum + threads, 0n),
    // Told of containers alone.
    threadsMax: 0n,
    disks: [],
    hugePages: [],
    // Time that several have waited is not the sum of it.
    pressure: { cpu: undefined, memory: undefined, io: undefined },
  };
}

function added<T extends Numbers<T>>(all: readonly T[]): T {
  const sum: Record<string, bigint> = {};
  for (const each of all)
    for (const [name, value] of Object.entries<bigint>(each)) sum[name] = (sum[name] ?? 0n) + value;
  return sum as T;
}
