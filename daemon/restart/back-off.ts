/** How long to wait before a container that keeps ending is started again. */

/** Milliseconds before the first start, and at most. */
export const FIRST_DELAY_MS = 100;
export const MAX_DELAY_MS = 60_000;
/** Milliseconds after which a container counts as healthy, so that its next end is a first one. */
export const HEALTHY_AFTER_MS = 10_000;

/** Doubles the wait with each failure, from the first delay to the longest. */
export class BackOff {
  #delay = 0;
  #startedAt: number | undefined;

  /** The last wait, in milliseconds; 0 when there was none yet. */
  get delay(): number {
    return this.#delay;
  }

  /** Whether the container has been started before. */
  get hasStarted(): boolean {
    return this.#startedAt !== undefined;
  }

  /** It has been started, at `now` (milliseconds of any clock that goes on). */
  started(now: number): void {
    this.#startedAt = now;
  }

  /** It has ended, or could not be started. @returns milliseconds to wait */
  next(now: number): number {
    const isHealthy = this.#startedAt === undefined || now - this.#startedAt >= HEALTHY_AFTER_MS;
    const isFirst = this.#delay === 0 || (isHealthy && this.hasStarted);
    this.#delay = isFirst ? FIRST_DELAY_MS : Math.min(this.#delay * 2, MAX_DELAY_MS);
    return this.#delay;
  }

  /** A start has failed. @returns milliseconds to wait */
  failed(): number {
    this.#startedAt = undefined;
    this.#delay = Math.min(Math.max(this.#delay * 2, FIRST_DELAY_MS), MAX_DELAY_MS);
    return this.#delay;
  }
}
