import { addon } from './addon.ts';
import { run } from './tree.ts';

/** Makes the btrfs subvolume `name` in a folder. @throws EEXIST, ENOTTY when this is no btrfs */
export async function createSubvolume(folder: string, name: string): Promise<void> {
  await run((cancel) => addon().createSubvolume(folder, name, cancel));
}

/** Makes the subvolume `name` in a folder, with the content of the subvolume `from`. @throws the kernel's error */
export async function snapshotSubvolume(
  from: string,
  folder: string,
  name: string,
  readOnly: boolean,
): Promise<void> {
  await run((cancel) => addon().snapshotSubvolume(from, folder, name, readOnly, cancel));
}

/**
 * Lets nothing change the subvolume at `path` any more, not even what has it mounted, or lets it be changed again.
 *
 * @throws the kernel's error
 */
export async function setSubvolumeReadOnly(path: string, on: boolean): Promise<void> {
  await run((cancel) => addon().setSubvolumeReadOnly(path, on, cancel));
}

/** Deletes a subvolume with all it holds. @throws ENOTEMPTY when it holds another subvolume, ENOENT */
export async function deleteSubvolume(folder: string, name: string): Promise<void> {
  await run((cancel) => addon().deleteSubvolume(folder, name, cancel));
}

/** The number of the subvolume at `path`, which the mount option `subvolid` takes. @throws ENOTTY when this is no btrfs */
export function subvolumeId(path: string): number {
  return addon().subvolumeId(path);
}
