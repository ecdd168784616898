/** What kubelet is told of containers as it happens (`GetContainerEvents`). */
import type { ContainerEventType } from '../../proto/gen/runtime/v1/api.ts';
import { unimplemented } from '../../ttrpc/errors.ts';
import type { Calls, Cri } from './cri.ts';

export class ContainerEvents {
  /**
   * Tells subscribers of a pod or of a container of it.
   *
   * @param id of the container, or of the pod itself
   */
  publish(_type: ContainerEventType, _id: string, _podId: string): void {}
}

export function eventCalls(_cri: Cri): Calls<'getContainerEvents'> {
  return {
    getContainerEvents() {
      throw unimplemented('GetContainerEvents is not served yet');
    },
  };
}
