/** Writes one blob of a namespace, from its first byte or from where another writer has left off. */
import { aborted, alreadyExists, failedPrecondition } from '../../ttrpc/errors.ts';
import { reached } from '../failpoint.ts';
import { type Namespace, checkLabels } from '../identifiers.ts';
import type { Timestamp } from '../../proto/gen/google/protobuf/timestamp.ts';
import { timestampNow } from '../timestamp.ts';
import type { Digest } from './digest.ts';
import type { IngestFile } from './ingest-file.ts';
import type { ContentRecords, Info, IngestRecord } from './records.ts';
import type { ContentStore } from './store.ts';

/** Where the bytes are: in a file of this ingest, or in a blob of another namespace as long as none have been written here. */
export type Bytes =
  | { readonly kind: 'file'; readonly file: IngestFile }
  | { readonly kind: 'shared'; readonly digest: Digest; readonly size: number };

export interface Ingest {
  readonly namespace: Namespace;
  readonly ref: string;
  readonly id: string;
  readonly lease: string | undefined;
  readonly record: IngestRecord;
}

export interface WriterStatus {
  readonly ref: string;
  /** Bytes that are there. */
  readonly offset: number;
  /** Bytes it will have; 0 when that is not known. */
  readonly total: number;
  readonly startedAt: Timestamp | undefined;
  readonly updatedAt: Timestamp | undefined;
  /** The digest it will have, when its bytes are another namespace's. */
  readonly expected: Digest | undefined;
}

export interface CommitOptions {
  /** Bytes it must have; 0 for any number. */
  readonly size?: number;
  readonly expected?: Digest | undefined;
  readonly labels?: { readonly [key: string]: string };
}

/** What a writer has of the store it belongs to. */
export interface WriterHome {
  readonly store: ContentStore;
  readonly records: ContentRecords;
  /** A blob may have been left without a record; it is for the garbage collector to see. */
  abandoned(digest: Digest): void;
  closed(writer: ContentWriter): void;
}

type State = { readonly kind: 'closed'; readonly why: Error } | Bytes;

export class ContentWriter implements AsyncDisposable {
  readonly ingest: Ingest;
  readonly #home: WriterHome;
  readonly #lock: Disposable;
  #state: State;
  #updatedAt: Timestamp | undefined;

  constructor(home: WriterHome, lock: Disposable, ingest: Ingest, bytes: Bytes) {
    this.ingest = ingest;
    this.#home = home;
    this.#lock = lock;
    this.#state = bytes;
    this.#updatedAt = ingest.record.updatedAt;
  }

  get offset(): number {
    const bytes = this.#open();
    return bytes.kind === 'file' ? bytes.file.offset : bytes.size;
  }

  /** Of the bytes taken so far. @throws RpcError FailedPrecondition when closed */
  get digest(): Digest {
    const bytes = this.#open();
    return bytes.kind === 'file' ? bytes.file.digest : bytes.digest;
  }

  get status(): WriterStatus {
    const bytes = this.#open();
    const { ref, record } = this.ingest;
    const shared = bytes.kind === 'shared' ? bytes : undefined;
    return {
      ref,
      offset: this.offset,
      total: shared?.size ?? Number(record.size),
      startedAt: record.createdAt,
      updatedAt: this.#updatedAt,
      expected: shared?.digest,
    };
  }

  /**
   * Takes bytes at the end. Resolves when there is room for more, which may be before they are in the file; the buffer must not
   * be changed until `flush` has resolved. Not to be called again before it resolves.
   *
   * @throws RpcError ResourceExhausted when the disk is full, Aborted when the ingest has been; the writer is of no use then
   */
  async write(bytes: Buffer): Promise<void> {
    const state = this.#open();
    if (bytes.length === 0) return;
    const file = state.kind === 'file' ? state.file : await this.#unshare(state.digest);
    this.#updatedAt = timestampNow();
    await file.write(bytes);
  }

  /** Resolves when all bytes taken are in the file. @throws as `write` */
  async flush(): Promise<void> {
    const state = this.#open();
    if (state.kind === 'file') await state.file.flush();
  }

