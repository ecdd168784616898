/** `ListPodSandboxMetrics`: what cAdvisor tells Prometheus of pods and their containers. */
import { statfs } from 'node:fs/promises';
import {
  type Metric as WireMetric,
  MetricType,
  type PodSandboxMetrics,
} from '../../proto/gen/runtime/v1/api.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import {
  BASE,
  CONTAINER_METRICS,
  type Detailed,
  type FilesystemSize,
  type Metric,
} from './container-metrics.ts';
import type { MeasuredInPod, MeasuredPod } from './measurements.ts';
import type { InterfaceUsage } from './network-usage.ts';
import { now } from './pod-life.ts';
import { processUsage } from './process-usage.ts';

interface NetworkMetric extends Metric {
  read(device: InterfaceUsage): bigint;
}

function network(name: string, help: string, read: NetworkMetric['read']): NetworkMetric {
  return {
    name: `container_network_${name}_total`,
    help,
    type: MetricType.COUNTER,
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

/** The pod as a whole is told of as well, by the name that its containers have it under. */
const PROCESSES = CONTAINER_METRICS.find(({ name }) => name === 'container_processes')!;

/** Everything that there may be a figure of. */
export const METRICS: readonly Metric[] = [...CONTAINER_METRICS, ...NETWORK_METRICS];

export async function metricsOf(measured: MeasuredPod): Promise<PartialMessage<PodSandboxMetrics>> {
  const { record, interfaces, processes, containers } = measured;
  const { name: pod = '', namespace = '' } = record.config?.metadata ?? {};
  const own = ['', record.id, '', record.name, namespace, pod];
  const metrics = NETWORK_METRICS.flatMap((metric) =>
    interfaces.map((device) => wire(metric, metric.read(device), [...own, device.name])),
  );
  return {
    podSandboxId: record.id,
    metrics: [...metrics, wire(PROCESSES, processes, own)],
    containerMetrics: await Promise.all(
      containers.map(async (container) => ({
        containerId: container.record.id,
        metrics: containerMetrics(await detailed(container), namespace, pod),
      })),
    ),
  };
}

/** @returns undefined for one that could not be measured */
async function detailed(measured: MeasuredInPod): Promise<Detailed | undefined> {
  const { usage, layer, pids, record } = measured;
  if (usage === undefined) return undefined;
  const { state } = record;
  const [held, filesystem] = await Promise.all([
    pids === undefined || state?.$case !== 'running' ? undefined : processUsage(pids, state.value.pid),
    sizeOf(layer?.fsId?.mountpoint ?? ''),
  ]);
  return { ...measured, usage, held, filesystem };
}

async function sizeOf(path: string): Promise<FilesystemSize | undefined> {
  if (path === '') return undefined;
  const { bsize, blocks, files, ffree } = await statfs(path, { bigint: true });
  return { bytes: bsize * blocks, inodes: files, inodesFree: ffree };
}

function containerMetrics(container: Detailed | undefined, namespace: string, pod: string): WireMetric[] {
  if (container === undefined) return [];
  const { id, name, config, imageRef } = container.record;
  const base = [config?.metadata?.name ?? '', id, imageRef, name, namespace, pod];
  return CONTAINER_METRICS.flatMap((metric) =>
    metric
      .read(container)
      .flatMap(([value, ...labels]) =>
        value === undefined ? [] : [wire(metric, value, [...base, ...labels])],
      ),
  );
}

function wire({ name, type }: Metric, value: bigint, labelValues: string[]): WireMetric {
  return { name, timestamp: now(), metricType: type, labelValues, value: { value } };
}
