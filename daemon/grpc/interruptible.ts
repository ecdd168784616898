/**
 * Waits for one promise after another, or for the signal. `Promise.race` would do, but it leaves something behind on the longest
 * lived of its promises each time, and a subscription waits millions of times.
 */
export class Interruptible {
  readonly #signal: AbortSignal;
  #reject: ((reason: unknown) => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener('abort', this.#interrupt);
  }

  /** @throws what the promise rejects with, or what the signal is aborted with */
  wait<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      promise.then(resolve, reject);
      if (this.#signal.aborted) this.#interrupt();
    });
  }

  close(): void {
    this.#signal.removeEventListener('abort', this.#interrupt);
  }

  readonly #interrupt = (): void => this.#reject?.(this.#signal.reason);
}
