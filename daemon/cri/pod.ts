/**
 * Pods and their containers as they are kept. What they are at a time is a union: a pod that is `stopped` has no process to ask
 * for, a container that is `created` no exit code.
 */
import type { Pod, PodContainer } from '../../proto/gen/moor/metadata/pod.ts';
import {
  type ContainerMetadata,
  ContainerState,
  NamespaceMode,
  NamespaceOption,
  type PodSandboxConfig,
  type PodSandboxMetadata,
  PodSandboxState,
  type UserNamespace,
} from '../../proto/gen/runtime/v1/api.ts';
import type { Timestamp } from '../../proto/gen/google/protobuf/timestamp.ts';

export { Pod, PodContainer } from '../../proto/gen/moor/metadata/pod.ts';

export type PodState = NonNullable<Pod['state']>;
export type PodContainerState = NonNullable<PodContainer['state']>;
/** How a container has ended. */
export type ContainerExit = Extract<PodContainerState, { $case: 'exited' }>['value'];

/** Labels and annotations by which clients of containerd's API know what belongs to Kubernetes. */
export const Label = {
  Kind: 'io.cri-containerd.kind',
  Image: 'io.cri-containerd.image',
  Pinned: 'io.cri-containerd.pinned',
  PodName: 'io.kubernetes.pod.name',
  PodNamespace: 'io.kubernetes.pod.namespace',
  PodUid: 'io.kubernetes.pod.uid',
  ContainerName: 'io.kubernetes.container.name',
} as const;

/** Annotations of specifications, by which runtimes and monitors know what they have before them. */
export const Annotation = {
  ContainerType: 'io.kubernetes.cri.container-type',
  SandboxId: 'io.kubernetes.cri.sandbox-id',
  SandboxName: 'io.kubernetes.cri.sandbox-name',
  SandboxNamespace: 'io.kubernetes.cri.sandbox-namespace',
  SandboxUid: 'io.kubernetes.cri.sandbox-uid',
  SandboxLogDirectory: 'io.kubernetes.cri.sandbox-log-directory',
  ContainerName: 'io.kubernetes.cri.container-name',
  ImageName: 'io.kubernetes.cri.image-name',
} as const;

/** The namespaces that the pod shares and those that it does not; what is left out is the pod's. */
export function namespacesOf({ linux }: PodSandboxConfig): NamespaceOption {
  return linux?.securityContext?.namespaceOptions ?? NamespaceOption.fromPartial({});
}

/** The mappings of the pod's user namespace; undefined when it has the node's. */
export function userNamespaceOf(config: PodSandboxConfig): UserNamespace | undefined {
  const { usernsOptions } = namespacesOf(config);
  return usernsOptions?.mode === NamespaceMode.POD ? usernsOptions : undefined;
}

/** The name that is reserved for a pod. */
export function podName({ name, namespace, uid, attempt }: PodSandboxMetadata): string {
  return [name, namespace, uid, attempt].join('_');
}

/** The name that is reserved for a container. */
export function containerName({ name, attempt }: ContainerMetadata, pod: PodSandboxMetadata): string {
  return [name, pod.name, pod.namespace, pod.uid, attempt].join('_');
}

/** A pod's state as the API has it. */
export function sandboxState({ state }: Pod): PodSandboxState {
  return state?.$case === 'ready' ? PodSandboxState.SANDBOX_READY : PodSandboxState.SANDBOX_NOTREADY;
}

/** Whether clients see it: what is being made they do not, as containerd has it. */
export function isListed({ state }: Pod | PodContainer): boolean {
  return state !== undefined && state.$case !== 'making';
}

/** A container's state as the API has it. */
export function containerState({ state }: PodContainer): ContainerState {
  switch (state?.$case) {
    case 'created':
      return ContainerState.CONTAINER_CREATED;
    case 'running':
      return ContainerState.CONTAINER_RUNNING;
    case 'exited':
    case 'removing':
      return ContainerState.CONTAINER_EXITED;
    case 'making':
    case undefined:
  }
  return ContainerState.CONTAINER_UNKNOWN;
}

/** The name of a container's state in the API: `CONTAINER_RUNNING`. */
export function stateName(container: PodContainer): string {
  const state = containerState(container);
  return Object.entries(ContainerState).find(([, value]) => value === state)?.[0] ?? 'CONTAINER_UNKNOWN';
}

/** How a container has ended; undefined as long as it has not. */
export function exitOf({ state }: PodContainer): ContainerExit | undefined {
  if (state?.$case === 'exited') return state.value;
  return state?.$case === 'removing' ? state.value.exited : undefined;
}

/** In a second. */
const NANOSECONDS = 1_000_000_000n;

/** Nanoseconds since 1970, as the API has times. */
export function nanosecondsOf({ seconds, nanos }: Timestamp): bigint {
  return seconds * NANOSECONDS + BigInt(nanos);
}

/** A time of a record as other messages have it. */
export function timestampOf(nanoseconds: bigint): Timestamp {
  return { seconds: nanoseconds / NANOSECONDS, nanos: Number(nanoseconds % NANOSECONDS) };
}

/** Whether something has all labels of a selector. */
export function matches(
  labels: { readonly [key: string]: string },
  selector: { readonly [key: string]: string },
): boolean {
  return Object.entries(selector).every(
    ([key, value]) => Object.hasOwn(labels, key) && labels[key] === value,
  );
}
