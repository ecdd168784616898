/** From an archive to content: OCI layouts (image-spec, image-layout.md) and what `docker save` writes. */
import { randomUUID } from 'node:crypto';
import { Readable, pipeline } from 'node:stream';
import { type Extract, extract } from 'tar-stream';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Code, invalidArgument, isCode, messageOf } from '../../ttrpc/errors.ts';
import { type Digest, isDigest, parseDigest } from '../content/digest.ts';
import {
  type ArchiveCompression,
  compressionOfBytes,
  compressionOfType,
  decoderFor,
} from './archive-type.ts';
import { DockerArchive, type StoredFile } from './docker-archive.ts';
import type { Distribution, Session } from './distribution.ts';
import { childrenOf, labelChildren, parseDocument, readChildren } from './graph.ts';
import { OCI_INDEX, isIndex } from './media-types.ts';

export interface Imported {
  readonly descriptor: Descriptor;
  /** As the archive has it: `docker.io/library/busybox:latest`, or a tag alone; undefined without one. */
  readonly name: string | undefined;
}

export interface ImportOptions {
  /** Compress layers that are not; only of archives that have no manifests of their own, as `docker save` of old wrote them. */
  readonly compress?: boolean;
  /** Of the archive as a whole; found out when it is empty. */
  readonly mediaType?: string;
  /** Keep the list of all images as an image of this name. */
  readonly indexName?: string;
}

/** Bytes of an archive's own documents. */
const MAX_DOCUMENT = 8 << 20;
const MAX_ENTRIES = 100_000;
const MAX_DEPTH = 6;
/** Of names in archives: annotations of their index (containerd, images/annotations.go; image-spec, annotations.md). */
export const IMAGE_NAME = 'io.containerd.image.name';
export const REF_NAME = 'org.opencontainers.image.ref.name';

/**
 * Stores what an archive holds, compressed or not.
 *
 * @returns the images in it
 * @throws RpcError InvalidArgument for what is no such archive, FailedPrecondition for a blob that is not what its name says
 */
export async function importImages(
  distribution: Distribution,
  session: Session,
  bytes: AsyncIterable<Buffer>,
  { compress = false, indexName = '', mediaType = '' }: ImportOptions = {},
): Promise<Imported[]> {
  const archive = new ArchiveImport(distribution, session);
  await archive.read(bytes, compressionOfType(mediaType));
  const { images, index } = await archive.finish(compress);
  if (indexName !== '') await distribution.name(session, indexName, await archive.keep(index));
  return images;
}

type Entry = Extract extends AsyncIterable<infer E> ? E : never;

class ArchiveImport {
  readonly #distribution: Distribution;
  readonly #session: Session;
  readonly #documents = new Map<string, Buffer>();
  readonly #files = new Map<string, StoredFile>();
  readonly #links = new Map<string, string>();
  #entries = 0;

  constructor(distribution: Distribution, session: Session) {
    this.#distribution = distribution;
    this.#session = session;
  }

  async read(bytes: AsyncIterable<Buffer>, compression?: ArchiveCompression): Promise<void> {
    const { signal } = this.#session;
    const source = await decompressed(bytes, compression);
    const tar = extract();
    source.on('error', (error) => tar.destroy(error));
    const onAbort = (): void => {
      tar.destroy(signal.reason as Error);
    };
    signal.addEventListener('abort', onAbort);
    source.pipe(tar);
    try {
      for await (const entry of tar) await this.#entry(entry);
    } catch (error) {
      signal.throwIfAborted();
      throw typeof (error as { code?: unknown }).code === 'number'
        ? error
        : invalidArgument(`archive: ${messageOf(error)}: invalid argument`, error);
    } finally {
      signal.removeEventListener('abort', onAbort);
      source.destroy();
    }
  }

  async #entry(entry: Entry): Promise<void> {
    if ((this.#entries += 1) > MAX_ENTRIES)
      throw invalidArgument(`archive: more than ${MAX_ENTRIES} entries: invalid argument`);
    const { type, size, linkname } = entry.header;
    const name = entry.header.name.replace(/^(?:\.?\/)+/, '');
    const isFile = type === 'file' || type === 'contiguous-file' || type == null;
    if ((type === 'symlink' || type === 'link') && linkname != null) this.#link(name, linkname, type);
    if (!isFile) entry.resume();
    else if (/\.json$|^oci-layout$|^repositories$|\/json$|\/VERSION$/.test(name))
      await this.#document(name, entry);
    else await this.#store(name, entry, size);
  }

  /** `docker save` of old writes a layer that is used twice as a link. */
  #link(name: string, target: string, type: 'link' | 'symlink'): void {
    const base = type === 'link' ? '/' : `/${name}`;
    this.#links.set(name, new URL(target, `tar:${base}`).pathname.slice(1));
  }

