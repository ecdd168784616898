/** `ListPodSandboxMetrics`: what cAdvisor tells Prometheus of containers, under its names (docs/storage/prometheus.md of cAdvisor). */
import {
  type Metric as WireMetric,
  MetricType,
  type PodSandboxMetrics,
} from '../../proto/gen/runtime/v1/api.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import type { Measured, MeasuredPod } from './measurements.ts';
import type { InterfaceUsage } from './network-usage.ts';
import { now } from './pod-life.ts';
import type { CgroupUsage } from './usage.ts';

interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  /** Names of the labels, in the order of their values. */
  readonly labels: readonly string[];
}

type Reading = readonly [value: bigint | undefined, ...labels: string[]];

interface ContainerMetric extends Metric {
  read(measured: Measured & { readonly usage: CgroupUsage }): readonly Reading[];
}

interface NetworkMetric extends Metric {
  read(device: InterfaceUsage): bigint;
}

/** What kubelet's own labels are, so that dashboards find theirs. */
const BASE = ['container', 'id', 'image', 'name', 'namespace', 'pod'] as const;
const SECOND = 1_000_000_000n;
const { COUNTER, GAUGE } = MetricType;

function of(
  name: string,
  help: string,
  type: MetricType,
  read: (usage: CgroupUsage) => bigint | undefined,
): ContainerMetric {
  return { name: `container_${name}`, help, type, labels: BASE, read: ({ usage }) => [[read(usage)]] };
}

const CONTAINER_METRICS: readonly ContainerMetric[] = [
  // Whole seconds: the API carries no fractions.
  of(
    'cpu_usage_seconds_total',
    'Cumulative cpu time consumed in seconds.',
    COUNTER,
    ({ cpu }) => cpu.total / SECOND,
  ),
  of(
    'cpu_user_seconds_total',
    'Cumulative user cpu time consumed in seconds.',
    COUNTER,
    ({ cpu }) => cpu.user / SECOND,
  ),
  of(
    'cpu_system_seconds_total',
    'Cumulative system cpu time consumed in seconds.',
    COUNTER,
    ({ cpu }) => cpu.system / SECOND,
  ),
  of(
    'cpu_cfs_periods_total',
    'Number of elapsed enforcement period intervals.',
    COUNTER,
    ({ cpu }) => cpu.periods,
  ),
  of(
    'cpu_cfs_throttled_periods_total',
    'Number of throttled period intervals.',
    COUNTER,
    ({ cpu }) => cpu.throttledPeriods,
  ),
  of(
    'cpu_cfs_throttled_seconds_total',
    'Total time duration the container has been throttled.',
    COUNTER,
    ({ cpu }) => cpu.throttled / SECOND,
  ),
  of(
    'memory_usage_bytes',
    'Current memory usage in bytes, including all memory regardless of when it was accessed.',
    GAUGE,
    ({ memory }) => memory.usage,
  ),
  of('memory_working_set_bytes', 'Current working set in bytes.', GAUGE, ({ memory }) => memory.workingSet),
  of('memory_rss', 'Size of RSS in bytes.', GAUGE, ({ memory }) => memory.rss),
  of('memory_cache', 'Number of bytes of page cache memory.', GAUGE, ({ memory }) => memory.cache),
  of('memory_mapped_file', 'Size of memory mapped files in bytes.', GAUGE, ({ memory }) => memory.mappedFile),
  of('memory_swap', 'Container swap usage in bytes.', GAUGE, ({ swap }) => swap.usage),
  of('memory_max_usage_bytes', 'Maximum memory usage recorded in bytes.', GAUGE, ({ memory }) => memory.max),
  of('memory_failcnt', 'Number of memory usage hits limits.', COUNTER, ({ memory }) => memory.failures),
  of(
    'oom_events_total',
    'Count of out of memory events observed for the container.',
    COUNTER,
    ({ memory }) => memory.oomKills,
  ),
  of(
    'spec_memory_limit_bytes',
    'Memory limit for the container; 0 for none.',
    GAUGE,
    ({ memory }) => memory.limit ?? 0n,
  ),
  of('threads', 'Number of threads running inside the container.', GAUGE, ({ threads }) => threads),
  {
    name: 'container_memory_failures_total',
    help: 'Cumulative count of memory allocation failures.',
    type: COUNTER,
    labels: [...BASE, 'failure_type', 'scope'],
    read: ({ usage: { memory } }) => [
      [memory.pageFaults, 'pgfault', 'container'],
      [memory.majorPageFaults, 'pgmajfault', 'container'],
    ],
  },
  {
    name: 'container_fs_usage_bytes',
    help: 'Number of bytes that are consumed by the container on this filesystem.',
    type: GAUGE,
    labels: [...BASE, 'device'],
    read: ({ layer }) => [[layer?.usedBytes?.value, layer?.fsId?.mountpoint ?? '']],
  },
  {
    name: 'container_start_time_seconds',
    help: 'Start time of the container since unix epoch in seconds.',
    type: GAUGE,
    labels: BASE,
    read: ({ record: { state } }) => [
      [state?.$case === 'running' ? state.value.startedAt / SECOND : undefined],
    ],
  },
  {
    name: 'container_last_seen',
    help: 'Last time a container was seen, since unix epoch in seconds.',
    type: GAUGE,
    labels: BASE,
    read: () => [[now() / SECOND]],
  },
];

