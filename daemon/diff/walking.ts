/** The differ of the daemon's own: reads layers from the content store and writes them to it. */
import { randomUUID } from 'node:crypto';
import type { DiffRequest } from '../../proto/gen/containerd/services/diff.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import { Code, dataLoss, isCode } from '../../ttrpc/errors.ts';
import { type Digest, parseDigest } from '../content/digest.ts';
import type { NamespacedContent } from '../content/namespaced-content.ts';
import { mistakeInBlob } from '../content/verification.ts';
import type { ContentWriter } from '../content/writer.ts';
import type { Namespace } from '../identifiers.ts';
import type { Applied, Differ } from './differ.ts';
import type { ApplyPurpose, DiffPurpose, LayerDiffer } from './layer-differ.ts';

/** The label of a compressed layer that has its diff id. */
const UNCOMPRESSED = 'containerd.io/uncompressed';

export class WalkingDiffer implements LayerDiffer {
  readonly name = 'walking';
  readonly #differ: Differ;
  readonly #content: NamespacedContent;

  constructor(differ: Differ, content: NamespacedContent) {
    this.#differ = differ;
    this.#content = content;
  }

  async apply(
    layer: Descriptor,
    mounts: readonly Mount[],
    { namespace, signal, sync = false }: ApplyPurpose,
  ): Promise<Applied> {
    const blob = parseDigest(layer.digest);
    const openBlob = () => this.#content.openBlob(namespace, blob);
    try {
      return await this.#differ.apply(layer, mounts, { openBlob, signal, sync });
    } catch (error) {
      throw (await this.#damage(blob, error)) ?? error;
    }
  }

  /** A layer that cannot be read may be one that the disk has not kept. */
  async #damage(blob: Digest, error: unknown): Promise<Error | undefined> {
    if (!isCode(error, Code.InvalidArgument)) return undefined;
    const path = this.#content.store.path(blob);
    const mistake = await mistakeInBlob(path, blob);
    if (mistake === undefined) return undefined;
    return dataLoss(`blob ${blob} at ${path} is damaged: ${mistake}; pull its image again`, error);
  }

  compare(request: DiffRequest, purpose: DiffPurpose): Promise<Descriptor> {
    return compare(this.#differ, this.#content, request, purpose);
  }
}

async function compare(
  differ: Differ,
  content: NamespacedContent,
  request: DiffRequest,
  { namespace, lease, signal }: DiffPurpose,
): Promise<Descriptor> {
  const ref = request.ref || `diff-${randomUUID()}`;
  await using writer = await content.writer(namespace, ref, { lease, signal });
  try {
    return await write(differ, content, writer, request, signal);
  } catch (error) {
    await writer.close();
    // Nobody knows the name to go on with.
    if (request.ref === '') await content.abort(namespace, ref, lease).catch(ignoreMissing);
    throw error;
  }
}

async function write(
  differ: Differ,
  content: NamespacedContent,
  writer: ContentWriter,
  { left, right, mediaType: wanted, labels, sourceDateEpoch }: DiffRequest,
  signal: AbortSignal,
): Promise<Descriptor> {
  // What a call before this one has left under the same name is not continued: the tree may have changed.
  await writer.truncate();
  const { mediaType, diffId } = await differ.compare(left, right, {
    mediaType: wanted,
    write: (piece) => writer.write(piece),
    signal,
    latest: sourceDateEpoch && Number(sourceDateEpoch.seconds),
  });
  await writer.flush();
  const { digest, offset: size, ingest } = writer;
  const told = { ...labels, [UNCOMPRESSED]: diffId };
  try {
    await writer.commit({ labels: told });
  } catch (error) {
    if (!isCode(error, Code.AlreadyExists)) throw error;
    await label(content, ingest.namespace, digest, told);
  }
  return { mediaType, digest, size: BigInt(size), annotations: { [UNCOMPRESSED]: diffId } };
}

/**
 * The same layer was there before, perhaps from somewhere that did not know its diff id, and perhaps held by nothing: the caller's
 * labels may be what is to keep it. containerd forgets them.
 */
async function label(
  content: NamespacedContent,
  namespace: Namespace,
  digest: Digest,
  labels: Readonly<Record<string, string>>,
): Promise<void> {
  const info = content.info(namespace, digest);
  const masks = Object.keys(labels).map((name) => `labels.${name}`);
  await content.update(namespace, { ...info, labels: { ...info.labels, ...labels } }, masks);
}

function ignoreMissing(error: unknown): void {
  if (!isCode(error, Code.NotFound)) throw error;
}
