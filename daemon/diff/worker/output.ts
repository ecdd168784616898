import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { finished } from 'node:stream/promises';
import { createGzip, createZstdCompress } from 'node:zlib';
import type { Archive, Compression } from '../job.ts';

/** Where an archive goes: through a hash and a compressor into a file or pipe. */
export class Output {
  readonly #fd: number;
  readonly #engine: ReturnType<typeof createGzip> | ReturnType<typeof createZstdCompress> | undefined;
  readonly #hash = createHash('sha256');
  #size = 0;

  constructor(fd: number, compression: Compression) {
    this.#fd = fd;
    if (compression === 'none') return;
    this.#engine = compression === 'gzip' ? createGzip() : createZstdCompress();
    this.#engine.on('data', (piece: Buffer) => this.#put(piece));
  }

  /** Takes a piece, whose memory must not change afterwards; waits while the compressor has too much. */
  async write(piece: Buffer): Promise<void> {
    this.#hash.update(piece);
    this.#size += piece.length;
    if (this.#engine === undefined) this.#put(piece);
    // `once` fails when the stream does.
    else if (!this.#engine.write(piece)) await once(this.#engine, 'drain');
  }

  /** Everything is written when this returns. */
  async end(): Promise<Archive> {
    if (this.#engine !== undefined) {
      const ended = finished(this.#engine);
      this.#engine.end();
      await ended;
    }
    return { diffId: `sha256:${this.#hash.digest('hex')}`, size: this.#size };
  }

  /** Gives up. */
  destroy(): void {
    this.#engine?.destroy();
  }

  #put(piece: Buffer): void {
    try {
      for (let written = 0; written < piece.length;) written += writeSync(this.#fd, piece, written);
    } catch (error) {
      if (this.#engine === undefined) throw error;
      this.#engine.destroy(error as Error);
    }
  }
}
