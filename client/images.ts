import { ImagesDefinition, type Image as WireImage } from '../proto/gen/containerd/services/images.ts';
import type { Platform } from '../proto/gen/containerd/types/platform.ts';
import { Code, internal, isCode } from '../ttrpc/errors.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import { Content } from './content.ts';
import { convertContent, type ConvertOptions } from './convert.ts';
import {
  chainIds,
  childrenOf,
  type Descriptor,
  type DescriptorJson,
  descriptorJson,
  imageFor,
  type ImageConfig,
  isConfig,
  type PlatformImage,
  readDocument,
} from './manifest.ts';
import type { Labels } from './namespace.ts';
import { hostPlatform, type PlatformParts } from '../oci/platform.ts';
import { Snapshots } from './snapshots.ts';

/** A name for content. */
export interface Image extends WireImage {
  readonly target: Descriptor;
}

export interface PlatformOptions extends CallOptions {
  /** Default: this host's. */
  readonly platform?: Platform;
}

/** What of an image is there. */
export interface Completeness {
  /** Whether the manifest is there, without which nobody knows what else is needed. */
  readonly isAvailable: boolean;
  readonly required: readonly DescriptorJson[];
  readonly present: readonly DescriptorJson[];
  readonly missing: readonly DescriptorJson[];
}

/** The images of a namespace. Moving them is the transfers' part. */
export class Images {
  readonly #service: ServiceClient<typeof ImagesDefinition>;
  readonly #content: Content;
  readonly #snapshots: (name: string) => Snapshots;

  constructor(connection: Connection, headers: Headers, namespace: string) {
    this.#service = connection.service(ImagesDefinition, headers);
    this.#content = new Content(connection, headers);
    this.#snapshots = (name) => new Snapshots(connection, headers, namespace, name);
  }

