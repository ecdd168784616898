import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { BlkIOEntry, HugetlbStat, MemoryEntry, Metrics } from '../proto/gen/cgroups/v1.ts';
import { Metrics as MetricsMessage } from '../proto/gen/cgroups/v1.ts';
import { hugePageSizes, parsePairs, read, readNumber, toNumber, toRdma, UNLIMITED } from './file.ts';

/** Nanoseconds of a tick of cpuacct.stat: USER_HZ is 100 on every architecture of Linux that Node runs on. */
const TICK_NS = 10_000_000n;

/**
 * Metrics of a container's cgroups of version 1, given their folders by controller. Controllers that are missing are left out.
 *
 * @returns undefined when all of them are gone
 */
export function readMetricsV1(folders: ReadonlyMap<string, string>): Metrics | undefined {
  const present = (controller: string) => {
    const folder = folders.get(controller);
    return folder !== undefined && existsSync(folder) ? folder : undefined;
  };
  const metrics: Parameters<typeof MetricsMessage.fromPartial>[0] = { ...readCpu(present) };
  const memory = present('memory');
  if (memory !== undefined) Object.assign(metrics, readMemory(memory));
  const pids = present('pids');
  if (pids !== undefined) {
    const limit = readNumber(join(pids, 'pids.max'));
    metrics.pids = {
      current: readNumber(join(pids, 'pids.current')),
      limit: limit === UNLIMITED ? 0n : limit,
    };
  }
  const blkio = present('blkio');
  if (blkio !== undefined) metrics.blkio = readBlockIo(blkio);
  const hugetlb = present('hugetlb');
  if (hugetlb !== undefined) metrics.hugetlb = readHugetlb(hugetlb);
  const rdma = present('rdma');
  if (rdma !== undefined) {
    metrics.rdma = {
      current: toRdma(read(join(rdma, 'rdma.current'))),
      limit: toRdma(read(join(rdma, 'rdma.max'))),
    };
  }
  return [...folders.keys()].some(present) ? MetricsMessage.fromPartial(metrics) : undefined;
}

type Present = (controller: string) => string | undefined;

function readCpu(present: Present): Pick<Metrics, 'cpu'> {
  const account = present('cpuacct');
  const cpu = present('cpu');
  const ticks = parsePairs(account && read(join(account, 'cpuacct.stat')));
  const throttling = parsePairs(cpu && read(join(cpu, 'cpu.stat')));
  const perCpu = (account && read(join(account, 'cpuacct.usage_percpu')))?.trim().split(/\s+/) ?? [];
  return {
    cpu: {
      usage: {
        total: account === undefined ? 0n : readNumber(join(account, 'cpuacct.usage')),
        kernel: ticks('system') * TICK_NS,
        user: ticks('user') * TICK_NS,
        perCpu: perCpu.map(toNumber),
      },
      throttling: {
        periods: throttling('nr_periods'),
        throttledPeriods: throttling('nr_throttled'),
        throttledTime: throttling('throttled_time'),
      },
    },
  };
}

function readMemory(folder: string): Pick<Metrics, 'memory' | 'memoryOomControl'> {
  const oom = parsePairs(read(join(folder, 'memory.oom_control')));
  return {
    memory: {
      ...parseMemoryStat(read(join(folder, 'memory.stat'))),
      usage: readMemoryEntry(folder, 'memory'),
      swap: readMemoryEntry(folder, 'memory.memsw'),
      kernel: readMemoryEntry(folder, 'memory.kmem'),
      kernelTcp: readMemoryEntry(folder, 'memory.kmem.tcp'),
    },
    memoryOomControl: {
      oomKillDisable: oom('oom_kill_disable'),
      underOom: oom('under_oom'),
      oomKill: oom('oom_kill'),
    },
  };
}

