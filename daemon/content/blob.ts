/** A blob that is being read. It stays readable when it is removed meanwhile. */
import { type FileHandle, open } from 'node:fs/promises';
import { dataLoss, notFound } from '../../ttrpc/errors.ts';
import type { Digest } from './digest.ts';
import { isMissing, storageError } from './storage-error.ts';

/** Bytes read at a time. */
const CHUNK = 1 << 20;

/**
 * Buffers for the next readers. Clients read large blobs by thousands of calls, and every buffer made anew brings the garbage
 * collection of V8 nearer, which follows what lies outside its heap.
 */
const spare: Buffer[] = [];
const MAX_SPARE = 4;

const takeBuffer = (): Buffer => spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK);

export class Blob implements AsyncDisposable {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly #path: string;
  readonly #file: FileHandle;

  private constructor(digest: Digest, path: string, file: FileHandle, size: number) {
    this.digest = digest;
    this.#path = path;
    this.#file = file;
    this.size = size;
  }

  /** @throws RpcError NotFound that says where the blob should be */
  static async open(digest: Digest, path: string): Promise<Blob> {
    let file: FileHandle;
    try {
      file = await open(path, 'r');
    } catch (error) {
      if (isMissing(error)) throw notFound(`blob ${digest} expected at ${path}: not found`, error);
      throw storageError('open', path, error);
    }
    try {
      return new Blob(digest, path, file, (await file.stat()).size);
    } catch (error) {
      await file.close();
      throw storageError('stat', path, error);
    }
  }

  /** The open file, for another process to read or for `native` calls. Valid until `close`. */
  get fd(): number {
    return this.#file.fd;
  }

  /**
   * Fills the buffer from an offset.
   *
   * @returns the number of bytes read, fewer than asked for only at the blob's end
   * @throws RpcError Internal
   */
  async read(buffer: Buffer, offset: number): Promise<number> {
    let filled = 0;
    while (filled < buffer.length) {
      const { bytesRead } = await this.#file
        .read(buffer, filled, buffer.length - filled, offset + filled)
        .catch((error: unknown) => {
          throw storageError('read', this.#path, error);
        });
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return filled;
  }

  /**
   * Reads from `start` to `end` (the blob's end unless given), the next chunk while the last one is being used.
   *
   * Two buffers are used in turn: a chunk is overwritten once the next one is asked for.
   *
   * @throws RpcError DataLoss when the file has become shorter than it was
   */
  async *chunks(start = 0, end = this.size): AsyncGenerator<Buffer, void, undefined> {
    const buffers = [takeBuffer()];
    let reading = this.#fill(buffers[0]!, start, end);
    try {
      for (let offset = start, turn = 0; offset < end; turn += 1) {
        const bytes = await reading;
        offset += bytes.length;
        if (offset < end) {
          // A blob of one chunk never needs the second buffer.
          const other = (buffers[(turn + 1) % 2] ??= takeBuffer());
          reading = this.#fill(other, offset, end);
          // Its failure is for the next turn, which may never come.
          reading.catch(() => undefined);
        }
        yield bytes;
      }
    } finally {
      // Neither the file nor the buffers may be let go of under a read in progress.
      await reading.catch(() => undefined);
      spare.push(...buffers.slice(0, MAX_SPARE - spare.length));
    }
  }

  async #fill(buffer: Buffer, start: number, end: number): Promise<Buffer> {
    const wanted = buffer.subarray(0, Math.min(buffer.length, end - start));
    const count = await this.read(wanted, start);
    if (count < wanted.length) {
      throw dataLoss(`blob ${this.digest} at ${this.#path} ends at ${start + count} of ${this.size} bytes`);
    }
    return wanted;
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
