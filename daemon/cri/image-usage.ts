/** What images and the files of containers take on the disk. */
import type { FilesystemUsage } from '../../proto/gen/runtime/v1/api.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import type { Cri } from './cri.ts';
import { KUBERNETES } from './registry.ts';

/** The trees of running containers are walked for it, and kubelet asks every few seconds. */
const LIFE_MS = 10_000;

export class ImageUsage {
  readonly #cri: Cri;
  #last: { readonly usage: FilesystemUsage; readonly until: number } | undefined;
  #reading: Promise<FilesystemUsage> | undefined;

  constructor(cri: Cri) {
    this.#cri = cri;
  }

  /** Measured not longer ago than some seconds. Who comes while it is being measured gets the same. */
  async read(signal: AbortSignal): Promise<FilesystemUsage> {
    signal.throwIfAborted();
    if (this.#last !== undefined && this.#last.until > performance.now()) return this.#last.usage;
    this.#reading ??= this.#measure().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #measure(): Promise<FilesystemUsage> {
    const { distribution, settings, closing } = this.#cri;
    const { snapshotters } = distribution;
    const snapshotter = snapshotters.get(settings.snapshotter);
    let bytes = 0n;
    let inodes = 0n;
    for (const { name } of snapshotter.list(KUBERNETES)) {
      try {
        const usage = await snapshotter.usage(KUBERNETES, name, closing);
        bytes += usage.size;
        inodes += usage.inodes;
      } catch (error) {
        // It has been removed since.
        if (!isCode(error, Code.NotFound)) throw error;
      }
    }
    const usage: FilesystemUsage = {
      timestamp: BigInt(Date.now()) * 1_000_000n,
      fsId: { mountpoint: snapshotters.folder(settings.snapshotter) },
      usedBytes: { value: bytes },
      inodesUsed: { value: inodes },
    };
    this.#last = { usage, until: performance.now() + LIFE_MS };
    return usage;
  }
}
