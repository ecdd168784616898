/** From a registry to an image. */
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { invalidArgument, notFound } from '../../ttrpc/errors.ts';
import { parseDigest } from '../content/digest.ts';
import { type Child, childrenOf, labelChildren } from './graph.ts';
import { download } from './download.ts';
import { type Distribution, type Session, placed } from './distribution.ts';
import { isConfig, isIndex, isManifestKind, refKeyOf } from './media-types.ts';
import { type Platform, platformText, select } from '../../oci/platform.ts';
import { MAX_MANIFEST, type Registry } from './registry.ts';
import { addSource } from './sources.ts';
import { together } from './turns.ts';
import { diffIdsOf, unpack } from './unpack.ts';

export interface Unpack {
  /** Any, when undefined. */
  readonly target: Platform | undefined;
  readonly snapshotter: string;
}

export interface Selection {
  /** Platforms to take; all of them when there are none. */
  readonly targets: readonly Platform[];
  /** Also take the manifests of other platforms, without their layers. */
  readonly allMetadata?: boolean;
  /** Manifests for each platform at most; 0 for the best one. */
  readonly manifestLimit?: number;
  readonly unpacks?: readonly Unpack[];
  /** Take no layers, and unpack nothing. */
  readonly metadataOnly?: boolean;
}

/** An index within an index within …; nobody needs more. */
const MAX_DEPTH = 6;
const MAX_MANIFESTS = 1000;
const MAX_CONFIG = 8 << 20;

/**
 * Brings an image with everything it consists of into the namespace, and unpacks it as it comes.
 *
 * @returns what the reference names
 * @throws RpcError as `download` and `unpack`; NotFound when there is nothing for the platform
 */
export async function fetchImage(
  distribution: Distribution,
  session: Session,
  registry: Registry,
  selection: Selection,
): Promise<Descriptor> {
  const target = await registry.resolve(session.signal);
  if (!isManifestKind(target.mediaType)) {
    throw invalidArgument(
      `${registry.reference.host}/${registry.reference.repository}: media type ${JSON.stringify(target.mediaType.slice(0, 160))} is no image: invalid argument`,
    );
  }
  session.report({ event: 'fetching image content', desc: target });
  const fetching = new ImageFetch(distribution, session, registry, selection);
  await fetching.run(target);
  return target;
}

class ImageFetch {
  readonly #distribution: Distribution;
  readonly #session: Session;
  readonly #registry: Registry;
  readonly #selection: Selection;
  readonly #stop = new AbortController();
  readonly #brought = new Map<string, Promise<void>>();
  #manifests = 0;

  constructor(distribution: Distribution, session: Session, registry: Registry, selection: Selection) {
    this.#distribution = distribution;
    this.#registry = registry;
    this.#selection = selection;
    this.#session = { ...session, signal: AbortSignal.any([session.signal, this.#stop.signal]) };
  }

  async run(target: Descriptor): Promise<void> {
    await this.#manifest(target, [], this.#selection.unpacks ?? [], 0, true);
  }

