import { messageOf } from '../../ttrpc/errors.ts';
import { reached } from '../failpoint.ts';
import type { Logger } from '../log.ts';
import type { Backend } from './backend.ts';

/**
 * Removes the files of snapshots that have no record, in the background and one after the other, so that the disk is free for who
 * waits. What cannot be removed is tried again when it is added again.
 */
export class Reclaimer {
  readonly #backend: Backend;
  readonly #log: Logger;
  readonly #queue = new Set<number>();
  readonly #stop = new AbortController();
  #working: Promise<void> = Promise.resolve();

  constructor(backend: Backend, log: Logger) {
    this.#backend = backend;
    this.#log = log;
  }

  /** Takes on snapshots that nobody will use again. */
  add(ids: Iterable<number>): void {
    const isIdle = this.#queue.size === 0;
    for (const id of ids) this.#queue.add(id);
    if (isIdle) this.#working = this.#work();
  }

  /** Resolves when there is nothing left to do. */
  settled(): Promise<void> {
    return this.#working;
  }

  /** Stops where it is. What is left is found at the next start. */
  close(): Promise<void> {
    this.#stop.abort();
    return this.#working;
  }

  async #work(): Promise<void> {
    const { signal } = this.#stop;
    for (const id of this.#queue) {
      if (signal.aborted) return;
      try {
        await this.#backend.remove(id, signal);
        reached('snapshot-removed');
      } catch (error) {
        if (!signal.aborted) {
          this.#log.warn(
            { root: this.#backend.root, id, error: messageOf(error) },
            'files of a removed snapshot are still there',
          );
        }
      }
      this.#queue.delete(id);
    }
  }
}
