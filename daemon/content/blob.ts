/** A blob that is being read. It stays readable when it is removed meanwhile. */
import { type FileHandle, open } from 'node:fs/promises';
import { dataLoss, notFound } from '../../ttrpc/errors.ts';
import type { Digest } from './digest.ts';
import { isMissing, storageError } from './storage-error.ts';

/** Bytes of one read unless the reader says otherwise. */
export const CHUNK = 1 << 20;

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
  async *chunks(start = 0, end = this.size, length = CHUNK): AsyncGenerator<Buffer, void, undefined> {
    const chunk = Math.min(length, Math.max(end - start, 0));
    let current = Buffer.allocUnsafeSlow(chunk);
    // A blob of one chunk never needs the second buffer.
    let other = end - start > chunk ? Buffer.allocUnsafeSlow(chunk) : current;
    let reading = this.#fill(current, start, end);
    for (let offset = start; offset < end;) {
      const bytes = await reading;
      const next = offset + bytes.length;
      [current, other] = [other, current];
      reading = next < end ? this.#fill(current, next, end) : reading;
      // Its failure is for the next turn, which may never come.
      reading.catch(() => undefined);
      try {
        yield bytes;
      } finally {
        // The file must not be closed under a read in progress.
        await reading.catch(() => undefined);
      }
      offset = next;
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
