/** Writers exclude each other: one at a time for a ref. */
import { setTimeout as delay } from 'node:timers/promises';
import { unavailable } from '../../ttrpc/errors.ts';

/**
 * How long a writer waits for the one before it, in milliseconds. Long enough for one whose client is gone to be closed;
 * containerd's tries go on for half a second on average.
 */
const PATIENCE = 500;

interface Held {
  /** For the message; what has passed since then the other clock tells. */
  readonly since: Date;
  readonly begin: number;
  readonly released: Promise<void>;
}

export class RefLocks {
  readonly #held = new Map<string, Held>();

  isHeld(key: string): boolean {
    return this.#held.has(key);
  }

  /**
   * Takes the lock, waiting a moment for it.
   *
   * @param ref for the message
   * @throws RpcError Unavailable when another keeps it; what the signal was aborted with
   */
  async take(key: string, ref: string, signal?: AbortSignal): Promise<Disposable> {
    const end = performance.now() + PATIENCE;
    for (let held = this.#held.get(key); held !== undefined; held = this.#held.get(key)) {
      signal?.throwIfAborted();
      const left = end - performance.now();
      if (left <= 0) throw locked(ref, held);
      const over = new AbortController();
      const timer = delay(left, undefined, { signal: over.signal }).catch(() => undefined);
      await Promise.race([held.released, timer]);
      over.abort();
    }
    return this.#take(key);
  }

  #take(key: string): Disposable {
    const { promise, resolve } = Promise.withResolvers<void>();
    const held = { since: new Date(), begin: performance.now(), released: promise };
    this.#held.set(key, held);
    return {
      [Symbol.dispose]: () => {
        // Once: by then it may be another's.
        if (this.#held.get(key) === held) this.#held.delete(key);
        resolve();
      },
    };
  }
}

function locked(ref: string, { since, begin }: Held): Error {
  const seconds = Math.round(performance.now() - begin) / 1000;
  return unavailable(`ref ${ref} locked for ${seconds}s (since ${since.toISOString()}): unavailable`);
}
