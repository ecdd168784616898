import { rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { invalidArgument, messageOf, unavailable } from '../../ttrpc/errors.ts';
import type { GcResource } from '../gc/resource.ts';
import { snapshottersIn } from '../metadata/namespaces.ts';
import type { Backend } from './backend.ts';
import { Btrfs } from './btrfs.ts';
import { type SnapshotOwner, snapshotResource } from './gc-resource.ts';
import { LocalSnapshotter, type Surroundings } from './local-snapshotter.ts';
import { Native } from './native.ts';
import { Overlayfs } from './overlayfs.ts';
import type { Snapshotter } from './snapshotter.ts';
import { SnapshotTree } from './tree.ts';

/** What the configuration says of those that are built in. */
export interface SnapshotterSettings {
  /** Where the files are, if elsewhere than below the daemon's root directory. */
  readonly root_path: string;
  readonly mount_options?: readonly string[];
  readonly upperdir_label?: boolean;
  readonly sync_remove?: boolean;
}

/** Those that are built in. */
export const snapshotterNames = ['overlayfs', 'native', 'btrfs'] as const;
export type SnapshotterName = (typeof snapshotterNames)[number];

export const backends: {
  /** @param probed a file for what has been found out of the host, if it is to be remembered */
  readonly [N in SnapshotterName]: (
    root: string,
    settings?: SnapshotterSettings,
    probed?: string,
  ) => Promise<Backend>;
} = {
  overlayfs: (root, settings, probed) =>
    Overlayfs.open(root, { options: settings?.mount_options, label: settings?.upperdir_label, probed }),
  native: (root) => Native.open(root),
  btrfs: (root) => Btrfs.open(root),
};

/** A snapshotter as the daemon keeps it. */
export interface OwnedSnapshotter extends Snapshotter, SnapshotOwner {
  readonly tree: SnapshotTree;
}

export interface SnapshottersOptions {
  readonly isDisabled?: (name: SnapshotterName) => boolean;
  readonly settings?: (name: SnapshotterName) => SnapshotterSettings;
  /** Further ones, by functions that make them. Their names are not those of built-in ones. */
  readonly more?: { readonly [name: string]: (surroundings: Surroundings) => Promise<OwnedSnapshotter> };
}

/** Where a snapshotter keeps its files. */
export const snapshotterRoot = (root: string, name: string, settings?: SnapshotterSettings): string =>
  settings?.root_path || join(root, 'snapshots', name);

/** The snapshotters of a daemon, those that this host cannot have with the reason. */
export class Snapshotters {
  readonly #opened = new Map<string, OwnedSnapshotter>();
  readonly #failures = new Map<string, Error>();
  readonly #folders = new Map<string, string>();

  /**
   * Opens every snapshotter but the disabled ones.
   *
   * @param root the daemon's root directory
   */
  static async open(
    root: string,
    surroundings: Surroundings,
    { isDisabled = () => false, settings = () => ({ root_path: '' }), more = {} }: SnapshottersOptions = {},
  ): Promise<Snapshotters> {
    const snapshotters = new Snapshotters();
    const names = snapshotterNames.filter((name) => !isDisabled(name));
    await Promise.all([
      ...names.map((name) => snapshotters.#openLocal(name, root, settings(name), surroundings)),
      ...Object.entries(more).map(([name, open]) => snapshotters.#open(name, () => open(surroundings))),
    ]);
    return snapshotters;
  }

  /** @throws RpcError InvalidArgument for a name that is missing or that no snapshotter here has */
  get(name: string): Snapshotter {
    if (name === '') throw invalidArgument('snapshotter argument missing: invalid argument');
    const snapshotter = this.#opened.get(name);
    if (snapshotter === undefined) throw invalidArgument(`snapshotter not loaded: ${name}: invalid argument`);
    return snapshotter;
  }

  /** Where a snapshotter of this daemon's own keeps its files; empty for another's. */
  folder(name: string): string {
    return this.#folders.get(name) ?? '';
  }

  /** Those that work. */
  get all(): readonly OwnedSnapshotter[] {
    return [...this.#opened.values()];
  }

  /** What takes part in garbage collection: those that work, and those that have been here before and left records. */
  resources({ database }: Pick<Surroundings, 'database'>): GcResource[] {
    const away = snapshottersIn(database).filter((name) => !this.#opened.has(name));
    return [
      ...this.all.map((snapshotter) => snapshotResource(snapshotter.tree, snapshotter)),
      ...away.map((name) => snapshotResource(new SnapshotTree(database, name))),
    ];
  }

  /** @throws Error that says why the snapshotter does not work */
  check(name: string): void {
    if (this.#opened.has(name)) return;
    throw this.#failures.get(name) ?? unavailable(`snapshotter ${name} is not there: unavailable`);
  }

  async close(): Promise<void> {
    await Promise.all(this.all.map((snapshotter) => snapshotter.close()));
  }

  async #openLocal(
    name: SnapshotterName,
    root: string,
    settings: SnapshotterSettings,
    surroundings: Surroundings,
  ): Promise<void> {
    const folder = snapshotterRoot(root, name, settings);
    this.#folders.set(name, folder);
    await this.#open(name, async () => {
      try {
        const backend = await backends[name](folder, settings, `${snapshotterRoot(root, name)}.probed`);
        return await LocalSnapshotter.open(name, backend, surroundings, settings.sync_remove);
      } catch (error) {
        // Nothing is left of one that cannot be used, unless it could be at another time.
        await rmdir(folder).catch(() => undefined);
        throw error;
      }
    });
  }

  async #open(name: string, open: () => Promise<OwnedSnapshotter>): Promise<void> {
    try {
      this.#opened.set(name, await open());
    } catch (error) {
      this.#failures.set(name, error instanceof Error ? error : new Error(messageOf(error)));
    }
  }
}