  async #manifest(
    descriptor: Descriptor,
    parents: readonly string[],
    unpacks: readonly Unpack[],
    depth: number,
    isWanted: boolean,
  ): Promise<void> {
    if (depth > MAX_DEPTH || (this.#manifests += 1) > MAX_MANIFESTS)
      throw invalidArgument(`image ${descriptor.digest}: too many manifests: invalid argument`);
    const { namespace } = this.#session;
    const { content } = this.#distribution;
    await this.#bring(descriptor, parents);
    const bytes = await content.read(namespace, parseDigest(descriptor.digest), MAX_MANIFEST);
    const children = childrenOf(descriptor, bytes);
    await labelChildren(content, namespace, descriptor, children);
    const names = [...parents, descriptor.digest];
    if (isIndex(descriptor.mediaType)) return this.#index(children, names, unpacks, depth);
    if (isWanted && this.#selection.metadataOnly !== true) await this.#image(children, names, unpacks);
    else if (isManifestKind(descriptor.mediaType)) await this.#metadata(children, names);
  }

  async #index(
    children: readonly Child[],
    parents: readonly string[],
    unpacks: readonly Unpack[],
    depth: number,
  ): Promise<void> {
    const { targets, manifestLimit = 0, allMetadata = false } = this.#selection;
    const platformOf = ({ platform }: Child): Child['platform'] => platform;
    const wanted = select(children, platformOf, targets, manifestLimit || 1);
    if (wanted.length === 0 && children.length > 0) {
      const names = targets.map(platformText).join(', ');
      throw notFound(`no match for platform ${names} in manifest ${parents.at(-1)}: not found`);
    }
    const jobs = new Map(unpacks.map((job) => [job, bestFor(job, wanted)]));
    const taken = allMetadata ? children : wanted;
    await together(
      taken.map((child) => {
        const own = unpacks.filter((job) => jobs.get(job) === child);
        return this.#manifest(child.descriptor, parents, own, depth + 1, wanted.includes(child));
      }),
      this.#stop,
    );
  }

  async #metadata(children: readonly Child[], parents: readonly string[]): Promise<void> {
    const configs = children.filter(({ role }) => role === 'config');
    await together(
      configs.map(({ descriptor }) => this.#bring(descriptor, parents)),
      this.#stop,
    );
  }

  async #image(
    children: readonly Child[],
    parents: readonly string[],
    unpacks: readonly Unpack[],
  ): Promise<void> {
    const config = children.find(({ role }) => role === 'config')!.descriptor;
    const layers = children.filter(({ role }) => role === 'layer').map(({ descriptor }) => descriptor);
    const all = [config, ...layers].map((descriptor) => this.#bring(descriptor, parents));
    const unpacking = unpacks.map(({ snapshotter }) => this.#unpack(snapshotter, config, layers, parents));
    await together([...all, ...unpacking], this.#stop);
  }

  async #unpack(
    snapshotter: string,
    config: Descriptor,
    layers: readonly Descriptor[],
    parents: readonly string[],
  ): Promise<void> {
    // An artifact has nothing to unpack.
    if (!isConfig(config.mediaType)) return;
    const { content, differs, snapshotters, unpacking } = this.#distribution;
    const { namespace } = this.#session;
    await this.#bring(config, parents);
    const bytes = await content.read(namespace, parseDigest(config.digest), MAX_CONFIG);
    const differ = differs.onto(snapshotter);
    const shop = { content, differ, unpacking, snapshotter: snapshotters.get(snapshotter), ...this.#session };
    const steps = layers.map((descriptor) => ({ descriptor, ready: () => this.#bring(descriptor, parents) }));
    await unpack(shop, config, diffIdsOf(config.digest, bytes), steps);
  }

  /** Downloads once what the image names several times. */
  #bring(descriptor: Descriptor, parents: readonly string[]): Promise<void> {
    const known = this.#brought.get(descriptor.digest);
    if (known !== undefined) return known;
    const bringing = this.#download(descriptor, parents);
    this.#brought.set(descriptor.digest, bringing);
    return bringing;
  }

  async #download(descriptor: Descriptor, parents: readonly string[]): Promise<void> {
    const { content, downloads, places } = this.#distribution;
    const { report, namespace } = this.#session;
    const run = (): Promise<void> =>
      download(this.#registry, descriptor, { content, downloads, ...this.#session }, parents);
    if (isManifestKind(descriptor.mediaType)) await run();
    else {
      const total = Number(descriptor.size);
      report({ event: 'waiting', name: refKeyOf(descriptor), parents, desc: descriptor, total });
      await placed(places, this.#session, run);
    }
    await addSource(content, namespace, descriptor.digest, this.#registry.reference);
  }
}

function bestFor({ target }: Unpack, children: readonly Child[]): Child | undefined {
  const targets = target === undefined ? [] : [target];
  return select(children, ({ platform }) => platform, targets, 1)[0];
}
