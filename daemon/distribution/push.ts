/** From an image to a registry, which is sent only what it does not have. */
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Code, failedPrecondition, isCode, notFound } from '../../ttrpc/errors.ts';
import { parseDigest } from '../content/digest.ts';
import { type Distribution, type Session, placed } from './distribution.ts';
import { readChildren, walk } from './graph.ts';
import { isIndex, isManifestKind, isNonDistributable, refKeyOf } from './media-types.ts';
import { type Platform, normalize, platformText, select } from '../../oci/platform.ts';
import { nameOf } from './reference.ts';
import { MAX_MANIFEST, type Registry } from './registry.ts';
import { RegistryError, withRetries } from './retry.ts';
import { addSource, sourcesOf } from './sources.ts';
import { together } from './turns.ts';
import type { Answer } from './transport.ts';
import { Upload, uploadLocation } from './upload.ts';

export interface PushOptions {
  /** Platforms; all that is there when there are none. */
  readonly targets?: readonly Platform[];
  /** Send also what only its owner may give away. */
  readonly nonDistributable?: boolean;
}

/**
 * Sends an image: its blobs first, manifests after what they name, the image's own under the reference last.
 *
 * @throws RegistryError; NotFound for an image that is not there
 */
export async function pushImage(
  distribution: Distribution,
  session: Session,
  registry: Registry,
  target: Descriptor,
  { targets = [], nonDistributable = false }: PushOptions = {},
): Promise<void> {
  const { reference } = registry;
  if (reference.digest !== undefined && reference.digest !== target.digest)
    throw failedPrecondition(
      `${nameOf(reference)}@${reference.digest}: the image is ${target.digest}: failed precondition`,
    );
  const parts = await walk(distribution.content, session.namespace, target, ({ mediaType }, children) =>
    isIndex(mediaType) ? select(children, ({ platform }) => platform, targets, 0) : children,
  );
  if (parts.length === 0) throw notFound(`content ${target.digest}: not found`);
  await checkRest(distribution, session, registry, parts);
  const blobs = parts.filter(
    ({ mediaType }) => !isManifestKind(mediaType) && (nonDistributable || !isNonDistributable(mediaType)),
  );
  const manifests = parts.filter(({ mediaType }) => isManifestKind(mediaType)).reverse();
  const stop = new AbortController();
  const signal = AbortSignal.any([session.signal, stop.signal]);
  const push = new Push(distribution, { ...session, signal }, registry);
  await together(
    blobs.map((blob) => placed(distribution.uploads, { ...session, signal }, () => push.blob(blob))),
    stop,
  );
  for (const manifest of manifests) await push.manifest(manifest, manifest.digest === target.digest);
}

/** Sends one thing, without what it names. @throws as `pushImage` */
export async function pushObject(
  distribution: Distribution,
  session: Session,
  registry: Registry,
  descriptor: Descriptor,
): Promise<void> {
  const push = new Push(distribution, session, registry);
  if (!isManifestKind(descriptor.mediaType)) return push.blob(descriptor);
  await push.manifest(descriptor, true);
}

/**
 * What an index names and is not sent must be at the registry: most registries refuse an index otherwise, after all the rest has been
 * sent, and those that do not serve an image with holes.
 *
 * @throws RpcError FailedPrecondition that names what is missing
 */
async function checkRest(
  { content }: Distribution,
  { namespace, signal }: Session,
  registry: Registry,
  parts: readonly Descriptor[],
): Promise<void> {
  const sent = new Set(parts.map(({ digest }) => digest));
  const missing: string[] = [];
  for (const index of parts.filter(({ mediaType }) => isIndex(mediaType))) {
    const children = await readChildren(content, namespace, index);
    for (const { descriptor, platform } of children.filter(
      ({ descriptor }) => !sent.has(descriptor.digest),
    )) {
      const path = `${registry.reference.repository}/manifests/${descriptor.digest}`;
      const headers = { accept: `${descriptor.mediaType}, */*` };
      const { status, body } = await registry.push({ method: 'HEAD', path, headers, signal }, [200, 404]);
      body.destroy();
      if (status === 404) missing.push(`${descriptor.digest} (${platformText(normalize(platform ?? {}))})`);
    }
  }
  if (missing.length === 0) return;
  const list = missing.slice(0, 8).join(', ') + (missing.length > 8 ? ` and ${missing.length - 8} more` : '');
  throw failedPrecondition(
    `${nameOf(registry.reference)}: the image has manifests that are neither here nor at the registry: ${list}; pull all platforms first, or push the manifest of one: failed precondition`,
  );
}

