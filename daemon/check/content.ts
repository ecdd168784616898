/** Blobs and ingests on the disk against what the metadata say of them, and the images that need them. */
import { existsSync } from 'node:fs';
import { rm, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Info } from '../../proto/gen/containerd/services/content.ts';
import { Image } from '../../proto/gen/containerd/services/images.ts';
import { type Digest, isDigest } from '../content/digest.ts';
import { ingestId } from '../content/namespaced-content.ts';
import { ContentStore } from '../content/store.ts';
import { mistakeInBlob } from '../content/verification.ts';
import { referencesOf } from '../gc/labels.ts';
import type { Namespace } from '../identifiers.ts';
import type { Reader } from '../metadata/database.ts';
import { Kind } from '../metadata/schema.ts';
import type { Finding } from './finding.ts';

/** What the metadata say of content, in all namespaces. */
interface Known {
  /** Bytes of each blob that a record names. */
  readonly sizes: ReadonlyMap<Digest, number>;
  /** The images that need a blob, as the command that brings it again. */
  readonly images: ReadonlyMap<string, readonly ImageName[]>;
  readonly ingests: ReadonlySet<string>;
  /** What an ingest shares with another namespace. */
  readonly shared: ReadonlySet<string>;
}

interface ImageName {
  readonly namespace: Namespace;
  readonly name: string;
}

export interface ContentOptions {
  /** `<root>/content` */
  readonly directory: string;
  /** Look at names and sizes only. */
  readonly quick: boolean;
  /** Read only these, which seemed wrong before. */
  readonly only?: ReadonlySet<string> | undefined;
}

/** @returns what is wrong, and how many blobs there are */
export async function checkContent(
  reader: Reader,
  namespaces: readonly Namespace[],
  { directory, quick, only }: ContentOptions,
): Promise<{ findings: Finding[]; blobs: number }> {
  const findings: Finding[] = [];
  if (!existsSync(directory)) return { findings, blobs: 0 };
  const known = read(reader, namespaces);
  const store = await ContentStore.open(directory);
  for (const [digest, size] of known.sizes) {
    const object = `blob ${digest}`;
    if (only !== undefined && !only.has(object)) continue;
    const advice = adviceFor(known.images.get(digest));
    const found = await store.size(digest);
    if (found === undefined) {
      findings.push({ object, problem: `there is no file ${store.path(digest)}`, kind: 'missing', advice });
      continue;
    }
    const problem =
      found === size
        ? quick
          ? undefined
          : await mistakeInBlob(store.path(digest), digest)
        : `it has ${found} of ${size} bytes`;
    if (problem === undefined) continue;
    // Its record stays, so that all that needs it is kept and the next pull brings it again.
    const repair = { done: 'its file has been removed', run: () => unlink(store.path(digest)) };
    findings.push({ object, problem, kind: 'damaged', advice, repair });
  }
  for await (const digest of store.digests()) {
    if (known.sizes.has(digest) || known.shared.has(digest)) continue;
    const repair = { done: 'its file has been removed', run: () => unlink(store.path(digest)) };
    findings.push({ object: `blob ${digest}`, problem: 'no namespace has it', kind: 'leftover', repair });
  }
  for (const id of await store.ingests()) {
    if (known.ingests.has(id)) continue;
    const path = join(directory, 'ingest', id);
    const repair = { done: 'it has been removed', run: () => rm(path, { recursive: true, force: true }) };
    findings.push({ object: `ingest ${path}`, problem: 'nobody writes it', kind: 'leftover', repair });
  }
  findings.push(...incomplete(reader, namespaces));
  return { findings, blobs: known.sizes.size };
}

function read(reader: Reader, namespaces: readonly Namespace[]): Known {
  const sizes = new Map<Digest, number>();
  const images = new Map<string, ImageName[]>();
  const ingests = new Set<string>();
  const shared = new Set<string>();
  for (const namespace of namespaces) {
    for (const { id, value } of reader.list([namespace, Kind.Content], Info))
      if (isDigest(id)) sizes.set(id, Number(value.size));
    for (const { id, value } of reader.list([namespace, Kind.Ingest], Info)) {
      ingests.add(ingestId(namespace, id));
      shared.add(value.digest);
    }
    for (const { id: name, value } of reader.list([namespace, Kind.Image], Image)) {
      for (const digest of partsOf(reader, namespace, value.target?.digest ?? '')) {
        const names = images.get(digest);
        if (names === undefined) images.set(digest, [{ namespace, name }]);
        else names.push({ namespace, name });
      }
    }
  }
  return { sizes, images, ingests, shared };
}

/** All that an image needs, by the labels that hold it together: they can be read when a manifest cannot. */
function partsOf(reader: Reader, namespace: Namespace, target: string): Set<string> {
  const parts = new Set<string>();
  const waiting = [target];
  for (let digest = waiting.pop(); digest !== undefined; digest = waiting.pop()) {
    if (digest === '' || parts.has(digest)) continue;
    parts.add(digest);
    waiting.push(...childrenOf(reader, namespace, digest));
  }
  return parts;
}

function childrenOf(reader: Reader, namespace: Namespace, digest: string): string[] {
  const info = reader.get([namespace, Kind.Content, digest], Info);
  return referencesOf(info?.labels ?? {})
    .filter(({ kind }) => kind === Kind.Content)
    .map(({ id }) => id);
}

/** Images whose manifest is not there, and those that lack a part. Parts of an index for other platforms are not fetched. */
function incomplete(reader: Reader, namespaces: readonly Namespace[]): Finding[] {
  const findings: Finding[] = [];
  for (const namespace of namespaces) {
    const has = (digest: string): boolean => reader.has([namespace, Kind.Content, digest]);
    for (const { id: name, value } of reader.list([namespace, Kind.Image], Image)) {
      const object = `image ${name} in ${namespace}`;
      const advice = adviceFor([{ namespace, name }]);
      const target = value.target?.digest ?? '';
      if (!has(target)) {
        findings.push({ object, problem: `its content ${target} is not there`, kind: 'missing', advice });
        continue;
      }
      for (const digest of partsOf(reader, namespace, target)) {
        const labels = reader.get([namespace, Kind.Content, digest], Info)?.labels ?? {};
        const isManifest = Object.keys(labels).some((key) => key.endsWith('.content.config'));
        const away = isManifest ? childrenOf(reader, namespace, digest).filter((part) => !has(part)) : [];
        for (const part of away)
          findings.push({ object, problem: `its part ${part} is not there`, kind: 'note', advice });
      }
    }
  }
  return findings;
}

function adviceFor(images: readonly ImageName[] | undefined): string | undefined {
  if (images === undefined) return undefined;
  return images
    .map(
      ({ namespace, name }) =>
        `part of ${name}: \`moor -n ${namespace} images pull ${name}\` brings it again`,
    )
    .join('; ');
}
