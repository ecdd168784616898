/** What images are made of, and how their parts hold together. */
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { invalidArgument, isCode, Code } from '../../ttrpc/errors.ts';
import { isDigest, parseDigest } from '../content/digest.ts';
import type { NamespacedContent } from '../content/namespaced-content.ts';
import type { Namespace } from '../identifiers.ts';
import { isIndex, isManifest } from './media-types.ts';
import type { PlatformParts } from '../../oci/platform.ts';
import { MAX_MANIFEST } from './registry.ts';

export interface Child {
  readonly descriptor: Descriptor;
  /** The label that holds it: `containerd.io/gc.ref.content.l.0`. */
  readonly label: string;
  readonly role: 'manifest' | 'config' | 'layer';
  readonly platform: PlatformParts | undefined;
}

const REFERENCE = 'containerd.io/gc.ref.content.';
/** Parts of one manifest or index. The kernel stacks some hundred layers at most; each part is a label, and so memory. */
const MAX_PARTS = 4096;

/** The parts that an index or a manifest names. @throws RpcError InvalidArgument for one that cannot be read */
export function childrenOf(parent: Descriptor, bytes: Buffer): Child[] {
  const document = parseDocument(parent.digest, bytes);
  const list = (key: string): unknown[] => {
    const value = document[key] ?? [];
    if (!Array.isArray(value)) throw malformed(parent.digest, `${key} is no list`);
    if (value.length > MAX_PARTS) throw malformed(parent.digest, `it has more than ${MAX_PARTS} ${key}`);
    return value;
  };
  const child = (value: unknown, role: Child['role'], name: string): Child => {
    if (!isObject(value)) throw malformed(parent.digest, 'it has a malformed descriptor');
    const descriptor = descriptorFrom(value, parent.digest);
    const platform = platformFrom(value['platform'], parent.digest);
    return { descriptor, label: `${REFERENCE}${name}`, role, platform };
  };
  if (isIndex(parent.mediaType)) {
    if ('layers' in document || 'config' in document)
      throw malformed(parent.digest, 'it is an index and a manifest at once');
    return list('manifests').map((json, index) => child(json, 'manifest', `m.${index}`));
  }
  if (!isManifest(parent.mediaType)) return [];
  // What one reader takes for an index and another for a manifest could have two meanings (CVE-2021-41190).
  if ('manifests' in document) throw malformed(parent.digest, 'it is a manifest and an index at once');
  const { config } = document;
  if (config === undefined) throw malformed(parent.digest, 'it has no config');
  return [
    child(config, 'config', 'config'),
    ...list('layers').map((json, index) => child(json, 'layer', `l.${index}`)),
  ];
}

export function parseDocument(digest: string, bytes: Buffer): { readonly [key: string]: unknown } {
  let document: unknown;
  try {
    document = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw malformed(digest, 'it is no JSON', error);
  }
  if (!isObject(document)) throw malformed(digest, 'it is no object');
  return document;
}

interface Json {
  readonly [key: string]: unknown;
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function platformFrom(value: unknown, parent: string): PlatformParts | undefined {
  if (value === undefined || value === null) return undefined;
  const isPlatform =
    isObject(value) &&
    ['os', 'architecture', 'variant', 'os.version'].every((key) =>
      ['undefined', 'string'].includes(typeof value[key]),
    );
  if (!isPlatform) throw malformed(parent, 'it has a malformed platform');
  return value;
}

function descriptorFrom({ mediaType, digest, size, annotations }: Json, parent: string): Descriptor {
  const isSize = typeof size === 'number' && Number.isSafeInteger(size) && size >= 0;
  if (typeof mediaType !== 'string' || typeof digest !== 'string' || !isDigest(digest) || !isSize)
    throw malformed(parent, 'it has a malformed descriptor');
  const texts = Object.entries(annotations ?? {}).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string',
  );
  return { mediaType, digest, size: BigInt(size), annotations: Object.fromEntries(texts) };
}

function malformed(digest: string, why: string, cause?: unknown): Error {
  return invalidArgument(`manifest ${digest}: ${why}: invalid argument`, cause);
}

/** What the namespace has of an image: parts that were never fetched are left out. Every part comes once, after its parent. */
export async function walk(
  content: NamespacedContent,
  namespace: Namespace,
  target: Descriptor,
  choose: (parent: Descriptor, children: readonly Child[]) => readonly Child[] = (_, children) => children,
): Promise<Descriptor[]> {
  const seen = new Map<string, Descriptor>();
  const waiting = [target];
  for (let descriptor = waiting.shift(); descriptor !== undefined; descriptor = waiting.shift()) {
    if (seen.has(descriptor.digest) || !(await content.has(namespace, parseDigest(descriptor.digest))))
      continue;
    seen.set(descriptor.digest, descriptor);
    const children = await readChildren(content, namespace, descriptor);
    waiting.push(...choose(descriptor, children).map((child) => child.descriptor));
  }
  return [...seen.values()];
}

/** @returns nothing for what is no manifest, or not there */
export async function readChildren(
  content: NamespacedContent,
  namespace: Namespace,
  descriptor: Descriptor,
): Promise<Child[]> {
  if (!isIndex(descriptor.mediaType) && !isManifest(descriptor.mediaType)) return [];
  try {
    return childrenOf(
      descriptor,
      await content.read(namespace, parseDigest(descriptor.digest), MAX_MANIFEST),
    );
  } catch (error) {
    if (isCode(error, Code.NotFound)) return [];
    throw error;
  }
}

/** Makes a manifest hold its parts, so that they are kept as long as it is. */
export async function labelChildren(
  content: NamespacedContent,
  namespace: Namespace,
  parent: Descriptor,
  children: readonly Child[],
): Promise<void> {
  await addLabels(
    content,
    namespace,
    parent.digest,
    Object.fromEntries(children.map(({ label, descriptor }) => [label, descriptor.digest])),
  );
}

/** Adds labels to content that is there, unless it has them already. */
export async function addLabels(
  content: NamespacedContent,
  namespace: Namespace,
  digest: string,
  labels: { readonly [key: string]: string },
): Promise<void> {
  const info = content.info(namespace, parseDigest(digest));
  const missing = Object.keys(labels).filter((key) => info.labels[key] !== labels[key]);
  if (missing.length === 0) return;
  const paths = missing.map((key) => `labels.${key}`);
  await content.update(namespace, { ...info, labels: { ...info.labels, ...labels } }, paths);
}