class Push {
  readonly #distribution: Distribution;
  readonly #session: Session;
  readonly #registry: Registry;

  constructor(distribution: Distribution, session: Session, registry: Registry) {
    this.#distribution = distribution;
    this.#session = session;
    this.#registry = registry;
  }

  async blob(descriptor: Descriptor): Promise<void> {
    const { retries } = this.#registry;
    const { signal } = this.#session;
    // An upload that the registry has forgotten is begun again.
    const isNew = await withRetries({ ...retries, attempts: 3 }, signal, () => this.#blob(descriptor));
    await this.#done(descriptor, isNew);
  }

  async #blob(descriptor: Descriptor): Promise<boolean> {
    const { repository } = this.#registry.reference;
    const { digest } = descriptor;
    const { signal } = this.#session;
    const path = `${repository}/blobs/${digest}`;
    const known = await this.#registry.push({ method: 'HEAD', path, signal }, [200, 404]);
    known.body.destroy();
    if (known.status === 200) return false;
    const started = await this.#begin(descriptor);
    if (started === undefined) return false;
    await this.#upload(descriptor, started);
    return true;
  }

  /** @returns the upload's address; undefined when the registry has taken the blob from another repository */
  async #begin({ digest }: Descriptor): Promise<URL | undefined> {
    const { host, repository } = this.#registry.reference;
    const { content } = this.#distribution;
    const { namespace, signal } = this.#session;
    const path = `${repository}/blobs/uploads/`;
    const [from] = sourcesOf(content, namespace, digest, host).filter((other) => other !== repository);
    if (from !== undefined) {
      const mount = { method: 'POST', path, query: { mount: digest, from }, signal } as const;
      const answer = await this.#try(mount, from);
      if (answer?.status === 201) return undefined;
      if (answer !== undefined) return uploadLocation(answer);
    }
    const answer = await this.#registry.push({ method: 'POST', path, signal }, [202]);
    answer.body.destroy();
    return uploadLocation(answer);
  }

  /** Whoever may not read the other repository sends the blob. */
  async #try(request: Parameters<Registry['push']>[0], from: string): Promise<Answer | undefined> {
    try {
      const answer = await this.#registry.push(request, [201, 202], { from });
      answer.body.destroy();
      return answer;
    } catch (error) {
      if (error instanceof RegistryError && error.status !== undefined && error.status < 500)
        return undefined;
      throw error;
    }
  }

  async #upload(descriptor: Descriptor, start: URL): Promise<void> {
    const { namespace, signal, report } = this.#session;
    const digest = parseDigest(descriptor.digest);
    await using blob = await this.#distribution.content.openBlob(namespace, digest);
    const step = { event: 'uploading', name: refKeyOf(descriptor), desc: descriptor, total: blob.size };
    const upload = new Upload(this.#registry, blob, start, signal);
    await upload.send((progress) => report({ ...step, progress }));
  }

  async manifest(descriptor: Descriptor, isRoot: boolean): Promise<void> {
    const { repository, tag } = this.#registry.reference;
    const { namespace, signal } = this.#session;
    const { mediaType } = descriptor;
    const digest = parseDigest(descriptor.digest);
    const path = `${repository}/manifests/${(isRoot ? tag : undefined) ?? digest}`;
    const headers = { accept: `${mediaType}, */*` };
    const known = await this.#registry.push({ method: 'HEAD', path, headers, signal }, [200, 404]);
    known.body.destroy();
    const isKnown = known.status === 200 && known.headers['docker-content-digest'] === digest;
    if (!isKnown) {
      const body = await this.#distribution.content.read(namespace, digest, MAX_MANIFEST);
      const request = { method: 'PUT', path, headers: { 'content-type': mediaType }, body, signal } as const;
      const answer = await this.#registry.push(request, [200, 201]);
      answer.body.destroy();
    }
    await this.#done(descriptor, !isKnown);
  }

  async #done(descriptor: Descriptor, isNew: boolean): Promise<void> {
    const { namespace, report } = this.#session;
    const total = Number(descriptor.size);
    const event = isNew ? 'complete' : 'already exists';
    report({ event, name: refKeyOf(descriptor), desc: descriptor, progress: total, total });
    await addSource(this.#distribution.content, namespace, descriptor.digest, this.#registry.reference).catch(
      (error: unknown) => {
        // Removed meanwhile.
        if (!isCode(error, Code.NotFound)) throw error;
      },
    );
  }
}
