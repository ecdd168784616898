/** What Prometheus is told of a container: cAdvisor's names and meanings (docs/storage/prometheus.md of cAdvisor). */
import { type LinuxContainerResources, MetricType, type PsiStats } from '../../proto/gen/runtime/v1/api.ts';
import type { Measured } from './measurements.ts';
import { now } from './pod-life.ts';
import type { ProcessUsage } from './process-usage.ts';
import type { CgroupUsage, DiskUsage } from './usage.ts';

export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  /** Names of the labels, in the order of their values. */
  readonly labels: readonly string[];
}

/** A container with what is known of it beside its cgroup. */
export interface Detailed extends Measured {
  readonly usage: CgroupUsage;
  readonly held: ProcessUsage | undefined;
  /** Of the file system that it writes to. */
  readonly filesystem: FilesystemSize | undefined;
}

export interface FilesystemSize {
  readonly bytes: bigint;
  readonly inodes: bigint;
  readonly inodesFree: bigint;
}

export type Reading = readonly [value: bigint | undefined, ...labels: string[]];

export interface ContainerMetric extends Metric {
  read(container: Detailed): readonly Reading[];
}

/** What kubelet's own labels are, so that dashboards find theirs. */
export const BASE = ['container', 'id', 'image', 'name', 'namespace', 'pod'] as const;
/** The API carries no fractions. */
const SECOND = 1_000_000_000n;
const { COUNTER, GAUGE } = MetricType;

function metric(
  type: MetricType,
  name: string,
  help: string,
  labels: readonly string[],
  read: ContainerMetric['read'],
): ContainerMetric {
  return { name: `container_${name}`, help, type, labels: [...BASE, ...labels], read };
}

type Value = (usage: CgroupUsage) => bigint | undefined;

function counter(name: string, help: string, read: Value): ContainerMetric {
  return metric(COUNTER, name, help, [], ({ usage }) => [[read(usage)]]);
}

function gauge(name: string, help: string, read: Value): ContainerMetric {
  return metric(GAUGE, name, help, [], ({ usage }) => [[read(usage)]]);
}

/** What it was created with, or has been given since. */
function asked(name: string, help: string, read: (of: LinuxContainerResources) => bigint): ContainerMetric {
  return metric(GAUGE, `spec_${name}`, help, [], ({ record: { resources } }) => [
    [resources === undefined ? undefined : read(resources)],
  ]);
}

function held(name: string, help: string, read: (of: ProcessUsage) => bigint): ContainerMetric {
  return metric(GAUGE, name, help, [], (container) => [[container.held && read(container.held)]]);
}

function disk(name: string, help: string, read: (of: DiskUsage) => bigint): ContainerMetric {
  return metric(COUNTER, `fs_${name}_total`, help, ['device'], ({ usage }) =>
    usage.disks.map((of) => [read(of), `${of.major}:${of.minor}`]),
  );
}

function filesystem(name: string, help: string, read: (of: FilesystemSize) => bigint): ContainerMetric {
  return metric(GAUGE, `fs_${name}`, help, ['device'], ({ layer, filesystem: of }) => [
    [of && read(of), layer?.fsId?.mountpoint ?? ''],
  ]);
}

function pressure(what: keyof CgroupUsage['pressure']): ContainerMetric[] {
  const read = (how: keyof PsiStats): Value => {
    return ({ pressure }) => {
      const total = pressure[what]?.[how]?.Total;
      return total === undefined ? undefined : total / SECOND;
    };
  };
  const help = (how: string) => `Total time in seconds that ${how} in the container have waited for ${what}.`;
  return [
    counter(`pressure_${what}_stalled_seconds_total`, help('all tasks'), read('Full')),
    counter(`pressure_${what}_waiting_seconds_total`, help('some tasks'), read('Some')),
  ];
}

function hugePages(name: string, help: string, read: 'usage' | 'max'): ContainerMetric {
  return metric(GAUGE, name, help, ['pagesize'], ({ usage }) =>
    usage.hugePages.map((of) => [of[read], of.pageSize]),
  );
}

const PROCESSOR: readonly ContainerMetric[] = [
  counter(
    'cpu_usage_seconds_total',
    'Cumulative cpu time consumed in seconds.',
    ({ cpu }) => cpu.total / SECOND,
  ),
  counter(
    'cpu_user_seconds_total',
    'Cumulative user cpu time consumed in seconds.',
    ({ cpu }) => cpu.user / SECOND,
  ),
  counter(
    'cpu_system_seconds_total',
    'Cumulative system cpu time consumed in seconds.',
    ({ cpu }) => cpu.system / SECOND,
  ),
  counter(
    'cpu_cfs_periods_total',
    'Number of elapsed enforcement period intervals.',
    ({ cpu }) => cpu.periods,
  ),
  counter(
    'cpu_cfs_throttled_periods_total',
    'Number of throttled period intervals.',
    ({ cpu }) => cpu.throttledPeriods,
  ),
  counter(
    'cpu_cfs_throttled_seconds_total',
    'Total time duration the container has been throttled.',
    ({ cpu }) => cpu.throttled / SECOND,
  ),
  asked('cpu_period', 'Length of a scheduling period in microseconds.', ({ cpuPeriod }) => cpuPeriod),
  asked('cpu_quota', 'Processor time of a period in microseconds; 0 for no limit.', ({ cpuQuota }) =>
    cpuQuota < 0n ? 0n : cpuQuota,
  ),
  asked('cpu_shares', 'Share of the processors beside others.', ({ cpuShares }) => cpuShares),
];

