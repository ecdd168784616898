import type { oci } from '../client/client.ts';
import { Failure } from './failure.ts';
import type { Session } from './session.ts';

const TYPES: readonly string[] = ['pid', 'network', 'uts', 'mount', 'user', 'ipc', 'cgroup', 'time'];

/**
 * The values of `--with-ns`: TYPE:PATH, or network:NAME for a network of `moor network`.
 *
 * @throws Failure for what is neither, RpcError NotFound for a network that is not there
 */
export async function joinedNamespaces(
  { client, call }: Pick<Session, 'client' | 'call'>,
  values: readonly string[] | undefined,
): Promise<oci.LinuxNamespace[] | undefined> {
  if (values === undefined) return undefined;
  const namespaces: oci.LinuxNamespace[] = [];
  for (const { type, path } of values.map(parse)) {
    const isName = type === 'network' && !path.includes('/');
    namespaces.push({ type, path: isName ? (await client.networks.get(path, call)).path : path });
  }
  return namespaces;
}

function parse(text: string): { readonly type: oci.NamespaceType; readonly path: string } {
  const [, type = '', path = ''] = /^([^:]*):(.+)$/.exec(text) ?? [];
  if (!TYPES.includes(type)) {
    throw new Failure(`--with-ns: not TYPE:PATH: ${text}`, `TYPE is one of ${TYPES.join(', ')}`);
  }
  return { type: type as oci.NamespaceType, path };
}
