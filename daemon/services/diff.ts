import { randomUUID } from 'node:crypto';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { DiffDefinition, type DiffRequest } from '../../proto/gen/containerd/services/diff.ts';
import { Code, invalidArgument, isCode } from '../../ttrpc/errors.ts';
import type { CallContext } from '../../ttrpc/service.ts';
import { type Digest, parseDigest } from '../content/digest.ts';
import type { NamespacedContent } from '../content/namespaced-content.ts';
import type { ContentWriter } from '../content/writer.ts';
import type { Differ } from '../diff/differ.ts';
import { leaseOf, namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import type { Namespace } from '../identifiers.ts';

/** The label of a compressed layer that has its diff id. */
const UNCOMPRESSED = 'containerd.io/uncompressed';

/** @param sync whether unpacked layers are always on the disk before a call answers */
export function diffService(differ: Differ, content: NamespacedContent, sync = false): Service {
  return service(DiffDefinition, {
    async apply({ diff, mounts, syncFs }, context) {
      const layer = given(diff);
      const namespace = namespaceOf(context);
      const blob = parseDigest(layer.digest);
      const { mediaType, digest, size } = await differ.apply(layer, mounts, {
        openBlob: () => content.openBlob(namespace, blob),
        signal: context.signal,
        sync: syncFs || sync,
      });
      return { applied: { mediaType, digest, size: BigInt(size) } };
    },

    diff: async (request, context) => ({ diff: await compare(differ, content, request, context) }),
  });
}

async function compare(
  differ: Differ,
  content: NamespacedContent,
  request: DiffRequest,
  context: CallContext,
): Promise<Descriptor> {
  const namespace = namespaceOf(context);
  const lease = leaseOf(context);
  const { signal } = context;
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
  try {
    await writer.commit({ labels: { ...labels, [UNCOMPRESSED]: diffId } });
  } catch (error) {
    if (!isCode(error, Code.AlreadyExists)) throw error;
    await label(content, ingest.namespace, digest, diffId);
  }
  return { mediaType, digest, size: BigInt(size), annotations: { [UNCOMPRESSED]: diffId } };
}

/** The same layer was there before, perhaps from somewhere that did not know its diff id. */
async function label(
  content: NamespacedContent,
  namespace: Namespace,
  digest: Digest,
  diffId: string,
): Promise<void> {
  const info = content.info(namespace, digest);
  if (info.labels[UNCOMPRESSED] !== undefined) return;
  const labels = { ...info.labels, [UNCOMPRESSED]: diffId };
  await content.update(namespace, { ...info, labels }, [`labels.${UNCOMPRESSED}`]);
}

function given(layer: Descriptor | undefined): Descriptor {
  if (layer === undefined) throw invalidArgument('diff must be set: invalid argument');
  return layer;
}

function ignoreMissing(error: unknown): void {
  if (!isCode(error, Code.NotFound)) throw error;
}