  /** Begins again without any bytes. @throws RpcError */
  async truncate(): Promise<void> {
    const state = this.#open();
    const file = state.kind === 'file' ? state.file : await this.#openFile();
    await file.truncate();
  }

  /**
   * Makes the bytes the namespace's content, and closes the writer. When the promise resolves, they survive a crash of the
   * machine. Bytes that are not what they should be are thrown away with the ingest; after any other failure it is there to be
   * resumed.
   *
   * @returns what has been stored
   * @throws RpcError AlreadyExists when the namespace has that content, which counts as success; FailedPrecondition for another
   *         size or digest; ResourceExhausted
   */
  async commit({ size = 0, expected, labels = {} }: CommitOptions = {}): Promise<Info> {
    try {
      checkLabels('info.Labels', labels);
      await this.flush();
      const mistake = this.#mistake(size, expected);
      if (mistake === undefined) return await this.#publish(this.#open(), labels);
      if (this.#open().kind === 'file') await this.#discard();
      throw mistake;
    } finally {
      await this.close();
    }
  }

  #mistake(size: number, expected: Digest | undefined): Error | undefined {
    const { offset, digest } = this;
    const { ref } = this.ingest;
    if (size !== 0 && size !== offset) {
      return failedPrecondition(
        `${JSON.stringify(ref)} failed size validation: ${offset} != ${size}: failed precondition`,
      );
    }
    if (expected === undefined || expected === digest) return undefined;
    return failedPrecondition(
      `unexpected commit digest ${digest}, expected ${expected}: failed precondition`,
    );
  }

  async #publish(bytes: Bytes, labels: { readonly [key: string]: string }): Promise<Info> {
    const { store, records } = this.#home;
    const { offset, digest } = this;
    const { namespace, ref, id, lease } = this.ingest;
    using held = new DisposableStack();
    held.use(await store.hold(digest));
    try {
      if (bytes.kind === 'file' && (await store.size(digest)) !== offset) {
        await bytes.file.sync();
        await store.promote(id, digest);
      } else await store.removeIngest(id);
      const content = { ref, lease, digest, size: offset, labels };
      const { info, created } = await records.commit(namespace, content);
      reached('blob-recorded');
      if (created) return info;
    } catch (error) {
      this.#home.abandoned(digest);
      throw error;
    }
    throw alreadyExists(`content ${digest}: already exists`);
  }

  async #discard(): Promise<void> {
    const { namespace, ref, lease, id } = this.ingest;
    await this.#home.store.removeIngest(id);
    await this.#home.records.dropIngest(namespace, ref, lease);
  }

  /** Lets others write. What has been written stays, to be resumed. Harmless when closed already. */
  close(): Promise<void> {
    return this.#close(failedPrecondition('cannot use a closed writer: failed precondition'));
  }

  /** Closes the writer under its owner, whose next call fails. */
  abort(): Promise<void> {
    return this.#close(aborted(`ingest ${this.ingest.ref} was aborted`));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(why: Error): Promise<void> {
    const state = this.#state;
    if (state.kind === 'closed') return;
    this.#state = { kind: 'closed', why };
    try {
      if (state.kind === 'file') await state.file.close();
    } finally {
      this.#home.closed(this);
      this.#lock[Symbol.dispose]();
    }
  }

  #open(): Bytes {
    if (this.#state.kind === 'closed') throw this.#state.why;
    return this.#state;
  }

  /** A file of its own with the shared bytes in it. */
  async #unshare(digest: Digest): Promise<IngestFile> {
    await this.#home.store.copyToIngest(digest, this.ingest.id);
    return this.#openFile();
  }

  async #openFile(): Promise<IngestFile> {
    const file = await this.#home.store.openIngest(this.ingest.id);
    // Closed while the file was being opened: by an abort.
    if (this.#state.kind === 'closed') {
      await file.close();
      throw this.#state.why;
    }
    this.#state = { kind: 'file', file };
    return file;
  }
}
