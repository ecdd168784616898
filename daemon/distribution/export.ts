/** From images to an archive: an OCI layout that `docker load` reads as well. */
import { pipeline } from 'node:stream';
import { pack, type Pack } from 'tar-stream';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Code, isCode, notFound } from '../../ttrpc/errors.ts';
import { parseDigest, splitDigest, type Digest } from '../content/digest.ts';
import { compressionOfType, encoderFor } from './archive-type.ts';
import type { Distribution, Session } from './distribution.ts';
import { readChildren, walk } from './graph.ts';
import { IMAGE_NAME, REF_NAME } from './import.ts';
import { OCI_INDEX, isIndex, isNonDistributable } from './media-types.ts';
import { type Platform, hostPlatform, select } from '../../oci/platform.ts';

export interface ExportOptions {
  /** Platforms; all of them when there are none. */
  readonly targets: readonly Platform[];
  /** Also write what `docker load` of old needs. */
  readonly dockerManifest: boolean;
  readonly nonDistributable: boolean;
  /** Of the archive as a whole; not compressed when it is empty. */
  readonly mediaType?: string;
}

interface Named {
  readonly name: string;
  readonly target: Descriptor;
}

const LAYOUT = { imageLayoutVersion: '1.0.0' };

/** @param write takes the archive, piece by piece. @throws RpcError NotFound for an image or a part of it; what `write` throws */
export async function exportImages(
  distribution: Distribution,
  session: Session,
  names: readonly string[],
  write: (bytes: Buffer) => Promise<void>,
  options: ExportOptions,
): Promise<void> {
  const { images } = distribution;
  const named = names.map((name) => ({ name, target: images.get(session.namespace, name).target! }));
  const compression = compressionOfType(options.mediaType ?? '') ?? 'none';
  const archive = pack();
  const filling = fill(archive, distribution, session, named, options).then(
    () => archive.finalize(),
    (error: unknown) => archive.destroy(error as Error),
  );
  const out = compression === 'none' ? archive : pipeline(archive, encoderFor(compression), () => undefined);
  for await (const bytes of out as AsyncIterable<Buffer>) await write(bytes);
  await filling;
}

async function fill(
  archive: Pack,
  distribution: Distribution,
  session: Session,
  named: readonly Named[],
  options: ExportOptions,
): Promise<void> {
  const { content } = distribution;
  const { namespace, signal } = session;
  const written = new Set<string>();
  for (const { name, target } of named) {
    const parts = await walk(content, namespace, target, ({ mediaType }, children) =>
      isIndex(mediaType) ? select(children, ({ platform }) => platform, options.targets, 0) : children,
    );
    if (parts.length === 0) throw notFound(`image ${name}: content ${target.digest}: not found`);
    for (const { digest, mediaType } of parts) {
      if (written.has(digest) || (isNonDistributable(mediaType) && !options.nonDistributable)) continue;
      written.add(digest);
      signal.throwIfAborted();
      await blob(archive, distribution, session, parseDigest(digest));
    }
  }
  const manifests = named.map(({ name, target }) => ({
    mediaType: target.mediaType,
    digest: target.digest,
    size: Number(target.size),
    annotations: { [IMAGE_NAME]: name, [REF_NAME]: tagOf(name) },
  }));
  document(archive, 'index.json', { schemaVersion: 2, mediaType: OCI_INDEX, manifests });
  if (options.dockerManifest) {
    const list = await dockerList(distribution, session, named, options.targets);
    if (list.length > 0) document(archive, 'manifest.json', list);
  }
  document(archive, 'oci-layout', LAYOUT);
}

function document(archive: Pack, name: string, value: object): void {
  archive.entry({ name, mode: 0o444 }, JSON.stringify(value));
}

function pathOf(digest: string): string {
  const { algorithm, encoded } = splitDigest(digest as Digest);
  return `blobs/${algorithm}/${encoded}`;
}

async function blob(
  archive: Pack,
  { content }: Distribution,
  { namespace }: Session,
  digest: Digest,
): Promise<void> {
  await using blob = await content.openBlob(namespace, digest);
  const written = Promise.withResolvers<void>();
  const settle = (error?: Error | null): void => (error == null ? written.resolve() : written.reject(error));
  const entry = archive.entry({ name: pathOf(digest), size: blob.size, mode: 0o444 }, settle);
  // Whoever stops reading destroys the archive, which drains no more.
  archive.once('close', () => written.reject(new Error('the archive is not read to its end')));
  for await (const bytes of blob.chunks()) {
    // The buffer is used again, and the archive may not have been read yet.
    if (entry.write(Buffer.from(bytes))) continue;
    const drained = Promise.withResolvers<void>();
    entry.once('drain', drained.resolve);
    await Promise.race([drained.promise, written.promise]);
  }
  entry.end(undefined);
  await written.promise;
}

/** What is behind the last colon of a name, or the digest. */
function tagOf(name: string): string {
  const match = /[:@]([^:@/]+(?::[0-9a-f]+)?)$/.exec(name);
  return match?.[1] ?? name;
}

async function dockerList(
  { content }: Distribution,
  { namespace }: Session,
  named: readonly Named[],
  targets: readonly Platform[],
): Promise<object[]> {
  const list = new Map<string, { Config: string; RepoTags: string[]; Layers: string[] }>();
  for (const { name, target } of named) {
    try {
      const manifest = await imageOf(target);
      if (manifest === undefined) continue;
      const children = await readChildren(content, namespace, manifest);
      const paths = (role: string): string[] =>
        children.filter((child) => child.role === role).map(({ descriptor }) => pathOf(descriptor.digest));
      const [config] = paths('config');
      if (config === undefined) continue;
      const entry = list.get(manifest.digest) ?? { Config: config, RepoTags: [], Layers: paths('layer') };
      entry.RepoTags.push(name);
      list.set(manifest.digest, entry);
    } catch (error) {
      if (!isCode(error, Code.NotFound)) throw error;
    }
  }
  return [...list.values()];

  async function imageOf(target: Descriptor): Promise<Descriptor | undefined> {
    if (!isIndex(target.mediaType)) return target;
    const children = await readChildren(content, namespace, target);
    const wanted = targets.length > 0 ? targets : [hostPlatform()];
    return select(children, ({ platform }) => platform, wanted, 1)[0]?.descriptor;
  }
}
