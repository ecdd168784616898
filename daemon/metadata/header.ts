import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

/** At the head of the first page, behind the page's own 24 bytes (lmdb.h, MDB_MAGIC). */
const MAGIC = 0xbeefc0de;
const MAGIC_AT = 24;
const LENGTH = MAGIC_AT + 4;

/**
 * Looks whether the directory's file is LMDB's, as lmdb (3.5.6) ends the whole process with a segmentation fault when it is not.
 *
 * @returns whether there is a database yet
 * @throws Error for a file that is something else
 */
export function checkHeader(directory: string): boolean {
  const path = join(directory, 'data.mdb');
  const header = Buffer.alloc(LENGTH);
  let length: number;
  try {
    const fd = openSync(path, 'r');
    try {
      length = readSync(fd, header);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  // A new one has no length until its first pages are written.
  if (length === 0) return false;
  if (length < LENGTH || header.readUInt32LE(MAGIC_AT) !== MAGIC)
    throw new Error(`${path} is damaged: it is no database; put a backup in the place of ${directory}`);
  return true;
}
