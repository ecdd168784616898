/** Snapshots by btrfs: each is a subvolume, and begins as the filesystem's own snapshot of its parent. */
import { chmod, mkdir, readFile, realpath } from 'node:fs/promises';
import {
  createSubvolume,
  deleteSubvolume,
  removeTree,
  setSubvolumeReadOnly,
  snapshotSubvolume,
  statfsType,
  subvolumeId,
  treeUsage,
} from '../../native/native.ts';
import type { Backend, Place } from './backend.ts';
import { Kind, type Mount, type Usage } from './snapshotter.ts';

/** `f_type` of statfs(2). */
const BTRFS_MAGIC = 0x9123683e;

export class Btrfs implements Backend {
  readonly root: string;
  readonly #device: string;

  private constructor(root: string, device: string) {
    this.root = root;
    this.#device = device;
  }

  /** @throws Error that ends in `skip plugin` when `root` is not on a btrfs: clients know by that word that nothing is wrong */
  static async open(root: string): Promise<Btrfs> {
    await mkdir(root, { recursive: true, mode: 0o700 });
    const { type, source } = mountOf(await realpath(root), await readFile('/proc/self/mountinfo', 'latin1'));
    if (statfsType(root) !== BTRFS_MAGIC) {
      throw new Error(
        `path ${root} (${type}) must be a btrfs filesystem to be used with the btrfs snapshotter: skip plugin`,
      );
    }
    return new Btrfs(root, source);
  }

  async create({ id, kind, ancestors: [parent] }: Place): Promise<void> {
    if (parent === undefined) {
      await createSubvolume(this.root, String(id));
      // Whatever the umask is.
      await chmod(this.#folder(id), 0o755);
    } else {
      await snapshotSubvolume(this.#folder(parent), this.root, String(id), kind === Kind.VIEW);
    }
  }

  mounts({ id, kind }: Place): Mount[] {
    const subvolume = `subvolid=${subvolumeId(this.#folder(id))}`;
    const options = kind === Kind.VIEW ? [subvolume, 'ro'] : [subvolume];
    return [{ type: 'btrfs', source: this.#device, target: '', options }];
  }

  async usage({ id, ancestors: [parent] }: Place, signal?: AbortSignal): Promise<Usage> {
    const base = parent === undefined ? undefined : this.#folder(parent);
    const { size, inodes } = await treeUsage(this.#folder(id), base, signal);
    return { size: BigInt(size), inodes: BigInt(inodes) };
  }

  seal(id: number): Promise<void> {
    return setSubvolumeReadOnly(this.#folder(id), true);
  }

  hasFolder(): boolean {
    return true;
  }

  async remove(id: number, signal?: AbortSignal): Promise<void> {
    try {
      await deleteSubvolume(this.root, String(id));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return;
      // It holds subvolumes that were made inside; a folder is none at all.
      if (code !== 'ENOTEMPTY' && code !== 'EINVAL') throw error;
      if (code === 'ENOTEMPTY') await setSubvolumeReadOnly(this.#folder(id), false);
      await removeTree(this.#folder(id), signal);
    }
  }

  #folder(id: number): string {
    return `${this.root}/${id}`;
  }
}

/** The mount that holds a path. Format: proc_pid_mountinfo(5). */
export function mountOf(path: string, mountinfo: string): { type: string; source: string } {
  let longest = '';
  let found = { type: '', source: '' };
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ');
    const target = unescape(before?.split(' ')[4] ?? '');
    // Of those at one place, the last is what is seen.
    if (after === undefined || target.length < longest.length || !isWithin(path, target)) continue;
    longest = target;
    const [type = '', source = ''] = after.split(' ');
    found = { type, source: unescape(source) };
  }
  return found;
}

function isWithin(path: string, folder: string): boolean {
  return folder === '/' || path === folder || path.startsWith(`${folder}/`);
}

/** Spaces and the like are written as `\040`. The file was read as bytes; its paths are UTF-8. */
function unescape(field: string): string {
  const bytes = field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return Buffer.from(bytes, 'latin1').toString();
}
