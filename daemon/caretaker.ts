/** Looks after what others may remove under a running daemon, as a wrong rule of tmpfiles does: its sockets, its state directory. */
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../ttrpc/errors.ts';
import type { Logger } from './log.ts';

/** Something that is to be where it is as long as the daemon runs. */
export interface Charge {
  /** For the log. */
  readonly what: string;
  readonly isThere: () => boolean;
  /** Makes it again. @throws Error that says why that cannot be */
  readonly restore: () => Promise<void>;
}

/** Milliseconds between two looks. One costs some calls of stat(2); a watch (inotify(7)) would not see a directory above being moved. */
const ROUND_MS = 1000;

export class Caretaker implements AsyncDisposable {
  readonly #charges: readonly Charge[];
  readonly #log: Logger;
  readonly #stop = new AbortController();
  #rounds: Promise<void> | undefined;
  /** Those that could not be restored so far, which has been said. */
  readonly #given = new Set<Charge>();

  /** @param charges the first is restored before the others, which may be in it */
  constructor(charges: readonly Charge[], log: Logger) {
    this.#charges = charges;
    this.#log = log;
  }

  start(): void {
    this.#rounds = this.#goRound();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#rounds;
  }

  async #goRound(): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      await sleep(ROUND_MS, undefined, { ref: false, signal }).catch(() => undefined);
      for (const charge of this.#charges) {
        if (signal.aborted) return;
        await this.#lookAfter(charge);
      }
    }
  }

  async #lookAfter(charge: Charge): Promise<void> {
    const { what } = charge;
    try {
      if (charge.isThere()) return;
      await charge.restore();
      this.#given.delete(charge);
      this.#log.warn(`${what} had been removed by others, and is there again`);
    } catch (error) {
      if (!this.#given.has(charge))
        this.#log.error(
          { error: messageOf(error) },
          `${what} has been removed by others, and cannot be restored`,
        );
      this.#given.add(charge);
    }
  }
}
