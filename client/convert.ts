/** Making images of others: the same files, stored in another way. */
import { createHash, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { constants, createGunzip, createGzip, createZstdCompress, createZstdDecompress } from 'node:zlib';
import type { Platform } from '../proto/gen/containerd/types/platform.ts';
import { failedPrecondition, invalidArgument, notFound } from '../ttrpc/errors.ts';
import type { CallOptions } from '../ttrpc/service.ts';
import type { Content } from './content.ts';
import {
  type DescriptorJson,
  digestOf,
  DOCKER_CONFIG,
  DOCKER_LAYER,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  type ImageConfig,
  type Index,
  isIndex,
  isManifest,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  readDocument,
  readManifest,
} from './manifest.ts';
import { platformText, rank } from '../oci/platform.ts';

export type LayerFormat = 'uncompressed' | 'gzip' | 'zstd';

export interface ConvertOptions extends CallOptions {
  /** How layers are stored. Default: as they are. */
  readonly layers?: LayerFormat;
  /** How hard to compress. Default: as the format has it. */
  readonly level?: number;
  /** Media types of OCI in place of Docker's. */
  readonly oci?: boolean;
  /** Which images of an index; the others are left out. Default: all. */
  readonly platforms?: readonly Platform[];
  /** Called with each layer that is done. */
  readonly onLayer?: (from: DescriptorJson, to: DescriptorJson) => void;
}

const OCI_TYPES: { readonly [docker: string]: string } = {
  [DOCKER_LIST]: OCI_INDEX,
  [DOCKER_MANIFEST]: OCI_MANIFEST,
  [DOCKER_CONFIG]: OCI_CONFIG,
  [DOCKER_LAYER]: OCI_LAYER,
  [`${DOCKER_LAYER}.gzip`]: `${OCI_LAYER}+gzip`,
  [`${DOCKER_LAYER}.zstd`]: `${OCI_LAYER}+zstd`,
};

const SUFFIXES: { readonly [format in LayerFormat]: string } = {
  uncompressed: '',
  gzip: 'gzip',
  zstd: 'zstd',
};

/**
 * Converts what a descriptor names, in the content that is given; a lease has to hold what is made.
 *
 * @returns the descriptor of the result, which is the same when there is nothing to do
 * @throws RpcError NotFound for parts that are not here, FailedPrecondition for a layer that is not what its image says
 */
export async function convertContent(
  content: Content,
  target: DescriptorJson,
  options: ConvertOptions,
): Promise<DescriptorJson> {
  return await new Conversion(content, options).convert(target);
}

class Conversion {
  readonly #content: Content;
  readonly #options: ConvertOptions;
  readonly #call: CallOptions;
  /** By digest: images share layers. */
  readonly #layers = new Map<string, DescriptorJson>();

  constructor(content: Content, options: ConvertOptions) {
    this.#content = content;
    this.#options = options;
    const { signal } = options;
    this.#call = signal === undefined ? {} : { signal };
  }

  async convert(target: DescriptorJson): Promise<DescriptorJson> {
    if (isIndex(target.mediaType)) return this.#index(target);
    if (isManifest(target.mediaType)) return this.#manifest(target);
    throw invalidArgument(`content ${target.digest} of type ${target.mediaType} is no image`);
  }

  async #index(target: DescriptorJson): Promise<DescriptorJson> {
    const index = await readDocument<Index>(this.#content, target.digest, this.#call);
    const { platforms } = this.#options;
    const wanted = index.manifests.filter(
      ({ platform }) =>
        platforms === undefined ||
        platform === undefined ||
        platforms.some((each) => rank(each, platform) !== undefined),
    );
    if (wanted.length === 0) {
      const names = (platforms ?? []).map(platformText).join(', ');
      throw notFound(`no match for platform ${names} in ${target.digest}: not found`);
    }
    const manifests: DescriptorJson[] = [];
    for (const entry of wanted) {
      const { mediaType, digest, size } = await this.convert(entry);
      manifests.push({ ...entry, mediaType, digest, size });
    }
    const mediaType = this.#typeOf(target.mediaType);
    const labels = Object.fromEntries(manifests.map(({ digest }, number) => [`m.${number}`, digest]));
    return await this.#store(target, { manifests }, mediaType, labels);
  }

  async #manifest(target: DescriptorJson): Promise<DescriptorJson> {
    const manifest = await readManifest(this.#content, target.digest, this.#call);
    const { rootfs } = await readDocument<ImageConfig>(this.#content, manifest.config.digest, this.#call);
    const diffIds = rootfs?.diff_ids ?? [];
    const layers: DescriptorJson[] = [];
    for (const [number, layer] of manifest.layers.entries())
      layers.push(await this.#layer(layer, diffIds[number]));
    const config = { ...manifest.config, mediaType: this.#typeOf(manifest.config.mediaType) };
    const mediaType = this.#typeOf(target.mediaType);
    const labels = Object.fromEntries(layers.map(({ digest }, number) => [`l.${number}`, digest]));
    return await this.#store(target, { config, layers }, mediaType, {
      ...labels,
      config: config.digest,
    });
  }

  #typeOf(mediaType: string): string {
    return this.#options.oci === true ? (OCI_TYPES[mediaType] ?? mediaType) : mediaType;
  }

  async #layer(layer: DescriptorJson, diffId: string | undefined): Promise<DescriptorJson> {
    const mediaType = this.#typeOf(layer.mediaType);
    const { layers: wanted } = this.#options;
    const form = formOf(mediaType);
    // Of another kind, such as an attestation.
    if (form === undefined || wanted === undefined || form.format === wanted) return { ...layer, mediaType };
    if (form.isDocker && wanted === 'zstd')
      throw failedPrecondition('Docker’s media types know no layers in zstd: convert to OCI as well');
    const known = this.#layers.get(layer.digest);
    if (known !== undefined) return known;
    const separator = form.isDocker ? '.' : '+';
    const converted = {
      ...layer,
      mediaType: form.base + (wanted === 'uncompressed' ? '' : separator + SUFFIXES[wanted]),
      ...(await this.#recompress(layer, form.format, wanted, diffId)),
    };
    this.#layers.set(layer.digest, converted);
    this.#options.onLayer?.(layer, converted);
    return converted;
  }

  async #recompress(
    { digest: source, size: sourceSize }: DescriptorJson,
    from: LayerFormat,
    to: LayerFormat,
    diffId: string | undefined,
  ): Promise<{ digest: string; size: number }> {
    const plain = createHash('sha256');
    let size = 0;
    const unpacked = decoder(from);
    const packed = encoder(to, this.#options.level);
    async function* hashed(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
      for await (const piece of pieces) {
        plain.update(piece);
        yield piece;
      }
    }
    async function* counted(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
      for await (const piece of pieces) {
        size += piece.length;
        yield piece;
      }
    }
    const read = Readable.from(this.#content.read(source, this.#call));
    const stages = [read, ...(unpacked ? [unpacked] : []), hashed, ...(packed ? [packed] : []), counted];
    let digest = '';
    await pipeline([
      ...stages,
      async (pieces: AsyncIterable<Buffer>) => {
        digest = await this.#content.write(`convert-${randomUUID()}`, pieces, this.#call);
      },
    ] as never);
    const found = `sha256:${plain.digest('hex')}`;
    if (diffId !== undefined && found !== diffId)
      throw failedPrecondition(
        `layer ${source} (${sourceSize} bytes) has the diff id ${found}, not ${diffId}`,
      );
    await this.#content.label(digest, { 'containerd.io/uncompressed': found }, this.#call);
    return { digest, size };
  }

  async #store(
    target: DescriptorJson,
    document: object,
    mediaType: string,
    references: { readonly [name: string]: string },
  ): Promise<DescriptorJson> {
    const before = await readDocument<{ mediaType?: string }>(this.#content, target.digest, this.#call);
    // OCI's documents need not say what they are.
    const isToldElsewhere = before.mediaType === undefined && mediaType === target.mediaType;
    const after = JSON.stringify({ ...before, ...document, ...(!isToldElsewhere && { mediaType }) });
    if (after === JSON.stringify(before)) return target;
    const bytes = Buffer.from(after);
    const digest = digestOf(bytes);
    const labels = Object.fromEntries(
      Object.entries(references).map(([name, to]) => [`containerd.io/gc.ref.content.${name}`, to]),
    );
    await this.#content.write(`convert-${digest}`, bytes, {
      ...this.#call,
      expected: digest,
      size: bytes.length,
      labels,
    });
    return { ...target, mediaType, digest, size: bytes.length };
  }
}

interface Form {
  readonly base: string;
  readonly format: LayerFormat;
  readonly isDocker: boolean;
}

/** @returns undefined for what is no layer of files */
function formOf(mediaType: string): Form | undefined {
  const oci =
    /^(application\/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar)(?:\+(gzip|zstd))?$/.exec(
      mediaType,
    );
  const docker =
    /^(application\/vnd\.docker\.image\.rootfs\.(?:diff|foreign\.diff)\.tar)(?:\.(gzip|zstd))?$/.exec(
      mediaType,
    );
  const match = oci ?? docker;
  if (match === null) return undefined;
  const format = (match[2] as LayerFormat | undefined) ?? 'uncompressed';
  return { base: match[1]!, format, isDocker: oci === null };
}

function decoder(format: LayerFormat) {
  if (format === 'gzip') return createGunzip();
  return format === 'zstd' ? createZstdDecompress() : undefined;
}

function encoder(format: LayerFormat, level: number | undefined) {
  if (format === 'gzip') return createGzip(level === undefined ? {} : { level });
  if (format !== 'zstd') return undefined;
  return createZstdCompress(
    level === undefined ? {} : { params: { [constants.ZSTD_c_compressionLevel]: level } },
  );
}
