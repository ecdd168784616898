import { randomBytes } from 'node:crypto';
import type { DiffDefinition } from '../proto/gen/containerd/services/diff.ts';
import { Code, failedPrecondition, isCode } from '../ttrpc/errors.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import type { Content } from './content.ts';
import type { RunnableImage } from './image-config.ts';
import type { Snapshots } from './snapshots.ts';

/** Whether a container can be made of the image as it is. */
export async function isUnpacked(
  snapshots: Snapshots,
  { chainIds }: Pick<RunnableImage, 'chainIds'>,
  options?: CallOptions,
): Promise<boolean> {
  const last = chainIds.at(-1);
  return last === undefined || (await isThere(snapshots, last, options));
}

/** What layers are unpacked with. */
export interface Unpacker {
  readonly diff: ServiceClient<typeof DiffDefinition>;
  readonly content: Content;
  readonly snapshots: Snapshots;
}

/**
 * Makes snapshots of an image's layers, those that are missing, and has the image keep them. To be called under a lease, as
 * until then nothing else does.
 *
 * @throws RpcError NotFound for a layer that is not in the content store, FailedPrecondition for one that is not what the image says
 */
export async function unpackImage(
  unpacker: Unpacker,
  image: RunnableImage,
  options?: CallOptions,
): Promise<void> {
  const { content, snapshots } = unpacker;
  const last = image.chainIds.at(-1);
  if (last === undefined) return;
  for (const [index, name] of image.chainIds.entries()) {
    if (await isThere(snapshots, name, options)) continue;
    const parent = image.chainIds[index - 1] ?? '';
    await unpackLayer(
      unpacker,
      { layer: image.layers[index]!, diffId: image.diffIds[index]!, name, parent },
      options,
    );
  }
  const label = `containerd.io/gc.ref.snapshot.${await snapshots.name(options)}`;
  await content.label(image.configDigest, { [label]: last }, options);
}

interface Job {
  readonly layer: RunnableImage['layers'][number];
  readonly diffId: string;
  readonly name: string;
  readonly parent: string;
}

async function unpackLayer(
  { diff, content, snapshots }: Unpacker,
  { layer, diffId, name, parent }: Job,
  options?: CallOptions,
): Promise<void> {
  // Named as containerd's clients do, so that whoever cleans up after them knows it.
  const key = `extract-${process.hrtime.bigint()}-${randomBytes(3).toString('base64url')} ${name}`;
  const mounts = await snapshots.prepare(key, parent, options);
  try {
    const { mediaType, digest, size } = layer;
    const { applied } = await diff.apply(
      { diff: { mediaType, digest, size: BigInt(size) }, mounts },
      options,
    );
    if (applied?.digest !== diffId) {
      throw failedPrecondition(`layer ${layer.digest} has the diff id ${applied?.digest}, not ${diffId}`);
    }
    await snapshots.commit(name, key, options);
  } catch (error) {
    // Of the caller's options not the signal: what was begun is undone also when the caller gave up.
    await snapshots.remove(key, { timeout: UNDO_MS }).catch(() => {});
    // Somebody else has unpacked it meanwhile.
    if (!isCode(error, Code.AlreadyExists)) throw error;
  }
  await content.label(layer.digest, { 'containerd.io/uncompressed': diffId }, options);
}

const UNDO_MS = 10_000;

async function isThere(snapshots: Snapshots, name: string, options?: CallOptions): Promise<boolean> {
  try {
    await snapshots.stat(name, options);
    return true;
  } catch (error) {
    if (isCode(error, Code.NotFound)) return false;
    throw error;
  }
}
