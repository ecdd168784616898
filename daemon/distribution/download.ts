/** Brings content from a registry into the store: once, whoever asks for it at the same time, and from where it broke off. */
import { randomUUID } from 'node:crypto';
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
/** Milliseconds that a client which writes it may pause. */
const BUSY_PATIENCE = 5000;

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
  try {
    const isWhole = await attempt(registry, descriptor, destination);
    // What was left of an earlier attempt may have been the broken part.
    if (!isWhole) await attempt(registry, descriptor, destination);
    return true;
  } catch (error) {
    if (isCode(error, Code.AlreadyExists)) return false;
    destination.signal.throwIfAborted();
    throw error;
  }
}

/** @returns false when it should be tried again from the beginning */
async function attempt(
  registry: Registry,
  descriptor: Descriptor,
  destination: Destination,
): Promise<boolean> {
  const { content, namespace, lease } = destination;
  await using writer = await openWriter(destination, descriptor);
  const { ref } = writer.ingest;
  const isShared = writer.status.expected !== undefined;
  const start = isShared ? 0 : writer.offset;
  try {
    if (!isShared) await fill(registry, writer, descriptor, destination);
    await writer.commit({ size: Number(descriptor.size), expected: parseDigest(descriptor.digest) });
    return true;
  } catch (error) {
    const isWrong = isCode(error, Code.FailedPrecondition);
    // Bytes that came are kept for the next pull; where none did there is nothing to go on with.
    if (isWrong || writer.offset === 0 || isCode(error, Code.OutOfRange)) {
      await writer.close();
      await content.abort(namespace, ref, lease).catch(() => undefined);
    }
    if (isWrong && start > 0) return false;
    if (isWrong)
      throw failedPrecondition(`${registry.reference.host}, ${namespace}: ${error.message}`, error);
    throw error;
  }
}

/**
 * Opens the ingest that clients know the content by. While one of them writes it, it is waited for, since the bytes need not come twice;
 * a client that holds it without writing is not waited for: then the content gets an ingest of its own.
 */
async function openWriter(
  { content, namespace, lease, signal }: Destination,
  descriptor: Descriptor,
): Promise<ContentWriter> {
  const shared = refKeyOf(descriptor);
  const expected = parseDigest(descriptor.digest);
  const open = (ref: string): Promise<ContentWriter> =>
    content.writer(namespace, ref, {
      lease,
      total: Number(descriptor.size),
      expected,
      signal,
      // Nobody else knows of an ingest of its own.
      isResumable: ref === shared,
    });
  let last = -1;
  for (let since = performance.now(); performance.now() - since < BUSY_PATIENCE;) {
    try {
      return await open(shared);
    } catch (error) {
      if (!isCode(error, Code.Unavailable)) throw error;
    }
    const offset = await progressOf(content, namespace, shared);
    if (offset > last) since = performance.now();
    last = Math.max(last, offset);
    await delay(BUSY_PAUSE, undefined, { signal });
  }
  return open(`${shared}-${randomUUID()}`);
}

/** Bytes that an ingest has; -1 when it is not there any more. */
async function progressOf(content: NamespacedContent, namespace: Namespace, ref: string): Promise<number> {
  try {
    return (await content.status(namespace, ref)).offset;
  } catch (error) {
    if (isCode(error, Code.NotFound)) return -1;
    throw error;
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
  tell({ event: 'downloading', progress: writer.offset, total: size });
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
