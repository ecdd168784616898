/** Pulls that the daemon does itself, as clients of containerd's 2.x line ask for them. */
import { TransferDefinition } from '../../proto/gen/containerd/services/transfer.ts';
import { ImageStore, OCIRegistry } from '../../proto/gen/containerd/types/transfer.ts';
import { messageAny } from '../../daemon/distribution/any.ts';
import type { CallOptions } from '../../ttrpc/service.ts';
import type { Daemon } from './daemon.ts';

const TYPES = 'containerd.types.transfer.';
const platform = { os: 'linux', architecture: 'amd64' };

export interface PullOptions extends CallOptions {
  /** Also make its snapshots; true unless said otherwise. */
  readonly unpack?: boolean;
  /** A folder with `hosts.toml` files. */
  readonly hostsDir?: string;
}

/** Has the daemon pull an image of this platform, and unpack it. Fails as the call does. */
export async function pull(
  daemon: Daemon,
  namespace: string,
  name: string,
  { unpack = true, hostsDir = '', ...options }: PullOptions = {},
): Promise<void> {
  using connection = daemon.connect();
  const source = messageAny(`${TYPES}OCIRegistry`, OCIRegistry, {
    reference: name,
    resolver: { hostDir: hostsDir },
  });
  const unpacks = unpack ? [{ platform, snapshotter: 'overlayfs' }] : [];
  const store = { name, platforms: [platform], unpacks };
  const destination = messageAny(`${TYPES}ImageStore`, ImageStore, store);
  await connection.service(TransferDefinition, namespace).transfer({ source, destination }, options);
}
