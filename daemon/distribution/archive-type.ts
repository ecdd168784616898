/** How an archive is compressed as a whole: told by its media type, or by its first bytes. */
import { PassThrough, type Transform } from 'node:stream';
import { createGunzip, createGzip, createZstdCompress, createZstdDecompress } from 'node:zlib';
import { unimplemented } from '../../ttrpc/errors.ts';

export type ArchiveCompression = 'none' | 'gzip' | 'zstd';

const GZIP = Buffer.from([0x1f, 0x8b]);
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/**
 * @returns undefined for an empty media type, which leaves it open
 * @throws RpcError Unimplemented for a compression that is not known
 */
export function compressionOfType(mediaType: string): ArchiveCompression | undefined {
  if (mediaType === '') return undefined;
  const word = /\+([\w.-]+)$|^application\/(?:x-)?(gzip|zstd)$/.exec(mediaType);
  const name = word?.[1] ?? word?.[2];
  if (name === undefined) return 'none';
  if (name === 'gzip' || name === 'zstd') return name;
  throw unimplemented(
    `archives of the media type ${JSON.stringify(mediaType.slice(0, 160))} are not known: not implemented`,
  );
}

/** @param head the first four bytes */
export function compressionOfBytes(head: Buffer): ArchiveCompression {
  if (startsWith(head, GZIP)) return 'gzip';
  return startsWith(head, ZSTD) ? 'zstd' : 'none';
}

function startsWith(bytes: Buffer, magic: Buffer): boolean {
  return bytes.subarray(0, magic.length).equals(magic);
}

export function decoderFor(compression: ArchiveCompression): Transform {
  if (compression === 'gzip') return createGunzip();
  return compression === 'zstd' ? createZstdDecompress() : new PassThrough();
}

export function encoderFor(compression: ArchiveCompression): Transform {
  if (compression === 'gzip') return createGzip();
  return compression === 'zstd' ? createZstdCompress() : new PassThrough();
}
