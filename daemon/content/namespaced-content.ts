/**
 * Content as clients see it. Blobs lie on disk once; a namespace has those it has committed. Whoever knows a blob's digest and
 * commits it has it without sending a byte when another namespace has it already (containerd's "shared" policy, unless the
 * configuration says "isolated").
 */
import { createHash } from 'node:crypto';
import type { Timestamp } from '../../proto/gen/google/protobuf/timestamp.ts';
import { alreadyExists, dataLoss, invalidArgument, isCode, Code, notFound } from '../../ttrpc/errors.ts';
import { reached } from '../failpoint.ts';
import { parseFilters, present } from '../filters/filter.ts';
import type { Namespace } from '../identifiers.ts';
import type { Database } from '../metadata/database.ts';
import { MAX_KEY_PART_BYTES } from '../metadata/schema.ts';
import type { Blob } from './blob.ts';
import type { Digest } from './digest.ts';
import { ContentRecords, type Info, type IngestRecord } from './records.ts';
import type { ContentStore } from './store.ts';
import { ContentWriter, type Bytes, type WriterHome, type WriterStatus } from './writer.ts';

export type { Info } from './records.ts';

export interface WriterOptions {
  /** What is created is added to it. */
  readonly lease?: string | undefined;
  /** Bytes the content will have; 0 or nothing when that is not known. */
  readonly total?: number;
  readonly expected?: Digest | undefined;
  readonly signal?: AbortSignal;
  /** Keep what has been written for a while when the writer is given up, also without its lease. */
  readonly isResumable?: boolean;
}

export class NamespacedContent {
  readonly store: ContentStore;
  readonly records: ContentRecords;
  readonly #writers = new Map<string, ContentWriter>();
  readonly #home: WriterHome;
  #abandoned = new Set<Digest>();

  readonly #isShared: boolean;

