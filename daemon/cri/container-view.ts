/** Containers of pods as clients see them. */
import {
  type Container,
  type ContainerFilter,
  type ContainerStatus,
  Signal,
} from '../../proto/gen/runtime/v1/api.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import type { ContainerId } from '../identifiers.ts';
import type { Cri } from './cri.ts';
import { containerState, exitOf, isListed, matches, type PodContainer } from './pod.ts';
import { type LocalImage, digestsOf, tagsOf } from './local-images.ts';
import { KUBERNETES } from './registry.ts';

/** Those that all of the filter fits, the oldest first. */
export function listContainers({ containers, pods }: Cri, filter: ContainerFilter | undefined): Container[] {
  const { id = '', podSandboxId = '', state, labelSelector = {} } = filter ?? {};
  const wanted = id === '' ? undefined : containers.find(id)?.id;
  const podId = podSandboxId === '' ? undefined : pods.find(podSandboxId)?.id;
  if ((id !== '' && wanted === undefined) || (podSandboxId !== '' && podId === undefined)) return [];
  return containers
    .list()
    .filter(
      (record) =>
        isListed(record) &&
        (wanted === undefined || record.id === wanted) &&
        (podId === undefined || record.podId === podId) &&
        (state === undefined || containerState(record) === state.state) &&
        matches(record.config?.labels ?? {}, labelSelector),
    )
    .map(containerOf);
}

function containerOf(record: PodContainer): Container {
  const { id, podId, config, imageId, createdAt } = record;
  return {
    id,
    podSandboxId: podId,
    metadata: config?.metadata,
    image: config?.image,
    // Kubelets up to 1.29 take an image for unused, and remove it, whose id is no container's reference in this list.
    imageRef: imageId,
    imageId,
    state: containerState(record),
    createdAt,
    labels: config?.labels ?? {},
    annotations: config?.annotations ?? {},
  };
}

/**
 * A container's status. Its image is called by a tag and referred to by a digest, as they are now, and not by its id, by which kubelet asks
 * for it: people see these in the pod.
 *
 * @param images those that are there, by their ids
 */
export function statusOf(
  record: PodContainer,
  images: ReadonlyMap<string, LocalImage>,
): PartialMessage<ContainerStatus> {
  const { id, config, createdAt, imageId, logPath, resources, user, state } = record;
  const known = images.get(imageId);
  const [tag] = known === undefined ? [] : tagsOf(known);
  const [digest] = known === undefined ? [] : digestsOf(known);
  const exit = exitOf(record);
  const startedAt = state?.$case === 'running' ? state.value.startedAt : exit?.startedAt;
  return {
    id,
    metadata: config?.metadata,
    state: containerState(record),
    createdAt,
    startedAt,
    finishedAt: exit?.finishedAt,
    exitCode: exit?.exitCode,
    reason: exit?.reason,
    message: exit?.message,
    image: tag === undefined ? config?.image : { ...config?.image, image: tag },
    imageRef: digest ?? imageId,
    imageId,
    labels: config?.labels,
    annotations: config?.annotations,
    mounts: config?.mounts,
    logPath,
    resources: { linux: resources },
    user: user && { linux: user },
    stopSignal: signalOf(record),
  };
}

/** What people who look for a mistake want to know, as JSON under `info`, with containerd's names. */
export function verboseInfo({ metadata }: Cri, record: PodContainer): { [key: string]: string } {
  const { id, podId, state, config } = record;
  const container = metadata.containers.get(KUBERNETES, id as ContainerId);
  const info = {
    sandboxID: podId,
    pid: state?.$case === 'running' ? state.value.pid : 0,
    removing: state?.$case === 'removing',
    snapshotKey: container.snapshotKey,
    snapshotter: container.snapshotter,
    runtimeType: container.runtime?.name,
    config,
    runtimeSpec: JSON.parse(Buffer.from(container.spec?.value ?? '{}').toString()) as object,
  };
  return {
    info: JSON.stringify(info, (_, value: unknown) => (typeof value === 'bigint' ? Number(value) : value)),
  };
}

function signalOf({ stopSignal }: PodContainer): Signal {
  const name = stopSignal
    .toUpperCase()
    .replace(/^(?!SIG)/, 'SIG')
    .replace('SIGRTMIN+', 'SIGRTMINPLUS')
    .replace('SIGRTMAX-', 'SIGRTMAXMINUS');
  return Object.hasOwn(Signal, name) ? Signal[name as keyof typeof Signal] : Signal.RUNTIME_DEFAULT;
}