  /** @throws RpcError NotFound */
  async get(name: string, options?: CallOptions): Promise<Image> {
    return whole((await this.#service.get({ name }, options)).image, name);
  }

  /** @param filters alternatives: `name==docker.io/library/busybox:latest,labels."a"==b` */
  async list(filters: readonly string[] = [], options?: CallOptions): Promise<Image[]> {
    const { images } = await this.#service.list({ filters: [...filters] }, options);
    return images.map((image) => whole(image, image.name));
  }

  /** @throws RpcError AlreadyExists, InvalidArgument */
  async create(
    image: { readonly name: string; readonly target: Descriptor; readonly labels?: Labels },
    options?: CallOptions,
  ): Promise<Image> {
    return whole((await this.#service.create({ image }, options)).image, image.name);
  }

  /** Replaces fields. @param updateMask `target`, `labels`, or `labels.app` for example. @throws RpcError NotFound */
  async update(
    image: { readonly name: string; readonly target?: Descriptor; readonly labels?: Labels },
    updateMask: readonly string[],
    options?: CallOptions,
  ): Promise<Image> {
    const answer = await this.#service.update({ image, updateMask: [...updateMask] }, options);
    return whole(answer.image, image.name);
  }

  /**
   * Forgets a name. Content that nothing else holds is collected as garbage.
   *
   * @param options `sync`: return when it has been collected
   * @throws RpcError NotFound
   */
  async delete(name: string, options: CallOptions & { sync?: boolean } = {}): Promise<void> {
    const { sync = false, ...call } = options;
    await this.#service.delete({ name, sync }, call);
  }

  /**
   * Gives an image another name.
   *
   * @param options `force`: also a name that another image has
   * @throws RpcError NotFound, AlreadyExists
   */
  async tag(source: string, name: string, options: CallOptions & { force?: boolean } = {}): Promise<Image> {
    const { force = false, ...call } = options;
    const { target, labels } = await this.get(source, call);
    const image = { name, target, labels };
    return force ? await this.#name(image, call) : await this.create(image, call);
  }

  /** Also a name that is taken. */
  async #name(image: Pick<Image, 'name' | 'target' | 'labels'>, call: CallOptions): Promise<Image> {
    for (;;) {
      try {
        return await this.create(image, call);
      } catch (error) {
        if (!isCode(error, Code.AlreadyExists)) throw error;
      }
      try {
        return await this.update(image, ['target', 'labels'], call);
      } catch (error) {
        // Removed between the two calls.
        if (!isCode(error, Code.NotFound)) throw error;
      }
    }
  }

  /**
   * Sets the given labels and leaves the others; an empty value clears one.
   *
   * @param options `replace`: leave no others
   * @returns all of them
   */
  async label(
    name: string,
    labels: Labels,
    options: CallOptions & { replace?: boolean } = {},
  ): Promise<Labels> {
    const { replace = false, ...call } = options;
    const paths = replace ? ['labels'] : Object.keys(labels).map((key) => `labels.${key}`);
    if (paths.length === 0) return (await this.get(name, call)).labels;
    return (await this.update({ name, labels }, paths, call)).labels;
  }

  /**
   * Makes an image of another: with layers stored in another way, with other media types, or of fewer platforms. A lease has to
   * hold what is made meanwhile: `client.withLease`.
   *
   * @throws RpcError NotFound for parts that are not here
   */
  async convert(source: string, name: string, options: ConvertOptions = {}): Promise<Image> {
    const call = options.signal === undefined ? {} : { signal: options.signal };
    const { target, labels } = await this.get(source, call);
    const made = await convertContent(this.#content, descriptorJson(target), options);
    const { mediaType, digest, size } = made;
    const descriptor = { mediaType, digest, size: BigInt(size), annotations: {} };
    return await this.#name({ name, target: descriptor, labels }, call);
  }

  /** The manifest of a platform. @throws RpcError NotFound */
  async manifest({ target }: Pick<Image, 'target'>, options: PlatformOptions = {}): Promise<PlatformImage> {
    const { platform = hostPlatform(), ...call } = options;
    return await imageFor(this.#content, descriptorJson(target), platform, call);
  }

  /** How containers of the image are to be run. @throws RpcError NotFound */
  async config(image: Pick<Image, 'target'>, options: PlatformOptions = {}): Promise<ImageConfig> {
    const { platform: _, ...call } = options;
    const { manifest } = await this.manifest(image, options);
    return await readDocument<ImageConfig>(this.#content, manifest.config.digest, call);
  }

  /** The snapshot that holds the image's root filesystem once it is unpacked; undefined for an image without layers. */
  async chainId(image: Pick<Image, 'target'>, options: PlatformOptions = {}): Promise<string | undefined> {
    const { rootfs } = await this.config(image, options);
    return chainIds(rootfs?.diff_ids ?? []).at(-1);
  }

  /** @param options `snapshotter`: default, the namespace's. @throws RpcError NotFound for an image that is not complete */
  async isUnpacked(
    image: Pick<Image, 'target'>,
    options: PlatformOptions & { readonly snapshotter?: string } = {},
  ): Promise<boolean> {
    const { snapshotter = '', ...rest } = options;
    const { platform: _, ...call } = options;
    const name = await this.chainId(image, rest);
    if (name === undefined) return true;
    try {
      await this.#snapshots(snapshotter).stat(name, call);
      return true;
    } catch (error) {
      if (isCode(error, Code.NotFound)) return false;
      throw error;
    }
  }

  /** For which platforms there is something, as the image says. @throws RpcError NotFound for content that is not there */
  async platforms({ target }: Pick<Image, 'target'>, options?: CallOptions): Promise<PlatformParts[]> {
    const found: PlatformParts[] = [];
    const waiting: DescriptorJson[] = [descriptorJson(target)];
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      if (next.platform !== undefined) found.push(next.platform);
      else if (isConfig(next.mediaType)) {
        const { os, architecture, variant } = await readDocument<ImageConfig>(
          this.#content,
          next.digest,
          options,
        );
        found.push({
          ...(os !== undefined && { os }),
          ...(architecture !== undefined && { architecture }),
          ...(variant !== undefined && { variant }),
        });
      } else waiting.push(...(await childrenOf(this.#content, next, options)));
    }
    return found;
  }

  /** Bytes of all that the image of a platform consists of, compressed as it is. */
  async size(image: Pick<Image, 'target'>, options: PlatformOptions = {}): Promise<number> {
    const { descriptor, manifest } = await this.manifest(image, options);
    const parts = [descriptor, manifest.config, ...manifest.layers];
    const index = Number(image.target.size);
    const own = parts.reduce((sum, { size }) => sum + size, 0);
    return descriptor.digest === image.target.digest ? own : own + index;
  }

  /** Whether all that a platform needs is there. */
  async check(image: Pick<Image, 'target'>, options: PlatformOptions = {}): Promise<Completeness> {
    const { platform: _, ...call } = options;
    let found: PlatformImage;
    try {
      found = await this.manifest(image, options);
    } catch (error) {
      if (!isCode(error, Code.NotFound)) throw error;
      const target = [descriptorJson(image.target)];
      return { isAvailable: false, required: target, present: [], missing: target };
    }
    const required = [found.manifest.config, ...found.manifest.layers];
    const present: DescriptorJson[] = [];
    const missing: DescriptorJson[] = [];
    for (const part of required) {
      try {
        await this.#content.info(part.digest, call);
        present.push(part);
      } catch (error) {
        if (!isCode(error, Code.NotFound)) throw error;
        missing.push(part);
      }
    }
    return { isAvailable: true, required, present, missing };
  }
}

function whole(image: WireImage | undefined, name: string): Image {
  if (image?.target === undefined) throw internal(`the daemon sent nothing of image ${name}`);
  return { ...image, target: image.target };
}