  /** @param policy whether a namespace may have what another one has brought by knowing its digest, or has to bring it itself */
  constructor(database: Database, store: ContentStore, policy: 'shared' | 'isolated' = 'shared') {
    this.#isShared = policy === 'shared';
    this.store = store;
    this.records = new ContentRecords(database);
    this.#home = {
      store,
      records: this.records,
      abandoned: (digest) => this.abandon(digest),
      closed: ({ ingest }) => this.#writers.delete(ingest.id),
    };
  }

  /** @throws RpcError NotFound */
  info(namespace: Namespace, digest: Digest): Info {
    return this.records.get(namespace, digest);
  }

  /** Whether the namespace has the content with its bytes. A record whose file is gone or cut is mended by writing again. */
  async has(namespace: Namespace, digest: Digest): Promise<boolean> {
    const info = this.records.find(namespace, digest);
    return info !== undefined && (await this.store.size(digest)) === Number(info.size);
  }

  /** @throws RpcError InvalidArgument for a filter that cannot be read */
  list(namespace: Namespace, filters: readonly string[] = []): Info[] {
    return this.records.list(namespace, filters);
  }

  /** See `ContentRecords.update`. */
  update(namespace: Namespace, info: Info, paths: readonly string[] = []): Promise<Info> {
    return this.records.update(namespace, info, paths);
  }

  /** Takes content from the namespace; its bytes go with the next garbage collection. @throws RpcError NotFound */
  async delete(namespace: Namespace, digest: Digest, lease?: string): Promise<void> {
    await this.records.delete(namespace, digest, lease);
    this.#abandoned.add(digest);
  }

  /**
   * Opens content for reading; its file descriptor is `fd`. The caller closes it.
   *
   * @throws RpcError NotFound when the namespace does not have it or its file is gone, DataLoss when the file has another size
   */
  async openBlob(namespace: Namespace, digest: Digest): Promise<Blob> {
    const { size } = this.info(namespace, digest);
    const blob = await this.store.openBlob(digest);
    if (blob.size === Number(size)) return blob;
    await blob.close();
    throw dataLoss(`blob ${digest} at ${this.store.path(digest)} has ${blob.size} of ${size} bytes`);
  }

  /**
   * Reads content whole.
   *
   * @param limit bytes at most; manifests and configurations are small
   * @throws RpcError as `openBlob`, InvalidArgument for larger content
   */
  async read(namespace: Namespace, digest: Digest, limit: number): Promise<Buffer> {
    await using blob = await this.openBlob(namespace, digest);
    if (blob.size > limit) {
      throw invalidArgument(`content ${digest} has ${blob.size} bytes, more than ${limit}: invalid argument`);
    }
    const buffer = Buffer.allocUnsafeSlow(blob.size);
    const count = await blob.read(buffer, 0);
    if (count < blob.size) throw dataLoss(`blob ${digest} at ${this.store.path(digest)} ends at ${count}`);
    return buffer;
  }

  /**
   * Begins to write, or goes on where the writer before has left off. There is one writer for a ref at a time; the caller closes
   * it (committing does).
   *
   * @throws RpcError AlreadyExists when the namespace has the expected content, which is under the lease then; Unavailable while
   *         another writes; NotFound for the lease; InvalidArgument for a ref that is empty or too long
   */
  async writer(namespace: Namespace, ref: string, options: WriterOptions = {}): Promise<ContentWriter> {
    const { lease, total = 0, expected, signal, isResumable = false } = options;
    checkRef(ref);
    const id = ingestId(namespace, ref);
    const lock = await this.store.locks.take(id, ref, signal);
    try {
      using held = new DisposableStack();
      if (expected !== undefined) held.use(await this.store.hold(expected));
      const size = expected && (await this.store.size(expected));
      if (expected && (await this.has(namespace, expected))) {
        if (await this.records.claim(namespace, expected, lease))
          throw alreadyExists(`content ${expected}: already exists`);
      }
      const shared =
        this.#isShared && size !== undefined && (total === 0 || total === size) ? expected : undefined;
      const old = this.records.getIngest(namespace, ref);
      const start = { ref, lease, total: shared === undefined ? total : size!, shared, isResumable };
      const record = await this.records.startIngest(namespace, start);
      reached('ingest-recorded');
      const bytes = await this.#bytes(id, start, old, size, signal);
      const writer = new ContentWriter(this.#home, lock, { namespace, ref, id, lease, record }, bytes);
      this.#writers.set(id, writer);
      return writer;
    } catch (error) {
      lock[Symbol.dispose]();
      throw error;
    }
  }

  async #bytes(
    id: string,
    { shared, total }: { shared: Digest | undefined; total: number },
    old: IngestRecord | undefined,
    size: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Bytes> {
    if (shared !== undefined) return { kind: 'shared', digest: shared, size: size! };
    // What was begun to be another size is another thing.
    const differs = total !== 0 && old !== undefined && old.size !== 0n && Number(old.size) !== total;
    if (old === undefined || differs) await this.store.removeIngest(id);
    return { kind: 'file', file: await this.store.openIngest(id, signal) };
  }

  /**
   * Writes content whole, unless the namespace has it.
   *
   * @param ref names the ingest
   * @throws RpcError as `writer` and `commit`, but AlreadyExists
   */
  async put(
    namespace: Namespace,
    ref: string,
    bytes: Buffer,
    options: WriterOptions & { readonly labels?: { readonly [key: string]: string } } = {},
  ): Promise<Digest> {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
    try {
      await using writer = await this.writer(namespace, ref, {
        ...options,
        expected: options.expected ?? digest,
        total: bytes.length,
      });
      if (writer.status.expected === undefined) {
        await writer.truncate();
        await writer.write(bytes);
      }
      const { labels = {} } = options;
      await writer.commit({ size: bytes.length, expected: options.expected ?? digest, labels });
    } catch (error) {
      if (!isCode(error, Code.AlreadyExists)) throw error;
    }
    return digest;
  }

  /** @throws RpcError NotFound */
  async status(namespace: Namespace, ref: string): Promise<WriterStatus> {
    const record = this.records.getIngest(namespace, ref);
    const status = record && (await this.#status(namespace, ref, record));
    if (status === undefined) throw notFound(`reference ${ref}: not found`);
    return status;
  }

  /** What is being written. @throws RpcError InvalidArgument for a filter that cannot be read */
  async statuses(namespace: Namespace, filters: readonly string[] = []): Promise<WriterStatus[]> {
    const filter = parseFilters(filters);
    const statuses: WriterStatus[] = [];
    for (const { ref, record } of this.records.ingests(namespace)) {
      if (!filter(([first]) => (first === 'ref' ? present(ref) : undefined))) continue;
      const status = await this.#status(namespace, ref, record);
      if (status !== undefined) statuses.push(status);
    }
    return statuses;
  }

  async #status(namespace: Namespace, ref: string, record: IngestRecord): Promise<WriterStatus | undefined> {
    const progress = await this.store.progress(ingestId(namespace, ref));
    if (progress === undefined) return undefined;
    return {
      ref,
      offset: progress.offset,
      total: Number(record.size),
      startedAt: record.createdAt,
      updatedAt: timestampOf(progress.updatedAt),
      expected: undefined,
    };
  }

  /** Throws away what has been written, also under a writer, whose next call fails. @throws RpcError NotFound */
  async abort(namespace: Namespace, ref: string, lease?: string): Promise<void> {
    checkRef(ref);
    const id = ingestId(namespace, ref);
    await this.#writers.get(id)?.abort();
    using held = new DisposableStack();
    held.use(await this.store.locks.take(id, ref));
    const there = await this.records.dropIngest(namespace, ref, lease);
    await this.store.removeIngest(id);
    if (!there) throw notFound(`reference ${ref}: not found`);
  }

  /** Whether a writer is at work. */
  isActive(namespace: Namespace, ref: string): boolean {
    return this.store.locks.isHeld(ingestId(namespace, ref));
  }

  /** The blobs that may be without a record since this was last asked. */
  takeAbandoned(): Set<Digest> {
    const abandoned = this.#abandoned;
    this.#abandoned = new Set();
    return abandoned;
  }

  /** Remembers a blob that could not be removed, or not yet. */
  abandon(digest: Digest): void {
    this.#abandoned.add(digest);
  }

  /** The ids of ingests on disk that no namespace knows of. */
  async orphans(): Promise<string[]> {
    // In this order: a record is made before the first byte.
    const found = await this.store.ingests();
    const known = this.#knownIngests();
    return found.filter((id) => !known.has(id));
  }

  /** Removes what is on disk of an ingest, if no namespace knows of it. @throws RpcError */
  async removeOrphan(id: string): Promise<void> {
    // Its writer has made a record, and will clean up after itself.
    if (this.store.locks.isHeld(id)) return;
    using held = new DisposableStack();
    held.use(await this.store.locks.take(id, id));
    if (!this.#knownIngests().has(id)) await this.store.removeIngest(id);
  }

  #knownIngests(): Set<string> {
    const { records } = this;
    const ids = records
      .namespaces()
      .flatMap((namespace) => records.ingests(namespace).map(({ ref }) => ingestId(namespace, ref)));
    return new Set(ids);
  }

  /** Closes every writer, so that what has been written is in its file. */
  async close(): Promise<void> {
    await Promise.all([...this.#writers.values()].map((writer) => writer.close()));
  }
}

/** Of an ingest on disk. No namespace has a slash in its name. */
export function ingestId(namespace: Namespace, ref: string): string {
  return createHash('sha256').update(`${namespace}/${ref}`).digest('hex');
}

function checkRef(ref: string): void {
  if (ref === '') throw invalidArgument('ref must not be empty: invalid argument');
  if (Buffer.byteLength(ref) > MAX_KEY_PART_BYTES) {
    throw invalidArgument(`ref is longer than ${MAX_KEY_PART_BYTES} bytes: invalid argument`);
  }
}

function timestampOf(date: Date): Timestamp {
  const milliseconds = date.getTime();
  return { seconds: BigInt(Math.floor(milliseconds / 1000)), nanos: (milliseconds % 1000) * 1_000_000 };
}
