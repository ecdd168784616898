/** Snapshots by copying: each is a whole tree. For where nothing better works. */
import { chmod, mkdir } from 'node:fs/promises';
import { copyTree, removeTree, treeUsage } from '../../native/native.ts';
import type { Backend, Place } from './backend.ts';
import { Kind, type Mount, type Usage } from './snapshotter.ts';

export class Native implements Backend {
  readonly root: string;

  private constructor(root: string) {
    this.root = root;
  }

  static async open(root: string): Promise<Native> {
    await mkdir(root, { recursive: true, mode: 0o700 });
    return new Native(root);
  }

  async create(place: Place, signal?: AbortSignal): Promise<void> {
    if (!this.hasFolder(place)) return;
    const folder = this.#folder(place.id);
    await mkdir(folder, 0o755);
    // Whatever the umask is.
    await chmod(folder, 0o755);
    const parent = place.ancestors[0];
    if (parent !== undefined) await copyTree(this.#folder(parent), folder, signal);
  }

  mounts(place: Place): Mount[] {
    const source = this.#folder(this.hasFolder(place) ? place.id : place.ancestors[0]!);
    const options = ['rbind', place.kind === Kind.VIEW ? 'ro' : 'rw'];
    return [{ type: 'bind', source, target: '', options }];
  }

  async usage({ id }: Place, signal?: AbortSignal): Promise<Usage> {
    const { size, inodes } = await treeUsage(this.#folder(id), undefined, signal);
    return { size: BigInt(size), inodes: BigInt(inodes) };
  }

  /** A view shows its parent's. */
  hasFolder({ kind, ancestors }: Place): boolean {
    return kind !== Kind.VIEW || ancestors.length === 0;
  }

  remove(id: number, signal?: AbortSignal): Promise<void> {
    return removeTree(this.#folder(id), signal);
  }

  #folder(id: number): string {
    return `${this.root}/${id}`;
  }
}
