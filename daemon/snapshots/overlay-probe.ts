import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { constants, mount, removeTree, unmount } from '../../native/native.ts';
import { messageOf } from '../../ttrpc/errors.ts';

/**
 * Tries whether overlays over folders below `root` work, by a mount that is gone afterwards.
 *
 * @throws Error that says what is missing
 */
export async function probeOverlay(root: string): Promise<void> {
  // In the options of a mount these stand between folders, between options, and before such a character.
  if (/[:,\\]/.test(root))
    throw new Error(`overlayfs cannot be used on ${root}: its path has a colon, comma or backslash`);
  const folder = join(root, 'probe');
  const merged = join(folder, 'merged');
  await removeProbe(folder, merged);
  try {
    for (const name of ['lower', 'upper', 'work', 'merged'])
      await mkdir(join(folder, name), { recursive: true });
    await mkdir(join(folder, 'lower/below/file'), { recursive: true });
    await mkdir(join(folder, 'lower/above'));
    mountOverlay(folder, merged);
    await checkFileTypes(root, merged);
  } finally {
    await removeProbe(folder, merged);
  }
}

/** Two lower folders, as images have several. */
function mountOverlay(folder: string, merged: string): void {
  const at = (name: string): string => join(folder, name);
  const lower = `lowerdir=${at('lower/above')}:${at('lower/below')}`;
  const data = `${lower},upperdir=${at('upper')},workdir=${at('work')}`;
  try {
    mount('overlay', merged, 'overlay', constants.MS_NOSUID | constants.MS_NODEV, data);
  } catch (error) {
    throw new Error(`overlayfs cannot be used on ${folder}: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * An overlay hides a deleted file by a node of a special type, and lists what is hidden when the filesystem below does not tell types
 * (d_type of readdir(3)).
 */
async function checkFileTypes(root: string, merged: string): Promise<void> {
  await writeFile(join(merged, 'new'), '');
  await rm(join(merged, 'file'), { recursive: true });
  const names = await readdir(merged);
  if (names.includes('new') && !names.includes('file')) return;
  throw new Error(
    `${root} does not support d_type: an overlay on it shows deleted files. An XFS has to be made with ftype=1`,
  );
}

async function removeProbe(folder: string, merged: string): Promise<void> {
  if (!existsSync(folder)) return;
  try {
    unmount(merged, constants.MNT_DETACH | constants.UMOUNT_NOFOLLOW);
  } catch (error) {
    // EINVAL: nothing is mounted there (umount(2)).
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EINVAL' && code !== 'ENOENT') throw error;
  }
  await removeTree(folder);
}
