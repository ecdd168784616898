import { readSync } from 'node:fs';
import { Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate } from 'node:timers/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { invalidArgument, messageOf } from '../../../ttrpc/errors.ts';
import type { Compression } from '../job.ts';

/** Bytes read at once. */
const PIECE = 256 * 1024;
/** Bytes that decompression may be ahead of unpacking, so that both processors have work. */
const AHEAD = 2 * 1024 * 1024;

/**
 * How the blob is compressed, by its first bytes: layers with the wrong media type are common, and a tar archive begins like
 * none of these.
 */
export function compressionOf(fd: number): Compression {
  const start = Buffer.alloc(4);
  readSync(fd, start, 0, start.length, 0);
  // RFC 1952, section 2.3.1: magic and the only method.
  if (start[0] === 0x1f && start[1] === 0x8b && start[2] === 8) return 'gzip';
  // RFC 8878, sections 3.1.1 and 3.1.2: a frame, or a skippable one.
  const magic = start.readUInt32LE();
  if (magic === 0xfd2fb528 || (magic & 0xfffffff0) >>> 0 === 0x184d2a50) return 'zstd';
  return 'none';
}

/**
 * The archive in a blob, in pieces that are valid until the next one is asked for.
 *
 * @throws RpcError InvalidArgument when it does not decompress, is cut off or has anything behind its end
 */
export async function* archivePieces(fd: number, size: number): AsyncGenerator<Buffer> {
  const compression = compressionOf(fd);
  if (compression === 'none') {
    yield* plainPieces(fd);
    return;
  }
  const options = { chunkSize: PIECE, highWaterMark: AHEAD };
  const engine = compression === 'gzip' ? createGunzip(options) : createZstdDecompress(options);
  const feeding = pipeline(Readable.from(pieces(fd)), engine);
  // Seen below, when the engine's output ends; until then it must not count as unhandled.
  feeding.catch(() => undefined);
  try {
    for await (const piece of engine) yield piece as Buffer;
    await feeding;
  } catch (error) {
    throw invalidArgument(`the layer's ${compression} stream is broken: ${messageOf(error)}`, error);
  }
  // Node ends silently at what is not another member.
  const { bytesWritten } = engine as Transform & { bytesWritten: number };
  if (bytesWritten !== size) {
    throw invalidArgument(
      `the layer's ${compression} stream has ${size - bytesWritten} bytes behind its end`,
    );
  }
}

async function* plainPieces(fd: number): AsyncGenerator<Buffer> {
  const piece = Buffer.allocUnsafe(4 * PIECE);
  for (let position = 0; ;) {
    const count = readSync(fd, piece, 0, piece.length, position);
    if (count === 0) return;
    position += count;
    yield piece.subarray(0, count);
    // All the rest is synchronous: without a pause, nobody would notice that the daemon has gone.
    await setImmediate();
  }
}

function* pieces(fd: number): Generator<Buffer> {
  for (let position = 0; ;) {
    const piece = Buffer.allocUnsafe(PIECE);
    const count = readSync(fd, piece, 0, piece.length, position);
    if (count === 0) return;
    position += count;
    yield piece.subarray(0, count);
  }
}
