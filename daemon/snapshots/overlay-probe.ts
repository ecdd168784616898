import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { constants, mount, unmount } from '../../native/native.ts';
import { messageOf } from '../../ttrpc/errors.ts';

/**
 * Tries whether overlays over folders below `root` work, by a mount that is gone afterwards. That takes some ten milliseconds of a start,
 * so it is done once a boot where there is a record: a daemon that comes back believes the one before it.
 *
 * @param record a file that says where the last probe that went well was made; none is kept without it
 * @throws Error that says what is missing
 */
export function probeOverlay(root: string, record?: string): void {
  // In the options of a mount these stand between folders, between options, and before such a character.
  if (/[:,\\]/.test(root))
    throw new Error(`overlayfs cannot be used on ${root}: its path has a colon, comma or backslash`);
  if (record === undefined) return probe(root);
  const circumstances = circumstancesOf(root);
  if (existsSync(record) && readFileSync(record, 'utf8') === circumstances) return;
  probe(root);
  try {
    mkdirSync(dirname(record), { recursive: true, mode: 0o700 });
    writeFileSync(record, circumstances, { mode: 0o600 });
  } catch {
    // On a disk that has just become full: the next daemon tries again.
  }
}

/** What the outcome hangs on: the running kernel, the file system below, and the user namespace, in which one may mount or not. */
function circumstancesOf(root: string): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const { dev, ino } = statSync(root);
  return `boot ${boot}\nfolder ${root} (${ino} on ${dev})\n${readlinkSync('/proc/self/ns/user')}\n`;
}

function probe(root: string): void {
  const folder = join(root, 'probe');
  removeProbe(folder);
  try {
    for (const name of ['above', 'below/file', 'upper', 'work', 'merged'])
      mkdirSync(join(folder, name), { recursive: true });
    mountOverlay(folder);
    checkFileTypes(root, join(folder, 'merged'));
  } finally {
    removeProbe(folder);
  }
}

/** Two lower folders, as images have several. */
function mountOverlay(folder: string): void {
  const at = (name: string): string => join(folder, name);
  const flags = constants.MS_NOSUID | constants.MS_NODEV;
  const data = `lowerdir=${at('above')}:${at('below')},upperdir=${at('upper')},workdir=${at('work')}`;
  try {
    try {
      // Without it, unmounting waits until the whole filesystem below is on its disk. Linux 5.10 and later know it.
      mount('overlay', at('merged'), 'overlay', flags, `${data},volatile`);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      mount('overlay', at('merged'), 'overlay', flags, data);
    }
  } catch (error) {
    throw new Error(`overlayfs cannot be used on ${folder}: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * An overlay hides a deleted file by a node of a special type, and lists what is hidden when the filesystem below does not tell types
 * (d_type of readdir(3)).
 */
function checkFileTypes(root: string, merged: string): void {
  writeFileSync(join(merged, 'new'), '');
  rmdirSync(join(merged, 'file'));
  const names = readdirSync(merged);
  if (names.includes('new') && !names.includes('file')) return;
  throw new Error(
    `${root} does not support d_type: an overlay on it shows deleted files. An XFS has to be made with ftype=1`,
  );
}

function removeProbe(folder: string): void {
  if (!existsSync(folder)) return;
  try {
    unmount(join(folder, 'merged'), constants.MNT_DETACH | constants.UMOUNT_NOFOLLOW);
  } catch (error) {
    // EINVAL: nothing is mounted there (umount(2)).
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EINVAL' && code !== 'ENOENT') throw error;
  }
  rmSync(folder, { recursive: true });
}
