/** What images are made of: indexes, manifests and configurations, OCI's and Docker's (image-spec). */
import { createHash } from 'node:crypto';
import type { Descriptor } from '../proto/gen/containerd/types/descriptor.ts';
import type { Platform } from '../proto/gen/containerd/types/platform.ts';
import { invalidArgument, notFound } from '../ttrpc/errors.ts';
import type { CallOptions } from '../ttrpc/service.ts';
import type { Content } from './content.ts';
import { type PlatformParts, platformText, rank } from '../oci/platform.ts';

export type { Descriptor };

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json';
export const DOCKER_LAYER = 'application/vnd.docker.image.rootfs.diff.tar';

export const isIndex = (mediaType: string): boolean => mediaType === OCI_INDEX || mediaType === DOCKER_LIST;
export const isManifest = (mediaType: string): boolean =>
  mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST;
export const isConfig = (mediaType: string): boolean =>
  mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG;

/** An index within an index within …; nobody needs more. */
const MAX_DEPTH = 6;

/** A descriptor as it stands in a document. */
export interface DescriptorJson {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: PlatformParts;
  readonly annotations?: { readonly [key: string]: string };
}

export interface Manifest {
  readonly schemaVersion: number;
  readonly mediaType?: string;
  readonly config: DescriptorJson;
  readonly layers: readonly DescriptorJson[];
}

export interface Index {
  readonly schemaVersion: number;
  readonly mediaType?: string;
  readonly manifests: readonly DescriptorJson[];
}

/** What to run in a container of the image. */
export interface ImageConfig {
  readonly architecture?: string;
  readonly os?: string;
  readonly variant?: string;
  readonly config?: {
    readonly User?: string;
    readonly Env?: readonly string[] | null;
    readonly Entrypoint?: readonly string[] | null;
    readonly Cmd?: readonly string[] | null;
    readonly WorkingDir?: string;
    readonly Volumes?: { readonly [path: string]: object } | null;
    readonly Labels?: { readonly [key: string]: string } | null;
    readonly StopSignal?: string;
  };
  readonly rootfs?: { readonly type?: string; readonly diff_ids?: readonly string[] };
  readonly [key: string]: unknown;
}

/** One image of one platform. */
export interface PlatformImage {
  readonly descriptor: DescriptorJson;
  readonly manifest: Manifest;
}

export function descriptorJson({ mediaType, digest, size }: Descriptor): DescriptorJson {
  return { mediaType, digest, size: Number(size) };
}

/** @throws RpcError NotFound, InvalidArgument for what is no JSON object */
export async function readDocument<T extends object>(
  content: Content,
  digest: string,
  options?: CallOptions,
): Promise<T> {
  const bytes = await content.readAll(digest, options);
  let document: unknown;
  try {
    document = JSON.parse(bytes.toString());
  } catch (error) {
    throw invalidArgument(`content ${digest} is no JSON`, error);
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document))
    throw invalidArgument(`content ${digest} is no JSON object`);
  return document as T;
}

/** What an index or a manifest names; nothing for anything else. @throws RpcError NotFound */
export async function childrenOf(
  content: Content,
  { mediaType, digest }: Pick<DescriptorJson, 'mediaType' | 'digest'>,
  options?: CallOptions,
): Promise<DescriptorJson[]> {
  if (isIndex(mediaType)) {
    const { manifests = [] } = await readDocument<Partial<Index>>(content, digest, options);
    return [...manifests];
  }
  if (!isManifest(mediaType)) return [];
  const { config, layers } = await readManifest(content, digest, options);
  return [config, ...layers];
}

export async function readManifest(
  content: Content,
  digest: string,
  options?: CallOptions,
): Promise<Manifest> {
  const { config, layers = [], ...rest } = await readDocument<Partial<Manifest>>(content, digest, options);
  if (config === undefined) throw invalidArgument(`manifest ${digest} names no configuration`);
  return { schemaVersion: 2, ...rest, config, layers };
}

/**
 * The manifest of an image that suits a platform best.
 *
 * @throws RpcError NotFound when it has none, or its content is not there
 */
export async function imageFor(
  content: Content,
  target: DescriptorJson,
  platform: Platform,
  options?: CallOptions,
): Promise<PlatformImage> {
  const found = await bestFor(content, target, platform, 0, options);
  if (found === undefined)
    throw notFound(`no match for platform ${platformText(platform)} in ${target.digest}: not found`);
  return { descriptor: found, manifest: await readManifest(content, found.digest, options) };
}

async function bestFor(
  content: Content,
  target: DescriptorJson,
  platform: Platform,
  depth: number,
  options: CallOptions | undefined,
): Promise<DescriptorJson | undefined> {
  if (isManifest(target.mediaType)) return target;
  if (!isIndex(target.mediaType) || depth > MAX_DEPTH)
    throw invalidArgument(`content ${target.digest} of type ${target.mediaType} is no image`);
  const children = await childrenOf(content, target, options);
  const ranked = children
    .map((child) => ({ child, rank: rankOf(child, platform) }))
    .filter((entry): entry is { child: DescriptorJson; rank: number } => entry.rank !== undefined)
    .sort((one, other) => one.rank - other.rank);
  const best = ranked[0]?.child;
  return best && (await bestFor(content, best, platform, depth + 1, options));
}

/** One that does not say what it is for suits everything, but not as well as one that does. */
function rankOf({ platform }: DescriptorJson, wanted: Platform): number | undefined {
  return platform === undefined ? 1000 : rank(wanted, platform);
}

/** The names of the snapshots of a stack of layers, the lowest first (image-spec, config.md#layer-chainid). */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(`${below} ${diffId}`));
  }
  return chain;
}

export function digestOf(bytes: string | Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
