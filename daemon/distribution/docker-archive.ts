/** Archives of `docker save` before it wrote OCI layouts: a list of images, each a configuration and layers. */
import { randomUUID } from 'node:crypto';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Code, invalidArgument, isCode } from '../../ttrpc/errors.ts';
import type { Digest } from '../content/digest.ts';
import type { Distribution, Session } from './distribution.ts';
import { childrenOf, labelChildren } from './graph.ts';
import type { Imported } from './import.ts';
import { DOCKER_CONFIG, DOCKER_MANIFEST } from './media-types.ts';

/** A file of the archive that is in the content store. */
export interface StoredFile {
  readonly digest: Digest;
  readonly size: number;
  /** Undefined when its bytes were not looked at. */
  readonly isCompressed: boolean | undefined;
}

interface Files {
  readonly documents: ReadonlyMap<string, Buffer>;
  readonly files: ReadonlyMap<string, StoredFile>;
  readonly links: ReadonlyMap<string, string>;
}

interface Listed {
  readonly Config?: string;
  readonly RepoTags?: readonly string[] | null;
  readonly Layers?: readonly string[];
}

interface Stored {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

const LAYER = 'application/vnd.docker.image.rootfs.diff.tar';

export class DockerArchive {
  readonly #distribution: Distribution;
  readonly #session: Session;
  readonly #files: Files;

  constructor(distribution: Distribution, session: Session, files: Files) {
    this.#distribution = distribution;
    this.#session = session;
    this.#files = files;
  }

  /** @param bytes of `manifest.json`. @param compress layers that are not. @throws RpcError InvalidArgument */
  async read(bytes: Buffer, compress = false): Promise<Imported[]> {
    const imported: Imported[] = [];
    for (const listed of parseList(bytes)) {
      const descriptor = await this.#image(listed, compress);
      const names = listed.RepoTags ?? [];
      for (const name of names) imported.push({ descriptor, name: fullName(name) });
      if (names.length === 0) imported.push({ descriptor, name: undefined });
    }
    return imported;
  }

  async #image(
    { Config: configName = '', Layers: layerNames = [] }: Listed,
    compress: boolean,
  ): Promise<Descriptor> {
    const config = await this.#config(configName);
    const layers = [];
    for (const name of layerNames) layers.push(await this.#layer(name, compress));
    const manifest = { schemaVersion: 2, mediaType: DOCKER_MANIFEST, config, layers };
    const bytes = Buffer.from(JSON.stringify(manifest));
    const digest = await this.#put(bytes);
    const descriptor = { mediaType: DOCKER_MANIFEST, digest, size: BigInt(bytes.length), annotations: {} };
    const { namespace } = this.#session;
    const children = childrenOf(descriptor, bytes);
    await labelChildren(this.#distribution.content, namespace, descriptor, children);
    return descriptor;
  }

  async #config(name: string): Promise<Stored> {
    const mediaType = DOCKER_CONFIG;
    const stored = this.#files.files.get(name);
    if (stored !== undefined) return { mediaType, digest: stored.digest, size: stored.size };
    const bytes = this.#files.documents.get(name);
    if (bytes === undefined) throw missing(name);
    return { mediaType, digest: await this.#put(bytes), size: bytes.length };
  }

  async #layer(name: string, compress: boolean): Promise<Stored> {
    let path = name;
    // A link may lead to another, but not for ever.
    for (let hops = 0; hops < 8 && !this.#files.files.has(path); hops += 1)
      path = this.#files.links.get(path) ?? path;
    const stored = this.#files.files.get(path);
    if (stored === undefined) throw missing(name);
    const { digest, size, isCompressed = false } = stored;
    if (compress && !isCompressed) return { mediaType: `${LAYER}.gzip`, ...(await this.#compressed(digest)) };
    return { mediaType: isCompressed ? `${LAYER}.gzip` : LAYER, digest, size };
  }

  async #compressed(layer: Digest): Promise<{ digest: string; size: number }> {
    const { content } = this.#distribution;
    const { namespace, lease, signal } = this.#session;
    await using blob = await content.openBlob(namespace, layer);
    const gzip = createGzip();
    const filling = pipeline(copies(blob.chunks()), gzip, { signal });
    // Its failure ends the loop below as well.
    filling.catch(() => undefined);
    await using writer = await content.writer(namespace, `import-${randomUUID()}`, { lease, signal });
    for await (const bytes of gzip as AsyncIterable<Buffer>) await writer.write(bytes);
    await filling;
    await writer.flush();
    const { digest, offset: size } = writer;
    try {
      await writer.commit({ size, labels: { 'containerd.io/uncompressed': layer } });
    } catch (error) {
      if (!isCode(error, Code.AlreadyExists)) throw error;
    }
    return { digest, size };
  }

  #put(bytes: Buffer): Promise<Digest> {
    const { namespace, lease, signal } = this.#session;
    return this.#distribution.content.put(namespace, `import-${randomUUID()}`, bytes, { lease, signal });
  }
}

/** The blob's buffer is used again for the next piece. */
async function* copies(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  for await (const bytes of chunks) yield Buffer.from(bytes);
}

function parseList(bytes: Buffer): Listed[] {
  let list: unknown;
  try {
    list = JSON.parse(bytes.toString());
  } catch (error) {
    throw invalidArgument('archive: manifest.json is no JSON: invalid argument', error);
  }
  if (!Array.isArray(list)) throw invalidArgument('archive: manifest.json is no list: invalid argument');
  return list.map((entry: unknown) => {
    if (!isListed(entry)) throw invalidArgument('archive: manifest.json is malformed: invalid argument');
    return entry;
  });
}

function isListed(entry: unknown): entry is Listed {
  if (typeof entry !== 'object' || entry === null) return false;
  const { Config, RepoTags, Layers }: { Config?: unknown; RepoTags?: unknown; Layers?: unknown } = entry;
  const isText = (value: unknown): boolean => typeof value === 'string';
  const isList = (value: unknown): boolean =>
    value === undefined || (Array.isArray(value) && value.every(isText));
  return (
    (Config === undefined || isText(Config)) && (RepoTags === null || isList(RepoTags)) && isList(Layers)
  );
}

function missing(name: string): Error {
  return invalidArgument(`archive: ${JSON.stringify(name.slice(0, 160))} is not in it: invalid argument`);
}

/** Docker leaves out its own registry. */
export function fullName(name: string): string {
  const [first = '', ...rest] = name.split('/');
  if (rest.length === 0) return `docker.io/library/${name}`;
  return /[.:]/.test(first) || first === 'localhost' ? name : `docker.io/${name}`;
}