  async #document(name: string, entry: Entry): Promise<void> {
    const pieces: Buffer[] = [];
    let size = 0;
    for await (const piece of entry as AsyncIterable<Buffer>) {
      size += piece.length;
      if (size > MAX_DOCUMENT)
        throw invalidArgument(`archive: ${name.slice(0, 160)} is too large: invalid argument`);
      pieces.push(piece);
    }
    this.#documents.set(name, Buffer.concat(pieces));
  }

  async #store(name: string, entry: Entry, size: number): Promise<void> {
    const expected = blobDigest(name);
    const { content } = this.#distribution;
    const { namespace, lease, signal, report } = this.#session;
    const ref = expected === undefined ? `import-${randomUUID()}` : `import-${expected}`;
    let head = Buffer.alloc(0);
    try {
      await using writer = await content.writer(namespace, ref, { lease, expected, signal });
      if (writer.status.expected === undefined) {
        await writer.truncate();
        for await (const piece of entry as AsyncIterable<Buffer>) {
          if (head.length < 4) head = Buffer.concat([head, piece.subarray(0, 4)]);
          await writer.write(piece);
        }
        await writer.flush();
      }
      const { digest } = writer;
      this.#files.set(name, {
        digest: expected ?? digest,
        size,
        isCompressed: compressionOfBytes(head) !== 'none',
      });
      await writer.commit({ size, ...(expected !== undefined && { expected }) });
    } catch (error) {
      if (!isCode(error, Code.AlreadyExists)) throw error;
      if (expected !== undefined) this.#files.set(name, { digest: expected, size, isCompressed: undefined });
    }
    entry.resume();
    if (expected !== undefined) report({ event: 'saved', name: expected, progress: size, total: size });
  }

  /** Ties together what has been read. @returns with the list of the images, as an OCI index */
  async finish(compress: boolean): Promise<{ images: Imported[]; index: Buffer }> {
    const index = this.#documents.get('index.json');
    if (this.#documents.has('oci-layout') && index !== undefined)
      return { images: await this.#layout(index), index };
    const manifest = this.#documents.get('manifest.json');
    if (manifest === undefined)
      throw invalidArgument('archive: neither an OCI layout nor made by docker save: invalid argument');
    const docker = new DockerArchive(this.#distribution, this.#session, {
      documents: this.#documents,
      files: this.#files,
      links: this.#links,
    });
    const images = await docker.read(manifest, compress);
    return { images, index: indexOf(images) };
  }

  /** Stores an index, which holds the images it names. */
  async keep(index: Buffer): Promise<Descriptor> {
    const { content } = this.#distribution;
    const { namespace, lease, signal } = this.#session;
    const digest = await content.put(namespace, `import-${randomUUID()}`, index, { lease, signal });
    const descriptor = { mediaType: OCI_INDEX, digest, size: BigInt(index.length), annotations: {} };
    await labelChildren(content, namespace, descriptor, childrenOf(descriptor, index));
    return descriptor;
  }

  async #layout(bytes: Buffer): Promise<Imported[]> {
    parseDocument('index.json', bytes);
    const top = { mediaType: OCI_INDEX, digest: 'index.json', size: BigInt(bytes.length), annotations: {} };
    const children = childrenOf(top, bytes);
    const held = new Set<string>();
    for (const { descriptor } of children) {
      if (!(await this.#distribution.content.has(this.#session.namespace, parseDigest(descriptor.digest))))
        throw invalidArgument(`archive: ${descriptor.digest} is not in it: invalid argument`);
      await this.#hold(descriptor, 0, held);
    }
    return children.map(({ descriptor }) => ({
      descriptor: { ...descriptor, annotations: {} },
      name: descriptor.annotations[IMAGE_NAME] ?? descriptor.annotations[REF_NAME],
    }));
  }

  /** Ties together what is there. */
  async #hold(descriptor: Descriptor, depth: number, held: Set<string>): Promise<void> {
    // An index may name another very many times, and that one another …
    if (held.has(descriptor.digest)) return;
    held.add(descriptor.digest);
    const { content } = this.#distribution;
    const { namespace } = this.#session;
    if (depth > MAX_DEPTH) throw invalidArgument('archive: indexes too deep: invalid argument');
    const children = await readChildren(content, namespace, descriptor);
    if (children.length === 0) return;
    await labelChildren(content, namespace, descriptor, children);
    if (isIndex(descriptor.mediaType)) {
      for (const child of children) await this.#hold(child.descriptor, depth + 1, held);
    }
  }
}

function indexOf(images: readonly Imported[]): Buffer {
  const manifests = images.map(({ descriptor: { mediaType, digest, size }, name }) => ({
    mediaType,
    digest,
    size: Number(size),
    ...(name !== undefined && { annotations: { [IMAGE_NAME]: name } }),
  }));
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
}

function blobDigest(name: string): Digest | undefined {
  const [, algorithm, encoded] = /^blobs\/([a-z0-9]+)\/([0-9a-f]+)$/.exec(name) ?? [];
  const digest = `${algorithm}:${encoded}`;
  return isDigest(digest) ? digest : undefined;
}

/** An archive may be compressed as a whole, which its first bytes tell when the client does not. */
async function decompressed(
  bytes: AsyncIterable<Buffer>,
  compression: ArchiveCompression | undefined,
): Promise<Readable> {
  const pieces = bytes[Symbol.asyncIterator]();
  let head = Buffer.alloc(0);
  while (head.length < 4) {
    const { done, value } = await pieces.next();
    if (done === true) break;
    head = Buffer.concat([head, value]);
  }
  async function* all(): AsyncGenerator<Buffer> {
    yield head;
    yield* { [Symbol.asyncIterator]: () => pieces };
  }
  const source = Readable.from(all(), { objectMode: false });
  return pipeline(source, decoderFor(compression ?? compressionOfBytes(head)), () => undefined);
}
