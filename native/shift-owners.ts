import { chmodSync, closeSync, lchownSync, lstatSync, readdirSync } from 'node:fs';
import { setImmediate as pause } from 'node:timers/promises';
import { mountAside } from './mount-aside.ts';

/** Of the mode bits, those that chown(2) takes away from files. */
const SET_ID = 0o6000;
/** Files between two looks at whether it has been given up; others have their turn then. */
const FILES_AT_ONCE = 200;

/** What is mounted; a filesystem that nobody else writes to. */
interface Mounted {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/**
 * Adds to the owner and group numbers of every file of a filesystem, which is mounted where nobody sees it. Capabilities of files
 * are lost, as by any change of owners.
 *
 * @throws the file system's errors; the signal's reason
 */
export async function shiftOwners(
  { type, source, options }: Mounted,
  by: { readonly uid: number; readonly gid: number },
  signal?: AbortSignal,
): Promise<void> {
  const root = mountAside(source, type, options);
  try {
    await shiftBelow(`/proc/self/fd/${root}/.`, by, signal);
  } finally {
    closeSync(root);
  }
}

/** Nobody else writes to the tree, so that what was a directory is one. */
async function shiftBelow(
  top: string,
  { uid, gid }: { readonly uid: number; readonly gid: number },
  signal: AbortSignal | undefined,
): Promise<void> {
  const waiting = [top];
  const linked = new Set<bigint>();
  for (let count = 1; waiting.length > 0; count += 1) {
    const path = waiting.pop()!;
    const file = lstatSync(path, { bigint: true });
    if (file.isDirectory()) for (const name of readdirSync(path)) waiting.push(`${path}/${name}`);
    // A file of several names is shifted once.
    else if (file.nlink > 1n && linked.has(file.ino)) continue;
    else if (file.nlink > 1n) linked.add(file.ino);
    lchownSync(path, Number(file.uid) + uid, Number(file.gid) + gid);
    const mode = Number(file.mode) & 0o7777;
    if (file.isFile() && (mode & SET_ID) !== 0) chmodSync(path, mode);
    if (count % FILES_AT_ONCE === 0) {
      await pause();
      signal?.throwIfAborted();
    }
  }
}
