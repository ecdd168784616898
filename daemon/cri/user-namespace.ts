/** The users of a pod that has a user namespace of its own. */
import type { IdMapping } from '../../oci/spec.ts';
import {
  type IDMapping,
  NamespaceMode,
  type PodSandboxConfig,
  type UserNamespace,
} from '../../proto/gen/runtime/v1/api.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import { namespacesOf } from './pod.ts';

export interface Mappings {
  readonly uids: IdMapping[];
  readonly gids: IdMapping[];
}

/**
 * What runtime and containers of the pod are told of its user namespace; undefined when it has the node's.
 *
 * @throws RpcError InvalidArgument for mappings that cannot be
 */
export function mappingsOf(config: PodSandboxConfig): Mappings | undefined {
  return mappingsFor(namespacesOf(config).usernsOptions);
}

/**
 * A container is in the user namespace of its pod, whatever it is asked to be in; one that says of none is as well.
 *
 * @throws RpcError InvalidArgument when it asks for another
 */
export function demandUsersOf(pod: Mappings | undefined, asked: UserNamespace | undefined): void {
  if (asked === undefined || JSON.stringify(mappingsFor(asked)) === JSON.stringify(pod)) return;
  throw invalidArgument(
    'the user namespace that the container asks for is not that of its sandbox: invalid argument',
  );
}

function mappingsFor(wanted: UserNamespace | undefined): Mappings | undefined {
  if (wanted?.mode !== NamespaceMode.POD) {
    demandNoMappings(wanted);
    return undefined;
  }
  const { uids, gids } = wanted;
  if (uids.length !== 1 || gids.length !== 1)
    throw invalidArgument(
      'a pod with a user namespace has one mapping of users and one of groups: invalid argument',
    );
  const [users, groups] = [specMapping(uids[0]!), specMapping(gids[0]!)];
  if (JSON.stringify(users) !== JSON.stringify(groups))
    throw invalidArgument('users and groups of a pod are mapped alike: invalid argument');
  if (users.size === 0) throw invalidArgument('the mapping of users is empty: invalid argument');
  if (users.containerID !== 0)
    throw invalidArgument('root of a pod with a user namespace must be mapped: invalid argument');
  return { uids: [users], gids: [groups] };
}

/** A pod has the node's user namespace or one of its own, and in the node's nothing is mapped. */
function demandNoMappings(wanted: UserNamespace | undefined): void {
  const { mode = NamespaceMode.NODE, uids = [], gids = [] } = wanted ?? {};
  if (mode !== NamespaceMode.NODE)
    throw invalidArgument(
      'the user namespace of a pod is its own or the node’s, not that of a container: invalid argument',
    );
  if (uids.length > 0 || gids.length > 0)
    throw invalidArgument('users are mapped, and the user namespace is the node’s: invalid argument');
}

function specMapping({ containerId, hostId, length }: IDMapping): IdMapping {
  return { containerID: containerId, hostID: hostId, size: length };
}
