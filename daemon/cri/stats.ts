/** What pods and their containers use. */
import type {
  ContainerStats,
  ContainerStatsFilter,
  CpuUsage,
  MemoryUsage,
  PodSandboxStats,
  PodSandboxStatsFilter,
} from '../../proto/gen/runtime/v1/api.ts';
import { failedPrecondition } from '../../ttrpc/errors.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import type { Calls, Cri } from './cri.ts';
import { Measurements, type Measured, type MeasuredPod } from './measurements.ts';
import { METRICS, metricsOf } from './metrics.ts';
import { type InterfaceUsage } from './network-usage.ts';
import { type Pod, type PodContainer, matches } from './pod.ts';
import { now } from './pod-life.ts';

/** Items in one message of a stream. */
const CHUNK = 100;

type Container = PartialMessage<ContainerStats>;

export function statsCalls(
  cri: Cri,
): Calls<
  | 'containerStats'
  | 'listContainerStats'
  | 'streamContainerStats'
  | 'podSandboxStats'
  | 'listPodSandboxStats'
  | 'streamPodSandboxStats'
  | 'listMetricDescriptors'
  | 'listPodSandboxMetrics'
  | 'streamPodSandboxMetrics'
> {
  const measurements = new Measurements(cri);
  const containers = async (filter: ContainerStatsFilter | undefined, signal: AbortSignal) =>
    Promise.all(
      selectedContainers(cri, filter).map(async (each) =>
        statsOf(await measurements.container(each, signal)),
      ),
    );
  const pods = async (filter: PodSandboxStatsFilter | undefined, signal: AbortSignal) =>
    Promise.all(
      selectedPods(cri, filter).map(async (pod) => podStatsOf(await measurements.pod(pod, signal))),
    );
  const metrics = async (signal: AbortSignal) =>
    Promise.all(
      selectedPods(cri, undefined).map(async (pod) => metricsOf(await measurements.pod(pod, signal))),
    );
  return {
    async containerStats({ containerId }, { signal }) {
      return { stats: statsOf(await measurements.container(cri.containers.get(containerId), signal)) };
    },
    async listContainerStats({ filter }, { signal }) {
      return { stats: await containers(filter, signal) };
    },
    async *streamContainerStats({ filter }, { signal }) {
      for (const containerStats of chunks(await containers(filter, signal))) yield { containerStats };
    },
    async podSandboxStats({ podSandboxId }, { signal }) {
      const pod = cri.pods.get(podSandboxId);
      if (pod.state?.$case !== 'ready') throw failedPrecondition(`sandbox ${pod.id} is not running`);
      return { stats: podStatsOf(await measurements.pod(pod, signal)) };
    },
    async listPodSandboxStats({ filter }, { signal }) {
      return { stats: await pods(filter, signal) };
    },
    async *streamPodSandboxStats({ filter }, { signal }) {
      for (const podSandboxStats of chunks(await pods(filter, signal))) yield { podSandboxStats };
    },
    async listMetricDescriptors() {
      return {
        descriptors: METRICS.map(({ name, help, labels }) => ({ name, help, labelKeys: [...labels] })),
      };
    },
    async listPodSandboxMetrics(_request, { signal }) {
      return { podMetrics: await metrics(signal) };
    },
    async *streamPodSandboxMetrics(_request, { signal }) {
      for (const podSandboxMetrics of chunks(await metrics(signal))) yield { podSandboxMetrics };
    },
  };
}

function* chunks<T>(items: readonly T[]): Generator<T[], void, undefined> {
  for (let from = 0; from < items.length; from += CHUNK) yield items.slice(from, from + CHUNK);
}

/** Those that run: of the others there is nothing to measure. */
function selectedContainers(cri: Cri, filter: ContainerStatsFilter | undefined): PodContainer[] {
  const { id = '', podSandboxId = '', labelSelector = {} } = filter ?? {};
  return cri.containers
    .list()
    .filter(({ state }) => state?.$case === 'running')
    .filter((container) => container.id.startsWith(id) && container.podId.startsWith(podSandboxId))
    .filter(({ config }) => matches(config?.labels ?? {}, labelSelector));
}

function selectedPods(cri: Cri, filter: PodSandboxStatsFilter | undefined): Pod[] {
  const { id = '', labelSelector = {} } = filter ?? {};
  return cri.pods
    .list()
    .filter(({ state }) => state?.$case === 'ready')
    .filter((pod) => pod.id.startsWith(id) && matches(pod.config?.labels ?? {}, labelSelector));
}

function attributesOf({ id, config }: Pod | PodContainer): {
  id: string;
  labels: { [key: string]: string };
  annotations: { [key: string]: string };
} {
  return { id, labels: { ...config?.labels }, annotations: { ...config?.annotations } };
}

function statsOf(measured: Measured): Container {
  const { record, layer } = measured;
  const used = usageOf(measured);
  return {
    attributes: { ...attributesOf(record), metadata: record.config?.metadata },
    cpu: used?.cpu,
    memory: used?.memory,
    swap: used?.swap,
    io: used?.io,
    writableLayer: layer,
  };
}

interface Used extends Pick<Container, 'swap' | 'io'> {
  readonly cpu: CpuUsage;
  readonly memory: MemoryUsage;
}

function usageOf({ usage, nanoCores }: Pick<Measured, 'usage' | 'nanoCores'>): Used | undefined {
  if (usage === undefined) return undefined;
  const timestamp = now();
  const { cpu, memory, swap, pressure } = usage;
  const value = (number: bigint) => ({ value: number });
  const left = (limit: bigint | undefined, used: bigint) =>
    limit === undefined ? undefined : value(limit > used ? limit - used : 0n);
  return {
    cpu: {
      timestamp,
      usageCoreNanoSeconds: value(cpu.total),
      usageNanoCores: value(nanoCores),
      psi: pressure.cpu,
    },
    memory: {
      timestamp,
      workingSetBytes: value(memory.workingSet),
      availableBytes: left(memory.limit, memory.workingSet),
      usageBytes: value(memory.usage),
      rssBytes: value(memory.rss),
      pageFaults: value(memory.pageFaults),
      majorPageFaults: value(memory.majorPageFaults),
      psi: pressure.memory,
    },
    swap: { timestamp, swapUsageBytes: value(swap.usage), swapAvailableBytes: left(swap.limit, swap.usage) },
    io: pressure.io === undefined ? undefined : { timestamp, psi: pressure.io },
  };
}

function podStatsOf(measured: MeasuredPod): PartialMessage<PodSandboxStats> {
  const { record, containers, interfaces, processes } = measured;
  const used = usageOf(measured);
  const timestamp = now();
  const [first, ...more] = interfaces.map(interfaceOf);
  return {
    attributes: { ...attributesOf(record), metadata: record.config?.metadata },
    linux: {
      cpu: used?.cpu,
      memory: used?.memory,
      io: used?.io,
      network: first && { timestamp, defaultInterface: first, interfaces: more },
      process: { timestamp, processCount: { value: processes } },
      containers: containers.map(statsOf),
    },
  };
}

function interfaceOf({ name, rxBytes, rxErrors, txBytes, txErrors }: InterfaceUsage) {
  return {
    name,
    rxBytes: { value: rxBytes },
    rxErrors: { value: rxErrors },
    txBytes: { value: txBytes },
    txErrors: { value: txErrors },
  };
}
