/** A copy of the metadata, made at any time: LMDB's readers see one moment, whatever the daemon writes meanwhile. */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { open, type RootDatabase } from 'lmdb';
import { checkFormat } from './database.ts';
import { checkHeader } from './header.ts';

/**
 * Copies a metadata directory, also that of a running daemon, and reads the copy from end to end.
 *
 * @param from `<root>/metadata`
 * @param to a directory, which must not exist; it can take the other's place
 * @returns how many records there are
 * @throws Error that says what is wrong with either; nothing is left of a copy that cannot be read
 */
export async function backup(from: string, to: string): Promise<number> {
  if (!checkHeader(from)) throw new Error(`there is no metadata in ${from}`);
  if (existsSync(to)) throw new Error(`${to} is there already`);
  mkdirSync(to, { recursive: true, mode: 0o700 });
  try {
    const store = open({ path: from, encoding: 'binary', overlappingSync: false, readOnly: true });
    try {
      await store.backup(to, true);
    } finally {
      await store.close();
    }
    return await count(to);
  } catch (error) {
    rmSync(to, { recursive: true });
    throw error;
  }
}

/** Reads every record. @throws Error for one that cannot be read, and for a format that this version does not know */
async function count(directory: string): Promise<number> {
  const store: RootDatabase<Buffer, string[]> = open({
    path: directory,
    encoding: 'binary',
    overlappingSync: false,
    readOnly: true,
  });
  try {
    if (!checkFormat(store, directory)) throw new Error(`${directory} is no metadata of Moor's`);
    let records = 0;
    for (const { key } of store.getRange({})) if (key.length > 0) records += 1;
    return records;
  } finally {
    await store.close();
  }
}
