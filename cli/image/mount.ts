import { resolve } from 'node:path';
import type { Session } from '../session.ts';
import { labelsOf, type SnapshotterFlags, snapshotterOf } from './platforms.ts';

/** Milliseconds that a lease holds a mounted snapshot for: ctr's day. */
const LEASE_LIFE = 24 * 60 * 60 * 1000;

export interface MountFlags extends SnapshotterFlags {
  readonly rw?: boolean;
  readonly platform?: string;
  readonly label?: readonly string[];
}

/** The snapshot is called as the folder is, so that unmount finds it. */
export async function mountImage(
  session: Session,
  name: string,
  folder: string,
  flags: MountFlags,
): Promise<void> {
  const { client, sdk, call } = session;
  const target = resolve(folder);
  const platform = flags.platform === undefined ? sdk.hostPlatform() : sdk.parsePlatform(flags.platform);
  const snapshots = client.snapshots(snapshotterOf(flags));
  const snapshotter = await snapshots.name(call);
  const image = await client.images.get(name, call);
  const isOurs = await lease(session, target, snapshotter);
  try {
    const leased = client.withLease(target);
    await leased.transfers.unpack(name, { ...call, platform, snapshotter });
    const chainId = (await client.images.chainId(image, { ...call, platform })) ?? '';
    console.log(chainId);
    const labels = labelsOf(flags.label);
    const own = leased.snapshots(snapshotter);
    let isNew = true;
    const mounts = await own[flags.rw === true ? 'prepare' : 'view'](target, chainId, {
      ...call,
      labels,
    }).catch((error: unknown) => {
      if (!sdk.isCode(error, sdk.Code.AlreadyExists)) throw error;
      isNew = false;
      return own.mounts(target, call);
    });
    try {
      sdk.mountAll(mounts, target);
    } catch (error) {
      if (isNew) await own.remove(target, call).catch(() => {});
      throw error;
    }
    console.log(target);
  } catch (error) {
    if (isOurs) await client.leases.delete(target, call).catch(() => {});
    throw error;
  }
}

/** @returns whether it was made just now */
async function lease({ client, sdk, call }: Session, id: string, snapshotter: string): Promise<boolean> {
  const labels = { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: id };
  try {
    await client.leases.create({ ...call, id, expires: LEASE_LIFE, labels });
    return true;
  } catch (error) {
    if (sdk.isCode(error, sdk.Code.AlreadyExists)) return false;
    throw error;
  }
}

export interface UnmountFlags extends SnapshotterFlags {
  readonly rm?: boolean;
}

export async function unmountImage(session: Session, folder: string, flags: UnmountFlags): Promise<void> {
  const { client, sdk, call } = session;
  const target = resolve(folder);
  sdk.unmountAll(target);
  if (flags.rm === true) {
    const missingIsFine = (error: unknown): void => {
      if (!sdk.isCode(error, sdk.Code.NotFound)) throw error;
    };
    await client.leases.delete(target, call).catch(missingIsFine);
    await client.snapshots(snapshotterOf(flags)).remove(target, call).catch(missingIsFine);
  }
  console.log(target);
}
