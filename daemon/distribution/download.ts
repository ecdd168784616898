/** Brings content from a registry into the store: once, whoever asks for it at the same time, and from where it broke off. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Code, failedPrecondition, isCode, invalidArgument } from '../../ttrpc/errors.ts';
import { parseDigest } from '../content/digest.ts';
import type { NamespacedContent } from '../content/namespaced-content.ts';
import type { ContentWriter } from '../content/writer.ts';
import type { Namespace } from '../identifiers.ts';
import { isManifestKind, refKeyOf } from './media-types.ts';
import { type Report, paced } from './progress.ts';
import { MAX_MANIFEST, type Registry } from './registry.ts';
import { connectionError, pauseAfter } from './retry.ts';
import type { Turns } from './turns.ts';

export interface Destination {
  readonly content: NamespacedContent;
  /** Of all downloads of the daemon, by digest. */
  readonly downloads: Turns;
  readonly namespace: Namespace;
  readonly lease: string | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** Milliseconds until it is looked again whether a client has finished writing the same content. */
const BUSY_PAUSE = 250;

/**
 * Sees to it that the namespace has the content, verified, and that the lease holds it.
 *
 * @throws RegistryError; FailedPrecondition for content that is not what its descriptor says, of which nothing is kept; Unavailable
 *         when the registry does not get to the end of it; ResourceExhausted
 */
export async function download(
  registry: Registry,
  descriptor: Descriptor,
  destination: Destination,
  parents: readonly string[] = [],
): Promise<void> {
  const { downloads, signal, report } = destination;
  const step = { name: refKeyOf(descriptor), parents, desc: descriptor, total: Number(descriptor.size) };
  if (isManifestKind(descriptor.mediaType) && Number(descriptor.size) > MAX_MANIFEST)
    throw invalidArgument(
      `manifest ${descriptor.digest} of ${descriptor.size} bytes is too large: invalid argument`,
    );
  if (downloads.isTaken(descriptor.digest)) report({ ...step, event: 'waiting' });
  await downloads.take(descriptor.digest, signal, async () => {
    const telling: Report = (more) => report({ ...step, ...more });
    const isNew = await bring(registry, descriptor, { ...destination, report: telling });
    telling({ event: isNew ? 'complete' : 'already exists', progress: step.total });
  });
}

/** @returns whether the namespace did not have it */
async function bring(registry: Registry, descriptor: Descriptor, destination: Destination): Promise<boolean> {
  const { content, namespace, lease, signal } = destination;
  const ref = refKeyOf(descriptor);
  try {
    const resumed = await attempt(registry, descriptor, ref, destination);
    if (!resumed) return true;
    // What was left of an earlier attempt may have been the broken part.
    await attempt(registry, descriptor, ref, destination);
    return true;
  } catch (error) {
    if (isCode(error, Code.AlreadyExists)) return false;
    if (isCode(error, Code.FailedPrecondition) || isCode(error, Code.OutOfRange))
      await content.abort(namespace, ref, lease).catch(() => undefined);
    signal.throwIfAborted();
    throw error;
  }
}

/** @returns whether it should be tried again from the beginning */
async function attempt(
  registry: Registry,
  descriptor: Descriptor,
  ref: string,
  destination: Destination,
): Promise<boolean> {
  const { namespace } = destination;
  await using writer = await openWriter(destination, ref, descriptor);
  const start = writer.status.expected === undefined ? writer.offset : 0;
  if (writer.status.expected === undefined) await fill(registry, writer, descriptor, destination);
  const size = Number(descriptor.size);
  try {
    await writer.commit({ size, expected: parseDigest(descriptor.digest) });
    return false;
  } catch (error) {
    if (start > 0 && isCode(error, Code.FailedPrecondition)) return true;
    if (isCode(error, Code.FailedPrecondition))
      throw failedPrecondition(`${registry.reference.host}, ${namespace}: ${error.message}`, error);
    throw error;
  }
}

async function openWriter(
  { content, namespace, lease, signal }: Destination,
  ref: string,
  { digest, size }: Descriptor,
): Promise<ContentWriter> {
  for (;;) {
    try {
      return await content.writer(namespace, ref, {
        lease,
        total: Number(size),
        expected: parseDigest(digest),
        signal,
      });
    } catch (error) {
      // A client that pulls by itself writes it just now.
      if (!isCode(error, Code.Unavailable)) throw error;
      await delay(BUSY_PAUSE, undefined, { signal });
    }
  }
}

async function fill(
  registry: Registry,
  writer: ContentWriter,
  descriptor: Descriptor,
  { signal, report }: Destination,
): Promise<void> {
  const size = Number(descriptor.size);
  if (writer.offset > size) await writer.truncate();
  const tell = paced(report);
  for (let failures = 0; writer.offset < size;) {
    const before = writer.offset;
    const { offset, body } = await registry.open(descriptor, before, signal);
    if (offset !== before) await writer.truncate();
    try {
      await receive(body, writer, descriptor, () =>
        tell({ event: 'downloading', progress: writer.offset, total: size }),
      );
    } catch (error) {
      signal.throwIfAborted();
      // Whoever gets further may go on for ever; content has an end.
      failures = writer.offset > before ? 1 : failures + 1;
      const pause = pauseAfter(error, failures, registry.retries);
      if (pause === undefined) throw error;
      await delay(pause, undefined, { signal });
    }
  }
}

async function receive(
  body: AsyncIterable<Buffer>,
  writer: ContentWriter,
  { digest, size }: Descriptor,
  tell: () => void,
): Promise<void> {
  const pieces = body[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await next(pieces, digest);
      if (done === true) break;
      if (writer.offset + value.length > Number(size))
        throw failedPrecondition(
          `content ${digest}: the registry sends more than its ${size} bytes: failed precondition`,
        );
      await writer.write(value);
      tell();
    }
  } finally {
    await pieces.return?.();
  }
  if (writer.offset < Number(size))
    throw connectionError(`content ${digest}`, new Error(`ended at ${writer.offset} of ${size} bytes`));
}

/** Only what the connection fails with is worth another try, not what the store does. */
async function next(pieces: AsyncIterator<Buffer>, digest: string): Promise<IteratorResult<Buffer>> {
  try {
    return await pieces.next();
  } catch (error) {
    throw connectionError(`content ${digest}`, error);
  }
}
