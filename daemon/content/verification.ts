import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { messageOf } from '../../ttrpc/errors.ts';
import { type Digest, splitDigest } from './digest.ts';
import { isMissing } from './storage-error.ts';

/** Bytes read at a time. */
const CHUNK = 1 << 20;

/** Reads a blob's file whole. @returns what is wrong with its bytes; undefined when nothing is, or there is no file */
export async function mistakeInBlob(path: string, digest: Digest): Promise<string | undefined> {
  const { algorithm, encoded } = splitDigest(digest);
  const hash = createHash(algorithm);
  try {
    await pipeline(createReadStream(path, { highWaterMark: CHUNK }), hash);
  } catch (error) {
    return isMissing(error) ? undefined : `it cannot be read: ${messageOf(error)}`;
  }
  const found = hash.digest('hex');
  return found === encoded ? undefined : `its bytes are those of ${algorithm}:${found}`;
}
