import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { HugeTlbStat, IOEntry, Metrics, PSIData, PSIStats } from '../proto/gen/cgroups/v2.ts';
import { hugePageSizes, parseDevices, parsePairs, read, readNumber, toNumber, toRdma } from './file.ts';

/** Metrics of a cgroup of version 2; undefined when it is gone. What its controllers do not count is 0. */
export function readMetricsV2(folder: string): Metrics | undefined {
  if (!existsSync(folder)) return undefined;
  const file = (name: string) => read(join(folder, name));
  const number = (name: string) => readNumber(join(folder, name));
  return {
    pids: { current: number('pids.current'), limit: number('pids.max') },
    cpu: { ...parseCpuStat(file('cpu.stat')), psi: parsePressure(file('cpu.pressure')) },
    memory: {
      ...parseMemoryStat(file('memory.stat')),
      usage: number('memory.current'),
      usageLimit: number('memory.max'),
      swapUsage: number('memory.swap.current'),
      swapLimit: number('memory.swap.max'),
      maxUsage: number('memory.peak'),
      swapMaxUsage: number('memory.swap.peak'),
      psi: parsePressure(file('memory.pressure')),
    },
    rdma: { current: toRdma(file('rdma.current')), limit: toRdma(file('rdma.max')) },
    io: { usage: parseIoStat(file('io.stat')), psi: parsePressure(file('io.pressure')) },
    hugetlb: readHugetlb(folder),
    memoryEvents: parseMemoryEvents(file('memory.events')),
  };
}

/** The counters of cpu.stat, in microseconds and numbers. */
export function parseCpuStat(text: string | undefined): NonNullable<Metrics['cpu']> {
  const stat = parsePairs(text);
  return {
    usageUsec: stat('usage_usec'),
    userUsec: stat('user_usec'),
    systemUsec: stat('system_usec'),
    nrPeriods: stat('nr_periods'),
    nrThrottled: stat('nr_throttled'),
    throttledUsec: stat('throttled_usec'),
    nrBursts: stat('nr_bursts'),
    burstUsec: stat('burst_usec'),
  };
}

/**
 * Pressure, for which the kernel has a line `some avg10=… avg60=… avg300=… total=…` and mostly one of `full`: percentages, and
 * microseconds in all (psi.rst). Undefined where the kernel does not count it.
 */
export function parsePressure(text: string | undefined): PSIStats | undefined {
  if (text === undefined) return undefined;
  const lines = new Map<string, PSIData>();
  for (const line of text.split('\n')) {
    const [kind = '', ...pairs] = line.trim().split(/\s+/);
    if (kind === '') continue;
    const values = new Map(pairs.map((pair) => pair.split('=') as [string, string]));
    const percent = (name: string) => Number(values.get(name) ?? 0);
    const [avg10, avg60, avg300] = [percent('avg10'), percent('avg60'), percent('avg300')];
    lines.set(kind, { avg10, avg60, avg300, total: toNumber(values.get('total')) });
  }
  return { some: lines.get('some'), full: lines.get('full') };
}

/** The counters of memory.stat. */
export function parseMemoryStat(text: string | undefined) {
  const stat = parsePairs(text);
  return {
    anon: stat('anon'),
    file: stat('file'),
    kernelStack: stat('kernel_stack'),
    slab: stat('slab'),
    sock: stat('sock'),
    shmem: stat('shmem'),
    fileMapped: stat('file_mapped'),
    fileDirty: stat('file_dirty'),
    fileWriteback: stat('file_writeback'),
    anonThp: stat('anon_thp'),
    inactiveAnon: stat('inactive_anon'),
    activeAnon: stat('active_anon'),
    inactiveFile: stat('inactive_file'),
    activeFile: stat('active_file'),
    unevictable: stat('unevictable'),
    slabReclaimable: stat('slab_reclaimable'),
    slabUnreclaimable: stat('slab_unreclaimable'),
    pgfault: stat('pgfault'),
    pgmajfault: stat('pgmajfault'),
    // Kernel 5.9 split these three by kind of page.
    workingsetRefault:
      stat('workingset_refault') + stat('workingset_refault_anon') + stat('workingset_refault_file'),
    workingsetActivate:
      stat('workingset_activate') + stat('workingset_activate_anon') + stat('workingset_activate_file'),
    workingsetNodereclaim: stat('workingset_nodereclaim'),
    pgrefill: stat('pgrefill'),
    pgscan: stat('pgscan'),
    pgsteal: stat('pgsteal'),
    pgactivate: stat('pgactivate'),
    pgdeactivate: stat('pgdeactivate'),
    pglazyfree: stat('pglazyfree'),
    pglazyfreed: stat('pglazyfreed'),
    thpFaultAlloc: stat('thp_fault_alloc'),
    thpCollapseAlloc: stat('thp_collapse_alloc'),
  };
}

/** Lines of `major:minor rbytes=… wbytes=… rios=… wios=…`. */
export function parseIoStat(text: string | undefined): IOEntry[] {
  return parseDevices(text).flatMap(({ device, values }) => {
    const match = /^(\d+):(\d+)$/.exec(device);
    if (match === null) return [];
    return {
      major: BigInt(match[1]!),
      minor: BigInt(match[2]!),
      rbytes: values.get('rbytes') ?? 0n,
      wbytes: values.get('wbytes') ?? 0n,
      rios: values.get('rios') ?? 0n,
      wios: values.get('wios') ?? 0n,
    };
  });
}

function parseMemoryEvents(text: string | undefined): Metrics['memoryEvents'] {
  if (text === undefined) return undefined;
  const events = parsePairs(text);
  return {
    low: events('low'),
    high: events('high'),
    max: events('max'),
    oom: events('oom'),
    oomKill: events('oom_kill'),
  };
}

function readHugetlb(folder: string): HugeTlbStat[] {
  return hugePageSizes(folder, 'current').map((pagesize) => ({
    pagesize,
    current: readNumber(join(folder, `hugetlb.${pagesize}.current`)),
    max: readNumber(join(folder, `hugetlb.${pagesize}.max`)),
  }));
}
