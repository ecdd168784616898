/**
 * Snapshots by the kernel's overlay filesystem: each has a folder of what it adds to its ancestors, and all of them are mounted over
 * one another.
 */
import { chmodSync, chownSync, existsSync, lstatSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { removeTree, treeUsage } from '../../native/native.ts';
import type { Backend, Place } from './backend.ts';
import { probeOverlay } from './overlay-probe.ts';
import { Kind, type Mount, type Usage } from './snapshotter.ts';

export interface OverlayOptions {
  /** Options that every mount gets. */
  readonly options?: readonly string[] | undefined;
  /** Whether clients see in a label where the files are that a snapshot adds. */
  readonly label?: boolean | undefined;
  /** A file that says that overlays have been found to work here. */
  readonly probed?: string | undefined;
}

const UPPER_LABEL = 'containerd.io/snapshot/overlay.upperdir';

const ROOT = { uid: 0, gid: 0 };

export class Overlayfs implements Backend {
  readonly root: string;
  /** Options that every mount has. */
  readonly #options: readonly string[];

  readonly #label: boolean;

  private constructor(root: string, options: readonly string[], label: boolean) {
    this.root = root;
    this.#label = label;
    this.#options = options;
  }

  /** @throws Error when the kernel or the filesystem below cannot do it */
  static async open(
    root: string,
    { options = [], label = false, probed }: OverlayOptions = {},
  ): Promise<Overlayfs> {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    probeOverlay(root, probed);
    // An index makes the kernel refuse layers that another mount uses (Documentation/filesystems/overlayfs.rst), as views of an active
    // snapshot's parents do. Kernels that have none do not know the option.
    const hasIndex = existsSync('/sys/module/overlay/parameters/index');
    const setsIndex = options.some((option) => option.startsWith('index='));
    return new Overlayfs(root, hasIndex && !setsIndex ? ['index=off', ...options] : options, label);
  }

  /**
   * On this thread: a few calls that take microseconds, on the way of every container that starts, and the record that follows is
   * written on this thread as well.
   */
  async create({ id, kind, ancestors: [parent] }: Place): Promise<void> {
    mkdirSync(`${this.root}/${id}`, 0o700);
    const files = this.#files(id);
    mkdirSync(files, 0o755);
    // Whatever the umask is.
    chmodSync(files, 0o755);
    // The folder is what is seen as the root of the mount, so it belongs to who owns the parent's.
    const { uid, gid } = parent === undefined ? ROOT : lstatSync(this.#files(parent));
    if (uid !== ROOT.uid || gid !== ROOT.gid) chownSync(files, uid, gid);
    if (kind === Kind.ACTIVE) mkdirSync(this.#work(id), 0o711);
  }

  mounts({ id, kind, ancestors }: Place): Mount[] {
    const isView = kind === Kind.VIEW;
    // The kernel refuses an overlay of a single folder that is not written to, and two are not needed to show one.
    if (ancestors.length === 0) return [bind(this.#files(id), isView ? 'ro' : 'rw')];
    if (isView && ancestors.length === 1) return [bind(this.#files(ancestors[0]!), 'ro')];
    const upper = isView ? [] : [`workdir=${this.#work(id)}`, `upperdir=${this.#files(id)}`];
    const lower = ancestors.map((ancestor) => this.#files(ancestor)).join(':');
    const options = [...this.#options, ...upper, `lowerdir=${lower}`];
    return [{ type: 'overlay', source: 'overlay', target: '', options }];
  }

  async usage({ id }: Place, signal?: AbortSignal): Promise<Usage> {
    const { size, inodes } = await treeUsage(this.#files(id), undefined, signal);
    return { size: BigInt(size), inodes: BigInt(inodes) };
  }

  labels({ id, kind }: Place): { readonly [key: string]: string } {
    return this.#label && kind !== Kind.VIEW ? { [UPPER_LABEL]: this.#files(id) } : {};
  }

  hasFolder(): boolean {
    return true;
  }

  remove(id: number, signal?: AbortSignal): Promise<void> {
    return removeTree(join(this.root, String(id)), signal);
  }

  #files(id: number): string {
    return `${this.root}/${id}/fs`;
  }

  #work(id: number): string {
    return `${this.root}/${id}/work`;
  }
}

function bind(source: string, access: 'ro' | 'rw'): Mount {
  return { type: 'bind', source, target: '', options: [access, 'rbind'] };
}
