/** What cgroups of version 2 count, under containerd's names (its metrics/cgroups/v2), and pressure under cAdvisor's. */
import type { IOEntry, MemoryStat, Metrics, PSIStats } from '../../proto/gen/cgroups/v2.ts';
import { type Measure, type Reading, single } from './measure.ts';

type V2 = Measure<Metrics>;

const MICROSECONDS = 1e6;

const pids: readonly V2[] = [
  single('pids_current', 'The current number of pids (cgroup v2)', ({ pids }) => pids?.current),
  single('pids_limit', 'The limit to the number of pids allowed (cgroup v2)', ({ pids }) => pids?.limit),
];

const cpu: readonly V2[] = [
  single('cpu_usage_usec_microseconds', 'Total cpu usage (cgroup v2)', ({ cpu }) => cpu?.usageUsec),
  single('cpu_user_usec_microseconds', 'Cpu usage in user space (cgroup v2)', ({ cpu }) => cpu?.userUsec),
  single(
    'cpu_system_usec_microseconds',
    'Cpu usage in kernel space (cgroup v2)',
    ({ cpu }) => cpu?.systemUsec,
  ),
  single('cpu_nr_periods_total', 'Number of cpu periods, if there is a quota', ({ cpu }) => cpu?.nrPeriods),
  single('cpu_nr_throttled_total', 'Number of periods that were throttled', ({ cpu }) => cpu?.nrThrottled),
  single(
    'cpu_throttled_usec_microseconds',
    'Total time for which processes have been throttled',
    ({ cpu }) => cpu?.throttledUsec,
  ),
];

/** Of memory.stat, by the names that the kernel gives them too. Those of events are counts, whatever the unit says. */
const memoryStats: readonly (readonly [name: string, field: Exclude<keyof MemoryStat, 'psi'>])[] = [
  ['usage', 'usage'],
  ['usage_limit', 'usageLimit'],
  ['swap_usage', 'swapUsage'],
  ['swap_limit', 'swapLimit'],
  ['file_mapped', 'fileMapped'],
  ['file_dirty', 'fileDirty'],
  ['file_writeback', 'fileWriteback'],
  ['pgactivate', 'pgactivate'],
  ['pgdeactivate', 'pgdeactivate'],
  ['pgfault', 'pgfault'],
  ['pgmajfault', 'pgmajfault'],
  ['pglazyfree', 'pglazyfree'],
  ['pgrefill', 'pgrefill'],
  ['pglazyfreed', 'pglazyfreed'],
  ['pgscan', 'pgscan'],
  ['pgsteal', 'pgsteal'],
  ['inactive_anon', 'inactiveAnon'],
  ['active_anon', 'activeAnon'],
  ['inactive_file', 'inactiveFile'],
  ['active_file', 'activeFile'],
  ['unevictable', 'unevictable'],
  ['anon', 'anon'],
  ['file', 'file'],
  ['kernel_stack', 'kernelStack'],
  ['slab', 'slab'],
  ['sock', 'sock'],
  ['shmem', 'shmem'],
  ['anon_thp', 'anonThp'],
  ['slab_reclaimable', 'slabReclaimable'],
  ['slab_unreclaimable', 'slabUnreclaimable'],
  ['workingset_refault', 'workingsetRefault'],
  ['workingset_activate', 'workingsetActivate'],
  ['workingset_nodereclaim', 'workingsetNodereclaim'],
  ['thp_fault_alloc', 'thpFaultAlloc'],
  ['thp_collapse_alloc', 'thpCollapseAlloc'],
];

const memory: readonly V2[] = [
  ...memoryStats.map(([name, field]) =>
    single<Metrics>(
      `memory_${name}_bytes`,
      `The ${name} amount (cgroup v2)`,
      ({ memory }) => memory?.[field],
    ),
  ),
  single(
    'memory_oom_total',
    'The number of times a container has received an oom event',
    ({ memoryEvents }) => memoryEvents?.oom,
  ),
];

const io: readonly V2[] = (
  [
    ['io_rbytes_bytes', 'rbytes', 'IO bytes read'],
    ['io_wbytes_bytes', 'wbytes', 'IO bytes written'],
    ['io_rios_total', 'rios', 'Number of read IOs'],
    ['io_wios_total', 'wios', 'Number of write IOs'],
  ] as const satisfies readonly (readonly [string, keyof IOEntry, string])[]
).map(([name, field, help]) => ({
  name,
  help,
  read: ({ io }) =>
    (io?.usage ?? []).map((entry): Reading => [
      entry[field],
      { major: String(entry.major), minor: String(entry.minor) },
    ]),
}));

const hugetlb: readonly V2[] = [
  {
    name: 'hugetlb_usage_bytes',
    help: 'The hugetlb usage',
    read: ({ hugetlb }) => hugetlb.map(({ current, pagesize }) => [current, { page: pagesize }]),
  },
];

const pressure: readonly V2[] = (
  [
    ['cpu', ({ cpu }) => cpu?.psi],
    ['memory', ({ memory }) => memory?.psi],
    ['io', ({ io }) => io?.psi],
  ] as const satisfies readonly (readonly [string, (metrics: Metrics) => PSIStats | undefined])[]
).flatMap(([resource, psi]) => [
  single<Metrics>(
    `pressure_${resource}_waiting_seconds_total`,
    `Time that some of the processes have waited for ${resource}`,
    (metrics) => secondsOf(psi(metrics)?.some?.total),
  ),
  single<Metrics>(
    `pressure_${resource}_stalled_seconds_total`,
    `Time that none of the processes could go on for want of ${resource}`,
    (metrics) => secondsOf(psi(metrics)?.full?.total),
  ),
]);

function secondsOf(microseconds: bigint | undefined): number | undefined {
  return microseconds === undefined ? undefined : Number(microseconds) / MICROSECONDS;
}

export const measuresV2: readonly V2[] = [...pids, ...cpu, ...memory, ...io, ...hugetlb, ...pressure];
