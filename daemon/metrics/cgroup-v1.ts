/** What cgroups of version 1 count, under containerd's names (its metrics/cgroups/v1). */
import type { BlkIOEntry, BlkIOStat, MemoryEntry, MemoryStat, Metrics } from '../../proto/gen/cgroups/v1.ts';
import { type Measure, type Reading, single } from './measure.ts';

type V1 = Measure<Metrics>;

const pids: readonly V1[] = [
  single('pids_current', 'The current number of pids', ({ pids }) => pids?.current),
  single('pids_limit', 'The limit to the number of pids allowed; 0 for none', ({ pids }) => pids?.limit),
];

const cpu: readonly V1[] = [
  single('cpu_total_nanoseconds', 'The total cpu time', ({ cpu }) => cpu?.usage?.total),
  single('cpu_kernel_nanoseconds', 'The total kernel cpu time', ({ cpu }) => cpu?.usage?.kernel),
  single('cpu_user_nanoseconds', 'The total user cpu time', ({ cpu }) => cpu?.usage?.user),
  {
    name: 'per_cpu_nanoseconds',
    help: 'The total cpu time per cpu',
    read: ({ cpu }) => (cpu?.usage?.perCpu ?? []).map((time, index) => [time, { cpu: String(index) }]),
  },
  single(
    'cpu_throttle_periods_total',
    'The total cpu throttle periods',
    ({ cpu }) => cpu?.throttling?.periods,
  ),
  single(
    'cpu_throttled_periods_total',
    'The total cpu throttled periods',
    ({ cpu }) => cpu?.throttling?.throttledPeriods,
  ),
  single(
    'cpu_throttled_time_nanoseconds',
    'The total cpu throttled time',
    ({ cpu }) => cpu?.throttling?.throttledTime,
  ),
];

/** Of memory.stat, by the names that containerd gives them. Those of pages are counts, whatever the unit says. */
const memoryStats: readonly (readonly [name: string, field: NumberIn<MemoryStat>])[] = [
  ['cache', 'cache'],
  ['rss', 'rss'],
  ['rss_huge', 'rssHuge'],
  ['mapped_file', 'mappedFile'],
  ['dirty', 'dirty'],
  ['writeback', 'writeback'],
  ['pgpgin', 'pgPgIn'],
  ['pgpgout', 'pgPgOut'],
  ['pgfault', 'pgFault'],
  ['pgmajfault', 'pgMajFault'],
  ['inactive_anon', 'inactiveAnon'],
  ['active_anon', 'activeAnon'],
  ['inactive_file', 'inactiveFile'],
  ['active_file', 'activeFile'],
  ['unevictable', 'unevictable'],
  ['hierarchical_memory_limit', 'hierarchicalMemoryLimit'],
  ['hierarchical_memsw_limit', 'hierarchicalSwapLimit'],
  ['total_cache', 'totalCache'],
  ['total_rss', 'totalRss'],
  ['total_rss_huge', 'totalRssHuge'],
  ['total_mapped_file', 'totalMappedFile'],
  ['total_dirty', 'totalDirty'],
  ['total_writeback', 'totalWriteback'],
  ['total_pgpgin', 'totalPgPgIn'],
  ['total_pgpgout', 'totalPgPgOut'],
  ['total_pgfault', 'totalPgFault'],
  ['total_pgmajfault', 'totalPgMajFault'],
  ['total_inactive_anon', 'totalInactiveAnon'],
  ['total_active_anon', 'totalActiveAnon'],
  ['total_inactive_file', 'totalInactiveFile'],
  ['total_active_file', 'totalActiveFile'],
  ['total_unevictable', 'totalUnevictable'],
];

type NumberIn<T> = { [K in keyof T]: T[K] extends bigint ? K : never }[keyof T] & string;

const memoryEntries: readonly (readonly [name: string, field: 'usage' | 'swap' | 'kernel' | 'kernelTcp'])[] =
  [
    ['usage', 'usage'],
    ['swap', 'swap'],
    ['kernel', 'kernel'],
    ['kerneltcp', 'kernelTcp'],
  ];

const entryFields: readonly (readonly [suffix: string, field: keyof MemoryEntry, what: string])[] = [
  ['failcnt_total', 'failcnt', 'times the limit was hit'],
  ['limit_bytes', 'limit', 'limit'],
  ['max_bytes', 'max', 'maximum usage'],
  ['usage_bytes', 'usage', 'usage'],
];

const memory: readonly V1[] = [
  ...memoryStats.map(([name, field]) =>
    single<Metrics>(
      `memory_${name}_bytes`,
      `The ${name} amount (memory.stat)`,
      ({ memory }) => memory?.[field],
    ),
  ),
  ...memoryEntries.flatMap(([name, field]) =>
    entryFields.map(([suffix, part, what]) =>
      single<Metrics>(
        `memory_${name}_${suffix}`,
        `The ${what} of memory (${name})`,
        ({ memory }) => memory?.[field]?.[part],
      ),
    ),
  ),
  single(
    'memory_oom_total',
    'The number of processes that were killed for want of memory',
    ({ memoryOomControl }) => memoryOomControl?.oomKill,
  ),
];

const hugetlb: readonly V1[] = (
  [
    ['hugetlb_usage_bytes', 'usage', 'The hugetlb usage'],
    ['hugetlb_failcnt_total', 'failcnt', 'The hugetlb failcnt'],
    ['hugetlb_max_bytes', 'max', 'The hugetlb maximum usage'],
  ] as const
).map(([name, field, help]) => ({
  name,
  help,
  read: ({ hugetlb }) => hugetlb.map((entry): Reading => [entry[field], { page: entry.pagesize }]),
}));

const blkio: readonly V1[] = (
  [
    ['io_merged_recursive_total', 'ioMergedRecursive'],
    ['io_queued_recursive_total', 'ioQueuedRecursive'],
    ['io_service_bytes_recursive_bytes', 'ioServiceBytesRecursive'],
    ['io_service_time_recursive_total', 'ioServiceTimeRecursive'],
    ['io_serviced_recursive_total', 'ioServicedRecursive'],
    ['io_time_recursive_total', 'ioTimeRecursive'],
    ['sectors_recursive_total', 'sectorsRecursive'],
  ] as const satisfies readonly (readonly [string, keyof BlkIOStat])[]
).map(([name, field]) => ({
  name: `blkio_${name}`,
  help: `The blkio ${name.replace(/_(total|bytes)$/, '').replaceAll('_', ' ')}`,
  read: ({ blkio }) => (blkio?.[field] ?? []).map(readingOf),
}));

function readingOf({ op, device, major, minor, value }: BlkIOEntry): Reading {
  return [value, { device, major: String(major), minor: String(minor), op }];
}

export const measuresV1: readonly V1[] = [...pids, ...cpu, ...memory, ...hugetlb, ...blkio];