/** The counters of memory.stat. */
export function parseMemoryStat(text: string | undefined) {
  const stat = parsePairs(text);
  return {
    cache: stat('cache'),
    rss: stat('rss'),
    rssHuge: stat('rss_huge'),
    mappedFile: stat('mapped_file'),
    dirty: stat('dirty'),
    writeback: stat('writeback'),
    pgPgIn: stat('pgpgin'),
    pgPgOut: stat('pgpgout'),
    pgFault: stat('pgfault'),
    pgMajFault: stat('pgmajfault'),
    inactiveAnon: stat('inactive_anon'),
    activeAnon: stat('active_anon'),
    inactiveFile: stat('inactive_file'),
    activeFile: stat('active_file'),
    unevictable: stat('unevictable'),
    hierarchicalMemoryLimit: stat('hierarchical_memory_limit'),
    hierarchicalSwapLimit: stat('hierarchical_memsw_limit'),
    totalCache: stat('total_cache'),
    totalRss: stat('total_rss'),
    totalRssHuge: stat('total_rss_huge'),
    totalMappedFile: stat('total_mapped_file'),
    totalDirty: stat('total_dirty'),
    totalWriteback: stat('total_writeback'),
    totalPgPgIn: stat('total_pgpgin'),
    totalPgPgOut: stat('total_pgpgout'),
    totalPgFault: stat('total_pgfault'),
    totalPgMajFault: stat('total_pgmajfault'),
    totalInactiveAnon: stat('total_inactive_anon'),
    totalActiveAnon: stat('total_active_anon'),
    totalInactiveFile: stat('total_inactive_file'),
    totalActiveFile: stat('total_active_file'),
    totalUnevictable: stat('total_unevictable'),
  };
}

function readMemoryEntry(folder: string, kind: string): MemoryEntry {
  const number = (name: string) => readNumber(join(folder, `${kind}.${name}`));
  return {
    usage: number('usage_in_bytes'),
    max: number('max_usage_in_bytes'),
    failcnt: number('failcnt'),
    limit: number('limit_in_bytes'),
  };
}

function readBlockIo(folder: string): NonNullable<Metrics['blkio']> {
  const names = readDeviceNames();
  const entries = (file: string) => parseBlockIo(read(join(folder, `blkio.${file}`)), names);
  const serviced = entries('io_serviced_recursive');
  const bytes = entries('io_service_bytes_recursive');
  // Without the CFQ or BFQ scheduler only the throttling layer counts (cgroup-v1/blkio-controller.rst).
  return {
    ioServicedRecursive: serviced.length > 0 ? serviced : entries('throttle.io_serviced'),
    ioServiceBytesRecursive: bytes.length > 0 ? bytes : entries('throttle.io_service_bytes'),
    ioQueuedRecursive: entries('io_queued_recursive'),
    ioServiceTimeRecursive: entries('io_service_time_recursive'),
    ioWaitTimeRecursive: entries('io_wait_time_recursive'),
    ioMergedRecursive: entries('io_merged_recursive'),
    ioTimeRecursive: entries('time_recursive'),
    sectorsRecursive: entries('sectors_recursive'),
  };
}

/** Lines of `major:minor [operation] value`. The line `Total value` is left out. */
export function parseBlockIo(text: string | undefined, names: ReadonlyMap<string, string>): BlkIOEntry[] {
  const entries: BlkIOEntry[] = [];
  for (const line of text?.split('\n') ?? []) {
    const match = /^(\d+):(\d+)(?: (\w+))? (\d+)$/.exec(line);
    if (match === null) continue;
    const [, major = '', minor = '', op = '', value] = match;
    entries.push({
      op,
      device: names.get(`${major}:${minor}`) ?? '',
      major: BigInt(major),
      minor: BigInt(minor),
      value: toNumber(value),
    });
  }
  return entries;
}

function readDeviceNames(): Map<string, string> {
  const names = new Map<string, string>();
  for (const line of read('/proc/partitions')?.split('\n') ?? []) {
    const [major, minor, , name] = line.trim().split(/\s+/);
    if (name !== undefined) names.set(`${major}:${minor}`, `/dev/${name}`);
  }
  return names;
}

function readHugetlb(folder: string): HugetlbStat[] {
  return hugePageSizes(folder, 'usage_in_bytes').map((pagesize) => {
    const number = (name: string) => readNumber(join(folder, `hugetlb.${pagesize}.${name}`));
    return {
      pagesize,
      usage: number('usage_in_bytes'),
      max: number('max_usage_in_bytes'),
      failcnt: number('failcnt'),
    };
  });
}
