/** A container as `ContainerStatus`, lists and events have it. */
import type { ContainerStatus } from '../../proto/gen/runtime/v1/api.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import { type PodContainer, containerState, exitOf } from './pod.ts';

export function containerStatusOf(container: PodContainer): PartialMessage<ContainerStatus> {
  const { id, config, createdAt, imageId, imageRef, logPath, resources, user, state } = container;
  const { metadata, image, labels = {}, annotations = {}, mounts = [] } = config ?? {};
  const exit = exitOf(container);
  return {
    id,
    metadata,
    state: containerState(container),
    createdAt,
    startedAt: state?.$case === 'running' ? state.value.startedAt : (exit?.startedAt ?? 0n),
    finishedAt: exit?.finishedAt ?? 0n,
    exitCode: exit?.exitCode ?? 0,
    image,
    imageRef,
    imageId,
    reason: exit?.reason ?? '',
    message: exit?.message ?? '',
    labels,
    annotations,
    mounts,
    logPath,
    resources: { linux: resources },
    user: { linux: user },
  };
}
