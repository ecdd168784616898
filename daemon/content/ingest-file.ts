/** A blob in the making: a file that only grows, whose digest is known at every moment. */
import { type Hash, createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { failedPrecondition } from '../../ttrpc/errors.ts';
import { reached } from '../failpoint.ts';
import { type Digest, sha256Digest } from './digest.ts';
import { storageError } from './storage-error.ts';

/** Read at a time when the digest of what is there already is made: half a millisecond of the event loop. */
const SLICE = 1 << 20;
/** What may wait for the disk before a writer has to. */
const MAX_PENDING = 4 << 20;
/** Of writev(2), IOV_MAX. */
const MAX_BUFFERS = 1024;

export class IngestFile {
  readonly path: string;
  readonly #file: FileHandle;
  #hash: Hash;
  /** Bytes taken, written or still waiting. */
  #offset: number;
  /** Bytes in the file. */
  #written: number;
  #pending: Buffer[] = [];
  #flushing: Promise<void> | undefined;
  #failure: Error | undefined;

  private constructor(path: string, file: FileHandle, hash: Hash, size: number) {
    this.path = path;
    this.#file = file;
    this.#hash = hash;
    this.#offset = size;
    this.#written = size;
  }

  /**
   * Opens the file, which is made when it is not there, and digests what it holds.
   *
   * @throws RpcError ResourceExhausted, Internal; what the signal was aborted with
   */
  static async open(path: string, signal?: AbortSignal): Promise<IngestFile> {
    let file: FileHandle;
    try {
      // Not O_APPEND: it would make every write go to the end, whatever its offset (open(2)).
      file = await open(path, 'r+').catch(() => open(path, 'wx+', 0o600));
    } catch (error) {
      throw storageError('open', path, error);
    }
    try {
      const hash = createHash('sha256');
      const size = await digestFile(file, hash, signal);
      return new IngestFile(path, file, hash, size);
    } catch (error) {
      await file.close();
      throw signal?.aborted === true ? signal.reason : storageError('read', path, error);
    }
  }

  get offset(): number {
    return this.#offset;
  }

  /** Of all bytes taken so far. */
  get digest(): Digest {
    return sha256Digest(this.#hash.copy().digest('hex'));
  }

  /**
   * Takes bytes at the end. Resolves when there is room for more, which may be before they are in the file: `flush` waits for
   * that. The buffer must not be changed before then.
   *
   * @throws RpcError ResourceExhausted when the disk is full. After a failure nothing more is taken.
   */
  async write(bytes: Buffer): Promise<void> {
    this.#check();
    if (bytes.length === 0) return;
    this.#pending.push(bytes);
    this.#offset += bytes.length;
    // The disk's work begins first: it goes on in another thread while this one digests.
    this.#flushing ??= this.#drain();
    this.#hash.update(bytes);
    if (this.#offset - this.#written > MAX_PENDING) await this.flush();
  }

  /** Resolves when everything taken is in the file (not yet on the disk: see `sync`). @throws as `write` */
  async flush(): Promise<void> {
    await this.#flushing;
    this.#check();
  }

  /** Begins again with nothing. @throws RpcError */
  async truncate(): Promise<void> {
    await this.flush();
    try {
      await this.#file.truncate(0);
    } catch (error) {
      throw storageError('truncate', this.path, error);
    }
    this.#offset = 0;
    this.#written = 0;
    this.#hash = createHash('sha256');
  }

  /** Brings everything to the disk and makes the file read-only. @throws RpcError */
  async sync(): Promise<void> {
    await this.flush();
    try {
      await this.#file.chmod(0o444);
      await this.#file.sync();
      reached('ingest-synced');
    } catch (error) {
      throw storageError('sync', this.path, error);
    }
  }

  /** Lets go of the file, with what has been taken in it as far as the disk went along. */
  async close(): Promise<void> {
    await this.#flushing;
    this.#failure ??= failedPrecondition(`${this.path} is closed: failed precondition`);
    await this.#file.close();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #drain(): Promise<void> {
    try {
      while (this.#pending.length > 0) await this.#writeAll(this.#pending.splice(0, MAX_BUFFERS));
    } catch (error) {
      this.#failure = storageError('write', this.path, error);
      this.#pending = [];
      // What a full disk took of the last write would be resumed from otherwise, although its writer was told that it failed.
      await this.#file.truncate(this.#written).catch(() => undefined);
      this.#offset = this.#written;
    } finally {
      this.#flushing = undefined;
    }
  }

  async #writeAll(buffers: Buffer[]): Promise<void> {
    const total = buffers.reduce((sum, { length }) => sum + length, 0);
    let left = buffers;
    let done = 0;
    while (done < total) {
      const { bytesWritten } = await this.#file.writev(left, this.#written + done);
      done += bytesWritten;
      left = after(left, bytesWritten);
    }
    this.#written += total;
    reached('ingest-written');
  }
}

/** The buffers without their first `count` bytes. */
function after(buffers: readonly Buffer[], count: number): Buffer[] {
  let skip = count;
  return buffers.flatMap((buffer) => {
    const skipped = Math.min(skip, buffer.length);
    skip -= skipped;
    return skipped === buffer.length ? [] : [buffer.subarray(skipped)];
  });
}

async function digestFile(file: FileHandle, hash: Hash, signal: AbortSignal | undefined): Promise<number> {
  const { size } = await file.stat();
  if (size === 0) return 0;
  const buffer = Buffer.allocUnsafeSlow(Math.min(SLICE, size));
  let offset = 0;
  for (;;) {
    signal?.throwIfAborted();
    const { bytesRead } = await file.read(buffer, 0, buffer.length, offset);
    if (bytesRead === 0) return offset;
    hash.update(buffer.subarray(0, bytesRead));
    offset += bytesRead;
  }
}
