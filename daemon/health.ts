/** Whether the daemon takes work. */
import { setMaxListeners } from 'node:events';

export class Health {
  readonly #stopped = new AbortController();

  constructor() {
    setMaxListeners(0, this.#stopped.signal);
  }

  get serving(): boolean {
    return !this.#stopped.signal.aborted;
  }

  /** Aborted when the daemon begins to stop. */
  get stopped(): AbortSignal {
    return this.#stopped.signal;
  }

  /** The daemon takes no new work from now on. */
  stop(): void {
    this.#stopped.abort();
  }
}
