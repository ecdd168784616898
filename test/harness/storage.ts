/** What a daemon has stored on disk, whatever it tells its clients. */
import { join } from 'node:path';
import type { Daemon } from './daemon.ts';
import { list } from './leftovers.ts';

/** The digests of the blobs, of every namespace. */
export function blobsOnDisk({ peer, root }: Daemon): string[] {
  const content = peer === 'moord' ? 'content' : 'io.containerd.content.v1.content';
  return list(join(root, content, 'blobs/sha256'))
    .map((name) => `sha256:${name}`)
    .sort();
}

/** The folder with a folder for each snapshot. */
export function snapshotFolder({ peer, root }: Daemon, snapshotter: string): string {
  return peer === 'moord'
    ? join(root, 'snapshots', snapshotter)
    : join(root, `io.containerd.snapshotter.v1.${snapshotter}`, 'snapshots');
}

/** The paths of the snapshots of every namespace. */
export function snapshotsOnDisk(daemon: Daemon, snapshotter = 'overlayfs'): string[] {
  const folder = snapshotFolder(daemon, snapshotter);
  return list(folder).map((name) => join(folder, name));
}

/** Blobs that are being written. */
export function ingestsOnDisk({ peer, root }: Daemon): string[] {
  const content = peer === 'moord' ? 'content' : 'io.containerd.content.v1.content';
  return list(join(root, content, 'ingest'));
}
