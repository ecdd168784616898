import { ImageServiceDefinition, RuntimeServiceDefinition } from '../proto/gen/runtime/v1/api.ts';
import type { ServiceClient } from '../ttrpc/service.ts';
import type { Connection } from './connection.ts';

export {
  type Container as KubernetesContainer,
  ContainerEventType,
  ContainerState,
  type Image as KubernetesImage,
  type PodSandbox,
  PodSandboxState,
} from '../proto/gen/runtime/v1/api.ts';

/** What Kubernetes has on this node: the calls of the CRI, as kubelet makes them. They know no namespaces of containerd's. */
export class Kubernetes {
  /** Pods and their containers. */
  readonly runtime: ServiceClient<typeof RuntimeServiceDefinition>;
  readonly images: ServiceClient<typeof ImageServiceDefinition>;

  constructor(connection: Connection) {
    this.runtime = connection.service(RuntimeServiceDefinition);
    this.images = connection.service(ImageServiceDefinition);
  }
}