const MEMORY: readonly ContainerMetric[] = [
  gauge(
    'memory_usage_bytes',
    'Current memory usage in bytes, including all memory regardless of when it was accessed.',
    ({ memory }) => memory.usage,
  ),
  gauge('memory_working_set_bytes', 'Current working set in bytes.', ({ memory }) => memory.workingSet),
  gauge('memory_rss', 'Size of RSS in bytes.', ({ memory }) => memory.rss),
  gauge('memory_cache', 'Number of bytes of page cache memory.', ({ memory }) => memory.cache),
  gauge('memory_kernel_usage', 'Kernel memory of the container in bytes.', ({ memory }) => memory.kernel),
  gauge('memory_mapped_file', 'Size of memory mapped files in bytes.', ({ memory }) => memory.mappedFile),
  gauge('memory_swap', 'Container swap usage in bytes.', ({ swap }) => swap.usage),
  gauge('memory_max_usage_bytes', 'Maximum memory usage recorded in bytes.', ({ memory }) => memory.max),
  counter('memory_failcnt', 'Number of memory usage hits limits.', ({ memory }) => memory.failures),
  counter(
    'oom_events_total',
    'Count of out of memory events observed for the container.',
    ({ memory }) => memory.oomKills,
  ),
  gauge(
    'spec_memory_limit_bytes',
    'Memory limit of the container; 0 for none.',
    ({ memory }) => memory.limit ?? 0n,
  ),
  gauge(
    'spec_memory_swap_limit_bytes',
    'Limit of memory and swap together; 0 for none.',
    ({ memory, swap }) =>
      memory.limit === undefined || swap.limit === undefined ? 0n : memory.limit + swap.limit,
  ),
  asked('memory_reservation_limit_bytes', 'Memory that is kept for the container.', ({ unified }) =>
    /^\d+$/.test(unified['memory.low'] ?? '') ? BigInt(unified['memory.low']!) : 0n,
  ),
  metric(
    COUNTER,
    'memory_failures_total',
    'Cumulative count of memory allocation failures.',
    ['failure_type', 'scope'],
    ({ usage: { memory } }) => [
      [memory.pageFaults, 'pgfault', 'container'],
      [memory.majorPageFaults, 'pgmajfault', 'container'],
    ],
  ),
  hugePages('hugetlb_usage_bytes', 'Huge pages that are used, in bytes.', 'usage'),
  hugePages('hugetlb_max_usage_bytes', 'The most of huge pages that were used, in bytes.', 'max'),
];

const FILES: readonly ContainerMetric[] = [
  metric(
    GAUGE,
    'fs_usage_bytes',
    'Number of bytes that are consumed by the container on this filesystem.',
    ['device'],
    ({ layer }) => [[layer?.usedBytes?.value, layer?.fsId?.mountpoint ?? '']],
  ),
  filesystem('limit_bytes', 'Number of bytes that can be consumed on this filesystem.', ({ bytes }) => bytes),
  filesystem('inodes_total', 'Number of inodes of this filesystem.', ({ inodes }) => inodes),
  filesystem('inodes_free', 'Number of available inodes of this filesystem.', ({ inodesFree }) => inodesFree),
  disk('reads_bytes', 'Cumulative count of bytes read.', ({ readBytes }) => readBytes),
  disk('reads', 'Cumulative count of reads completed.', ({ reads }) => reads),
  disk('writes_bytes', 'Cumulative count of bytes written.', ({ writtenBytes }) => writtenBytes),
  disk('writes', 'Cumulative count of writes completed.', ({ writes }) => writes),
  metric(
    COUNTER,
    'blkio_device_usage_total',
    'Bytes that have gone to a disk and come from it.',
    ['device', 'major', 'minor', 'operation'],
    ({ usage }) => usage.disks.flatMap(directions),
  ),
];

const PROCESSES: readonly ContainerMetric[] = [
  gauge('threads', 'Number of threads running inside the container.', ({ threads }) => threads),
  gauge(
    'threads_max',
    'Maximum number of threads of the container; 0 for no limit.',
    ({ threadsMax }) => threadsMax,
  ),
  held('processes', 'Number of processes running inside the container.', ({ processes }) => processes),
  held('file_descriptors', 'Number of open file descriptors of the container.', ({ files }) => files),
  held('sockets', 'Number of open sockets of the container.', ({ sockets }) => sockets),
  metric(
    GAUGE,
    'ulimits_soft',
    'Soft limits of the first process of the container.',
    ['ulimit'],
    ({ held: of }) => [[of?.openFiles, 'max_open_files']],
  ),
  metric(
    GAUGE,
    'start_time_seconds',
    'Start time of the container since unix epoch in seconds.',
    [],
    ({ record: { state } }) => [[state?.$case === 'running' ? state.value.startedAt / SECOND : undefined]],
  ),
  metric(GAUGE, 'last_seen', 'Last time a container was seen, since unix epoch in seconds.', [], () => [
    [now() / SECOND],
  ]),
];

/** Everything that there may be a figure of. */
export const CONTAINER_METRICS: readonly ContainerMetric[] = [
  ...PROCESSOR,
  ...MEMORY,
  ...FILES,
  ...PROCESSES,
  ...pressure('cpu'),
  ...pressure('memory'),
  ...pressure('io'),
];

function directions({ major, minor, readBytes, writtenBytes }: DiskUsage): Reading[] {
  const device = [`${major}:${minor}`, String(major), String(minor)] as const;
  return [
    [readBytes, ...device, 'Read'],
    [writtenBytes, ...device, 'Write'],
  ];
}
