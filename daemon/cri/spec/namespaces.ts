/** Which namespaces a container shares with whom. */
import type { IdMapping, LinuxNamespace } from '../../../oci/spec.ts';
import { type IDMapping, type NamespaceOption, NamespaceMode } from '../../../proto/gen/runtime/v1/api.ts';
import { invalidArgument } from '../../../ttrpc/errors.ts';

/** The processes whose namespaces are joined. */
export interface Neighbours {
  /** The pod's own process. */
  readonly pod: number;
  /** The process of the container that `target_id` names. */
  readonly target: number | undefined;
}

/** @throws RpcError InvalidArgument for a PID namespace of a container that is not said */
export function namespacesFor(
  options: NamespaceOption | undefined,
  hasUserNamespace: boolean,
  { pod, target }: Neighbours,
): LinuxNamespace[] {
  const ofPod = (type: LinuxNamespace['type'], name: string = type): LinuxNamespace => ({
    type,
    path: `/proc/${pod}/ns/${name}`,
  });
  const pid = (): LinuxNamespace[] => {
    switch (options?.pid ?? NamespaceMode.POD) {
      case NamespaceMode.POD:
        return [ofPod('pid')];
      case NamespaceMode.NODE:
        return [];
      case NamespaceMode.TARGET:
        if (target === undefined)
          throw invalidArgument(
            'the container whose PID namespace is wanted must be named: invalid argument',
          );
        return [{ type: 'pid', path: `/proc/${target}/ns/pid` }];
      case NamespaceMode.CONTAINER:
    }
    return [{ type: 'pid' }];
  };
  // Where the pod has the node's, joining its process's namespace comes to the same.
  const shared = [ofPod('ipc'), ofPod('uts'), ofPod('network', 'net')];
  const user = hasUserNamespace ? [ofPod('user')] : [];
  return [{ type: 'mount' }, ...shared, ...pid(), ...user];
}

/** Owners by number, as specifications have them. */
export function specMappings(mappings: readonly IDMapping[]): IdMapping[] {
  return mappings.map(({ containerId, hostId, length }) => ({
    containerID: containerId,
    hostID: hostId,
    size: length,
  }));
}
