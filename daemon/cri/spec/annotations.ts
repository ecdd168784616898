/** What a container's specification says of it in annotations. */
import type { ContainerConfig, PodSandboxConfig } from '../../../proto/gen/runtime/v1/api.ts';
import { Annotation } from '../pod.ts';
import { passedOf } from '../pod-life.ts';
import type { RuntimeSettings } from '../settings.ts';

export interface Annotated {
  readonly podId: string;
  readonly pod: PodSandboxConfig | undefined;
  readonly config: ContainerConfig;
  readonly imageName: string;
  readonly runtime: Pick<RuntimeSettings, 'pod_annotations' | 'container_annotations'>;
}

/** Those of containerd, and those of the pod and the container that the runtime's handler wants handed on. */
export function annotationsOf({ podId, pod, config, imageName, runtime }: Annotated): Record<string, string> {
  const { name = '', namespace = '', uid = '' } = pod?.metadata ?? {};
  return {
    ...passedOf(pod?.annotations ?? {}, runtime.pod_annotations),
    ...passedOf(config.annotations, runtime.container_annotations),
    [Annotation.ContainerType]: 'container',
    [Annotation.SandboxId]: podId,
    [Annotation.SandboxName]: name,
    [Annotation.SandboxNamespace]: namespace,
    [Annotation.SandboxUid]: uid,
    [Annotation.ContainerName]: config.metadata?.name ?? '',
    [Annotation.ImageName]: imageName,
  };
}
