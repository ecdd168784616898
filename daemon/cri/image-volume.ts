/** Volumes of images: an image's files as a directory of this host, to be mounted in a container and read only. */
import { mkdirSync, readdirSync, realpathSync, rmdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { constants, mountByKernel, parseMountOptions, unmount } from '../../native/native.ts';
import type { Mount } from '../../proto/gen/runtime/v1/api.ts';
import { Code, failedPrecondition, invalidArgument, isCode, messageOf } from '../../ttrpc/errors.ts';
import type { Cri } from './cri.ts';
import { KUBERNETES } from './registry.ts';
import { isBelow } from './spec/mount-points.ts';

type Surroundings = Pick<Cri, 'state' | 'images' | 'distribution'>;

/** Whose volume it is and with what its snapshot is held. */
export interface VolumePurpose {
  readonly containerId: string;
  readonly snapshotter: string;
  readonly lease: string | undefined;
  readonly signal: AbortSignal;
}

/**
 * Mounts with those of images as mounts of directories.
 *
 * @throws RpcError NotFound for an image or a path that is not there; InvalidArgument for a path that leads out of the image
 */
export async function withImageVolumes(
  cri: Surroundings,
  mounts: readonly Mount[],
  purpose: VolumePurpose,
): Promise<Mount[]> {
  const made: Mount[] = [];
  for (const [index, mount] of mounts.entries()) {
    if (mount.image === undefined || mount.image.image === '') made.push(mount);
    else made.push({ ...mount, hostPath: await mountVolume(cri, mount, index, purpose), readonly: true });
  }
  return made;
}

/** Mounts with the ids of the images that theirs stand for now, as the container's status has them. @throws RpcError NotFound */
export async function withImageIds(
  { images }: Pick<Surroundings, 'images'>,
  mounts: readonly Mount[],
): Promise<Mount[]> {
  return Promise.all(
    mounts.map(async (mount) => {
      if (mount.image === undefined || mount.image.image === '') return mount;
      const { id: imageRef } = await images.get(mount.image.image);
      return { ...mount, image: { ...mount.image, imageRef } };
    }),
  );
}

async function mountVolume(
  cri: Surroundings,
  mount: Mount,
  index: number,
  purpose: VolumePurpose,
): Promise<string> {
  const { containerId, snapshotter, lease, signal } = purpose;
  const reference = mount.image?.image ?? '';
  if (mount.hostPath !== '')
    throw invalidArgument(
      `a mount has an image and a host path ${JSON.stringify(mount.hostPath)}: invalid argument`,
    );
  const image = await cri.images.get(reference);
  await cri.images.unpack(image, snapshotter, signal);
  const target = join(volumesOf(cri, containerId), String(index));
  const snapshots = cri.distribution.snapshotters.get(snapshotter);
  const layers = await snapshots.view(KUBERNETES, keyOf(containerId, index), image.chainId, {
    lease,
    signal,
  });
  try {
    mkdirSync(target, { recursive: true, mode: 0o711 });
    for (const { type, source, options } of layers)
      mountByKernel(type, source, target, parseMountOptions([...options, 'ro']));
  } catch (error) {
    throw failedPrecondition(`cannot mount the image ${reference}: ${messageOf(error)}`, error);
  }
  return pathIn(target, mount.imageSubPath, reference);
}

/** The image is not written to any more: where its links lead now they will lead when the container is started. */
function pathIn(root: string, subPath: string, reference: string): string {
  if (subPath === '') return root;
  const what = `path ${JSON.stringify(subPath)} in the image ${reference}`;
  let path: string;
  try {
    path = realpathSync(join(root, subPath));
  } catch (error) {
    throw invalidArgument(`${what}: ${messageOf(error)}`, error);
  }
  if (!isBelow(path, realpathSync(root))) throw invalidArgument(`${what} leads out of it: invalid argument`);
  if (!statSync(path).isDirectory()) throw invalidArgument(`${what} is no directory: invalid argument`);
  return path;
}

/** Takes away what a container's volumes consist of. What is not there is fine. */
export async function removeImageVolumes(
  cri: Surroundings,
  containerId: string,
  snapshotter: string,
): Promise<void> {
  const directory = volumesOf(cri, containerId);
  for (const name of namesIn(directory)) {
    const target = join(directory, name);
    unmountAll(target);
    rmdirSync(target);
    await removeSnapshot(cri, snapshotter, keyOf(containerId, Number(name)));
  }
  if (statSync(directory, { throwIfNoEntry: false }) !== undefined) rmdirSync(directory);
  // After a reboot there are snapshots without directories.
  const snapshots = cri.distribution.snapshotters.get(snapshotter);
  const left = snapshots.list(KUBERNETES).filter(({ name }) => name.startsWith(keyOf(containerId, '')));
  for (const { name } of left) await removeSnapshot(cri, snapshotter, name);
}

async function removeSnapshot(cri: Surroundings, snapshotter: string, key: string): Promise<void> {
  try {
    await cri.distribution.snapshotters.get(snapshotter).remove(KUBERNETES, key);
  } catch (error) {
    if (!isCode(error, Code.NotFound)) throw error;
  }
}

function unmountAll(target: string): void {
  try {
    for (;;) unmount(target, constants.UMOUNT_NOFOLLOW | constants.MNT_DETACH);
  } catch (error) {
    if (!['EINVAL', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

function namesIn(directory: string): string[] {
  return statSync(directory, { throwIfNoEntry: false }) === undefined ? [] : readdirSync(directory);
}

function volumesOf({ state }: Surroundings, containerId: string): string {
  return join(state, 'volumes', containerId);
}

function keyOf(containerId: string, index: number | string): string {
  return `${containerId}-volume-${index}`;
}
