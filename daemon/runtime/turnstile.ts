/** Limits how many operations run at once. */
import { abortion } from '../../ttrpc/deadline.ts';

/** Lets a limited number of operations run at once; the others wait in the order they came. */
export class Turnstile {
  readonly #limit: number;
  #inside = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Runs `operation` when it is its turn.
   * @throws RpcError when the signal is aborted while waiting; once begun, the operation is not interrupted.
   */
  async pass<T>(operation: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.#enter(signal);
    try {
      return await operation();
    } finally {
      this.#leave();
    }
  }

  async #enter(signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted === true) throw abortion(signal);
    if (this.#inside < this.#limit) {
      this.#inside += 1;
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const abandon = () => {
      const at = this.#waiting.indexOf(resolve);
      if (at < 0) return;
      this.#waiting.splice(at, 1);
      reject(abortion(signal!));
    };
    this.#waiting.push(resolve);
    signal?.addEventListener('abort', abandon, { once: true });
    try {
      await promise;
    } finally {
      signal?.removeEventListener('abort', abandon);
    }
  }

  /** The place goes to the next in line without ever being free, so that nobody overtakes. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#inside -= 1;
    else next();
  }
}
