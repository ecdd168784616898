/** Images that are there, by the names and digests that kubelet has for them. */
import type { Image } from '../../proto/gen/containerd/services/images.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { type RunConfig, configOf } from '../../oci/image-config.ts';
import { hostPlatform, select } from '../../oci/platform.ts';
import { Code, isCode, notFound } from '../../ttrpc/errors.ts';
import { isDigest, parseDigest } from '../content/digest.ts';
import type { Distribution } from '../distribution/distribution.ts';
import { parseDocument, readChildren } from '../distribution/graph.ts';
import { isConfig, isIndex } from '../distribution/media-types.ts';
import { chainIds, diffIdsOf } from '../distribution/unpack.ts';
import { unpackImage } from '../distribution/unpack-image.ts';
import { Label } from './pod.ts';
import { KUBERNETES } from './registry.ts';

/** What a name leads to on this host's platform. */
export interface ImageContent {
  /** The digest of its configuration: its id. */
  readonly id: string;
  readonly config: RunConfig;
  /** The whole of the configuration. */
  readonly document: { readonly [key: string]: unknown };
  /** The manifest for this platform. */
  readonly manifest: Descriptor;
  /** Of the compressed layers, configuration and manifest, in bytes. */
  readonly size: number;
  /** The name of the snapshot with all its files; empty for an image without layers. */
  readonly chainId: string;
}

/** An image with all its names. */
export interface LocalImage extends ImageContent {
  /** Names of images among containerd's, digests among them. */
  readonly names: readonly string[];
  readonly isPinned: boolean;
}

/** Its names with a tag. */
export function tagsOf({ id, names }: LocalImage): string[] {
  return names.filter((name) => name !== id && !name.includes('@'));
}

/** Its names with the digest of what a registry has. */
export function digestsOf({ names }: LocalImage): string[] {
  return names.filter((name) => name.includes('@'));
}

const MAX_CONFIG = 8 << 20;

/** `busybox` as `docker.io/library/busybox:latest`, which is how clients of containerd's API call it. */
export function familiarToFull(reference: string): string {
  const [first = '', ...rest] = reference.split('/');
  const hasHost = rest.length > 0 && (/[.:]/.test(first) || first === 'localhost');
  const path = hasHost ? rest.join('/') : reference;
  const named = hasHost ? reference : `docker.io/${path.includes('/') ? path : `library/${path}`}`;
  return /[@:]/.test(path) ? named : `${named}:latest`;
}

export class LocalImages {
  readonly #distribution: Distribution;
  /** By the digest that a name stands for: content does not change. */
  readonly #known = new Map<string, ImageContent>();

  constructor(distribution: Distribution) {
    this.#distribution = distribution;
  }

  /** Every image that can be run here, with its names. Names whose content is not whole are left out. */
  async list(): Promise<LocalImage[]> {
    const found = new Map<string, { content: ImageContent; images: Image[] }>();
    for (const image of this.#distribution.images.list(KUBERNETES)) {
      const content = await this.#contentOf(image);
      if (content === undefined) continue;
      const known = found.get(content.id);
      if (known === undefined) found.set(content.id, { content, images: [image] });
      else known.images.push(image);
    }
    return [...found.values()].map(({ content, images }) => ({
      ...content,
      names: images.map(({ name }) => name),
      isPinned: images.some(({ labels }) => labels[Label.Pinned] === 'pinned'),
    }));
  }

  /** Every image, by its id. */
  async byId(): Promise<ReadonlyMap<string, LocalImage>> {
    return new Map((await this.list()).map((image) => [image.id, image]));
  }

  /**
   * By its id, as much of it as no other image begins with, or one of its names, also as people write them.
   *
   * @returns undefined when it is not there
   */
  async find(reference: string): Promise<LocalImage | undefined> {
    if (reference === '') return undefined;
    const all = await this.list();
    const full = familiarToFull(reference);
    const named = all.find(
      ({ id, names }) => id === reference || names.includes(full) || names.includes(reference),
    );
    if (named !== undefined) return named;
    const prefix = reference.replace(/^sha256:/, '');
    if (!/^[0-9a-f]+$/.test(prefix)) return undefined;
    const matching = all.filter(({ id }) => id.slice('sha256:'.length).startsWith(prefix));
    return matching.length === 1 ? matching[0] : undefined;
  }

  /** @throws RpcError NotFound */
  async get(reference: string): Promise<LocalImage> {
    const image = await this.find(reference);
    if (image === undefined) throw notFound(`image ${JSON.stringify(reference)}: not found`);
    return image;
  }

  /** Makes the snapshots of an image that are not there yet. @throws RpcError */
  async unpack(image: LocalImage, snapshotter: string, signal: AbortSignal): Promise<void> {
    const { snapshotters } = this.#distribution;
    try {
      if (image.chainId !== '') snapshotters.get(snapshotter).stat(KUBERNETES, image.chainId);
    } catch (error) {
      if (!isCode(error, Code.NotFound)) throw error;
      const session = { namespace: KUBERNETES, lease: undefined, signal, report: () => undefined };
      await this.#distribution.leased(session, (leased) =>
        unpackImage(this.#distribution, leased, image.manifest, { snapshotter, target: hostPlatform() }),
      );
    }
  }

  async #contentOf({ target }: Image): Promise<ImageContent | undefined> {
    if (target === undefined || !isDigest(target.digest)) return undefined;
    const known = this.#known.get(target.digest);
    if (known !== undefined) return known;
    const content = await this.#read(target);
    if (content !== undefined) this.#known.set(target.digest, content);
    return content;
  }

  async #read(target: Descriptor): Promise<ImageContent | undefined> {
    const { content } = this.#distribution;
    try {
      const children = await readChildren(content, KUBERNETES, target);
      if (isIndex(target.mediaType)) {
        const [best] = select(children, ({ platform }) => platform, [hostPlatform()], 1);
        return best && (await this.#read(best.descriptor));
      }
      const config = children.find(({ role }) => role === 'config')?.descriptor;
      if (config === undefined || !isConfig(config.mediaType)) return undefined;
      const bytes = await content.read(KUBERNETES, parseDigest(config.digest), MAX_CONFIG);
      const document = parseDocument(config.digest, bytes);
      return {
        id: config.digest,
        config: configOf(document['config']),
        document,
        manifest: target,
        size: [target, ...children.map(({ descriptor }) => descriptor)].reduce(
          (sum, { size }) => sum + Number(size),
          0,
        ),
        chainId: chainIds(diffIdsOf(config.digest, bytes)).at(-1) ?? '',
      };
    } catch (error) {
      // Somebody else's image that is not whole, or none, must not hide the others.
      if (isCode(error, Code.NotFound) || isCode(error, Code.InvalidArgument)) return undefined;
      throw error;
    }
  }
}