function network(name: string, help: string, read: NetworkMetric['read']): NetworkMetric {
  return {
    name: `container_network_${name}_total`,
    help,
    type: COUNTER,
    labels: [...BASE, 'interface'],
    read,
  };
}

const NETWORK_METRICS: readonly NetworkMetric[] = [
  network('receive_bytes', 'Cumulative count of bytes received.', ({ rxBytes }) => rxBytes),
  network('receive_packets', 'Cumulative count of packets received.', ({ rxPackets }) => rxPackets),
  network(
    'receive_errors',
    'Cumulative count of errors encountered while receiving.',
    ({ rxErrors }) => rxErrors,
  ),
  network(
    'receive_packets_dropped',
    'Cumulative count of packets dropped while receiving.',
    ({ rxDropped }) => rxDropped,
  ),
  network('transmit_bytes', 'Cumulative count of bytes transmitted.', ({ txBytes }) => txBytes),
  network('transmit_packets', 'Cumulative count of packets transmitted.', ({ txPackets }) => txPackets),
  network(
    'transmit_errors',
    'Cumulative count of errors encountered while transmitting.',
    ({ txErrors }) => txErrors,
  ),
  network(
    'transmit_packets_dropped',
    'Cumulative count of packets dropped while transmitting.',
    ({ txDropped }) => txDropped,
  ),
];

const PROCESSES: Metric = {
  name: 'container_processes',
  help: 'Number of processes running inside the pod.',
  type: GAUGE,
  labels: BASE,
};

/** Everything that there may be a figure of. */
export const METRICS: readonly Metric[] = [...CONTAINER_METRICS, ...NETWORK_METRICS, PROCESSES];

export function metricsOf(measured: MeasuredPod): PartialMessage<PodSandboxMetrics> {
  const { record, interfaces, processes, containers } = measured;
  const { name: pod = '', namespace = '' } = record.config?.metadata ?? {};
  const own = ['', record.id, '', record.name, namespace, pod];
  const metrics = NETWORK_METRICS.flatMap((metric) =>
    interfaces.map((device) => wire(metric, metric.read(device), [...own, device.name])),
  );
  return {
    podSandboxId: record.id,
    metrics: [...metrics, wire(PROCESSES, processes, own)],
    containerMetrics: containers.map((container) => ({
      containerId: container.record.id,
      metrics: containerMetrics(container, namespace, pod),
    })),
  };
}

function containerMetrics(measured: Measured, namespace: string, pod: string): WireMetric[] {
  const { usage, record } = measured;
  if (usage === undefined) return [];
  const { id, name, config, imageRef } = record;
  const base = [config?.metadata?.name ?? '', id, imageRef, name, namespace, pod];
  return CONTAINER_METRICS.flatMap((metric) =>
    metric
      .read({ ...measured, usage })
      .flatMap(([value, ...labels]) =>
        value === undefined ? [] : [wire(metric, value, [...base, ...labels])],
      ),
  );
}

function wire({ name, type }: Metric, value: bigint, labelValues: string[]): WireMetric {
  return { name, timestamp: now(), metricType: type, labelValues, value: { value } };
}
