import { rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { invalidArgument, messageOf, unavailable } from '../../ttrpc/errors.ts';
import { snapshotterNames } from '../metadata/schema.ts';
import type { Backend } from './backend.ts';
import { Btrfs } from './btrfs.ts';
import { LocalSnapshotter, type Surroundings } from './local-snapshotter.ts';
import { Native } from './native.ts';
import { Overlayfs } from './overlayfs.ts';
import type { Snapshotter } from './snapshotter.ts';

type Name = (typeof snapshotterNames)[number];

export const backends: Readonly<Record<Name, { open(root: string): Promise<Backend> }>> = {
  overlayfs: Overlayfs,
  native: Native,
  btrfs: Btrfs,
};

/** Where a snapshotter keeps its files, below the daemon's root directory. */
export const snapshotterRoot = (root: string, name: string): string => join(root, 'snapshots', name);

/** The snapshotters of a daemon, those that this host cannot have with the reason. */
export class Snapshotters {
  readonly #opened = new Map<string, LocalSnapshotter>();
  readonly #failures = new Map<string, Error>();

  /**
   * Opens every snapshotter but the disabled ones.
   *
   * @param root the daemon's root directory
   */
  static async open(
    root: string,
    surroundings: Surroundings,
    isDisabled: (name: string) => boolean = () => false,
  ): Promise<Snapshotters> {
    const snapshotters = new Snapshotters();
    const names = snapshotterNames.filter((name) => !isDisabled(name));
    await Promise.all(names.map((name) => snapshotters.#open(name, root, surroundings)));
    return snapshotters;
  }

  /** @throws RpcError InvalidArgument for a name that is missing or that no snapshotter here has */
  get(name: string): Snapshotter {
    if (name === '') throw invalidArgument('snapshotter argument missing: invalid argument');
    const snapshotter = this.#opened.get(name);
    if (snapshotter === undefined) throw invalidArgument(`snapshotter not loaded: ${name}: invalid argument`);
    return snapshotter;
  }

  /** Those that work. */
  get all(): readonly LocalSnapshotter[] {
    return [...this.#opened.values()];
  }

  /** @throws Error that says why the snapshotter does not work */
  check(name: string): void {
    if (this.#opened.has(name)) return;
    throw this.#failures.get(name) ?? unavailable(`snapshotter ${name} is not there: unavailable`);
  }

  async close(): Promise<void> {
    await Promise.all(this.all.map((snapshotter) => snapshotter.close()));
  }

  async #open(name: Name, root: string, surroundings: Surroundings): Promise<void> {
    const folder = snapshotterRoot(root, name);
    try {
      const backend = await backends[name].open(folder);
      this.#opened.set(name, await LocalSnapshotter.open(name, backend, surroundings));
    } catch (error) {
      const failure = error instanceof Error ? error : new Error(messageOf(error));
      this.#failures.set(name, failure);
      // Nothing is left of one that cannot be used, unless it could be at another time.
      await rmdir(folder).catch(() => undefined);
    }
  }
}
