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

/** Lets nothing change the subvolume at `path` any more, not even what has it mounted. @throws the kernel's error */
export async function makeSubvolumeReadOnly(path: string): Promise<void> {
  await run((cancel) => addon().makeSubvolumeReadOnly(path, cancel));
}

/** Deletes a subvolume with all it holds. @throws ENOTEMPTY when it holds another subvolume, ENOENT */
export async function deleteSubvolume(folder: string, name: string): Promise<void> {
  await run((cancel) => addon().deleteSubvolume(folder, name, cancel));
}

/** The number of the subvolume at `path`, which the mount option `subvolid` takes. @throws ENOTTY when this is no btrfs */
export function subvolumeId(path: string): number {
  return addon().subvolumeId(path);
}
