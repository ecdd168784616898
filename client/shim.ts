import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { StateResponse } from '../proto/gen/containerd/task/v2.ts';
import { notFound } from '../ttrpc/errors.ts';
import type { CallOptions } from '../ttrpc/service.ts';

export interface ShimOptions extends CallOptions {
  readonly namespace: string;
  readonly id: string;
  /** The daemon's socket: containerd names its shims' sockets after it. */
  readonly address: string;
  /** The daemon's state directory. Default: where its socket is. */
  readonly state?: string;
}

/**
 * Asks a container's shim for the state of its init, past the daemon: for when the daemon is down or in doubt.
 *
 * @throws RpcError NotFound when no shim's socket is found, Unavailable when nobody answers on it
 */
export async function shimState(options: ShimOptions): Promise<StateResponse> {
  const { namespace, id, address, state, ...call } = options;
  const directory = join(state ?? dirname(address), 'tasks', namespace, id);
  // Loaded only here: the rest of the client has nothing to do with ttrpc.
  const [{ TtrpcClient }, { TaskDefinition }] = await Promise.all([
    import('../ttrpc/client.ts'),
    import('../proto/gen/containerd/task/v2.ts'),
  ]);
  const socket = bootstrapAddress(directory) ?? containerdAddress(address, namespace, id);
  using client = await TtrpcClient.connect(socket, call);
  const shim = client.service(TaskDefinition);
  return await shim.state({ id }, { ...call, metadata: [['containerd-namespace-ttrpc', namespace]] });
}

/** What the daemon noted of the shim when it started it. */
function bootstrapAddress(directory: string): string | undefined {
  const file = join(directory, 'bootstrap.json');
  try {
    const { address } = JSON.parse(readFileSync(file, 'utf8')) as { address?: string };
    return address === undefined || address === '' ? undefined : address.replace(/^unix:\/\//, '');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw notFound(`${file} cannot be read: ${(error as Error).message}`, error);
  }
}

/** Where a shim of containerd's daemon listens: containerd 1.6, runtime/v2/shim, SocketAddress. */
function containerdAddress(address: string, namespace: string, id: string): string {
  const name = createHash('sha256')
    .update(join(address, namespace, id))
    .digest('hex');
  return join('/run/containerd/s', name);
}
