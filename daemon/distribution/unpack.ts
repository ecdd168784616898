/** From layers to snapshots: each becomes one on top of the one below, while those above are still on their way. */
import { createHash, randomBytes } from 'node:crypto';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Code, failedPrecondition, invalidArgument, isCode } from '../../ttrpc/errors.ts';
import { isDigest } from '../content/digest.ts';
import type { NamespacedContent } from '../content/namespaced-content.ts';
import type { LayerDiffer } from '../diff/layer-differ.ts';
import { reached } from '../failpoint.ts';
import type { Namespace } from '../identifiers.ts';
import type { Snapshotter } from '../snapshots/snapshotter.ts';
import { addLabels, parseDocument } from './graph.ts';
import { refKeyOf } from './media-types.ts';
import type { Report } from './progress.ts';
import type { Turns } from './turns.ts';

export interface Workshop {
  readonly content: NamespacedContent;
  readonly differ: LayerDiffer;
  readonly snapshotter: Snapshotter;
  /** Of all that is being unpacked by the daemon. */
  readonly unpacking: Turns;
  readonly namespace: Namespace;
  readonly lease: string | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

export interface Layer {
  readonly descriptor: Descriptor;
  /** Brings the layer when it is not there; only then is it needed. */
  readonly ready: () => Promise<void>;
}

const UNCOMPRESSED = 'containerd.io/uncompressed';

/** The names of the snapshots of a stack of layers (image-spec, config.md#layer-chainid). */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(
      below === undefined
        ? diffId
        : `sha256:${createHash('sha256').update(`${below} ${diffId}`).digest('hex')}`,
    );
  }
  return chain;
}

/** @param bytes an image's configuration. @throws RpcError InvalidArgument */
export function diffIdsOf(digest: string, bytes: Buffer): string[] {
  const { rootfs } = parseDocument(digest, bytes) as { rootfs?: { diff_ids?: unknown } };
  const ids = rootfs?.diff_ids ?? [];
  if (!Array.isArray(ids) || !ids.every((id) => typeof id === 'string' && isDigest(id)))
    throw invalidArgument(`image configuration ${digest}: malformed diff ids: invalid argument`);
  return ids;
}

/**
 * Makes the snapshots of an image, those that are missing, and has the configuration hold the last.
 *
 * @returns the name of the last; undefined for an image without layers
 * @throws RpcError as the differ and the snapshotter; FailedPrecondition for a layer that is not what the configuration says
 */
export async function unpack(
  shop: Workshop,
  config: Descriptor,
  diffIds: readonly string[],
  layers: readonly Layer[],
): Promise<string | undefined> {
  if (diffIds.length !== layers.length) {
    throw invalidArgument(
      `image configuration ${config.digest} tells of ${diffIds.length} layers, its manifest of ${layers.length}: invalid argument`,
    );
  }
  const chain = chainIds(diffIds);
  for (const [index, layer] of layers.entries()) {
    const job = { layer, diffId: diffIds[index]!, name: chain[index]!, parent: chain[index - 1] ?? '' };
    const { namespace, snapshotter, signal, unpacking } = shop;
    await unpacking.take(`${namespace} ${snapshotter.name} ${job.name}`, signal, () => stack(shop, job));
  }
  const last = chain.at(-1);
  if (last !== undefined) {
    const label = `containerd.io/gc.ref.snapshot.${shop.snapshotter.name}`;
    await addLabels(shop.content, shop.namespace, config.digest, { [label]: last });
    reached('image-unpacked');
  }
  return last;
}

interface Job {
  readonly layer: Layer;
  readonly diffId: string;
  readonly name: string;
  readonly parent: string;
}

async function stack(shop: Workshop, job: Job): Promise<void> {
  const { snapshotter, namespace, lease, signal, report } = shop;
  const { descriptor } = job.layer;
  const step = { name: refKeyOf(descriptor), desc: descriptor, total: Number(descriptor.size) };
  // Not under an open snapshot, which would wait for the registry.
  if (!isThere(snapshotter, namespace, job.name)) await job.layer.ready();
  const key = `extract-${process.hrtime.bigint()}-${randomBytes(3).toString('base64url')} ${job.name}`;
  const labels = { 'containerd.io/snapshot.ref': job.name };
  report({ ...step, event: 'extracting', progress: 0 });
  try {
    const mounts = await snapshotter.prepare(namespace, key, job.parent, { labels, lease, signal });
    try {
      // It was there, and has been removed since.
      await job.layer.ready();
      await apply(shop, job, mounts);
      await snapshotter.commit(namespace, job.name, key, { labels, lease, signal });
    } catch (error) {
      await snapshotter.remove(namespace, key, lease).catch(() => undefined);
      throw error;
    }
  } catch (error) {
    // Unpacked before, or by a client just now. It is held by the lease as well then.
    if (!isCode(error, Code.AlreadyExists) || !isThere(snapshotter, namespace, job.name)) throw error;
  }
  report({ ...step, event: 'extracted', progress: step.total });
}

async function apply(
  { content, differ, namespace, signal }: Workshop,
  { layer: { descriptor }, diffId }: Job,
  mounts: Parameters<LayerDiffer['apply']>[1],
): Promise<void> {
  const applied = await differ.apply(descriptor, mounts, { namespace, signal });
  if (applied.digest !== diffId) {
    throw failedPrecondition(
      `layer ${descriptor.digest} has the diff id ${applied.digest}, not ${diffId}: failed precondition`,
    );
  }
  await addLabels(content, namespace, descriptor.digest, { [UNCOMPRESSED]: diffId });
}

function isThere(snapshotter: Snapshotter, namespace: Namespace, name: string): boolean {
  try {
    snapshotter.stat(namespace, name);
    return true;
  } catch (error) {
    if (isCode(error, Code.NotFound)) return false;
    throw error;
  }
}
