import { createHash } from 'node:crypto';
import { fstatSync } from 'node:fs';
import { syncFilesystem } from '../../../native/native.ts';
import type { Mount } from '../../../proto/gen/containerd/types/mount.ts';
import { resourceExhausted } from '../../../ttrpc/errors.ts';
import { ArchiveReader } from '../archive/reader.ts';
import type { ApplyJob, Archive } from '../job.ts';
import { archiveLimit, type Limits } from '../limits.ts';
import { overlayLayers, readOnlyMounts } from '../overlay.ts';
import { archivePieces } from './blob.ts';
import type { Enclosure } from './enclosure.ts';
import { Layer } from './layer.ts';
import { LOWER, ROOT, Tree } from './tree.ts';

/**
 * Unpacks the layer in a file into what the mounts make.
 *
 * @returns the archive's digest and size, everything behind its end included
 * @throws RpcError naming the entry and the cause
 */
export async function apply(job: ApplyJob, blob: number, enclosure: Enclosure): Promise<Archive> {
  const trees = treesOf(job.mounts);
  return enclosure.within(trees, async () => {
    const tree = new Tree(LOWER in trees);
    const archive = await unpack(blob, new Layer(tree, job.limits), job.limits);
    tree.finish();
    if (job.sync) syncFilesystem(ROOT);
    return archive;
  });
}

/**
 * An overlay that can be written to is not mounted: its upper folder takes the layer, and what lies below is there to be looked
 * at. Everything else is mounted as it is.
 */
function treesOf(mounts: readonly Mount[]): Record<string, readonly Mount[]> {
  const layers = overlayLayers(mounts);
  // In a user namespace, overlayfs keeps its books in attributes of users, which are not written here.
  if (layers?.upper === undefined || layers.others.includes('userxattr')) return { [ROOT]: mounts };
  const upper = { type: 'bind', source: layers.upper, target: '', options: ['bind'] };
  return { [ROOT]: [upper], [LOWER]: readOnlyMounts(layers.lowers, layers.others) };
}

async function unpack(blob: number, layer: Layer, limits: Limits): Promise<Archive> {
  const blobSize = fstatSync(blob).size;
  const most = archiveLimit(limits, blobSize);
  const reader = new ArchiveReader(layer);
  const hash = createHash('sha256');
  let size = 0;
  try {
    for await (const piece of archivePieces(blob, blobSize)) {
      size += piece.length;
      if (size > most) {
        throw resourceExhausted(`a layer of ${blobSize} bytes unpacks to more than the ${most} that it may`);
      }
      hash.update(piece);
      reader.push(piece);
    }
    reader.end();
  } finally {
    layer.close();
  }
  return { diffId: `sha256:${hash.digest('hex')}`, size };
}
