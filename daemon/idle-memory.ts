/** Hands memory back in quiet times. */
import { performance } from 'node:perf_hooks';
import { releaseMemory } from '../native/native.ts';

/** Milliseconds between two looks. */
const PACE = 10_000;

/** Of the time since the last look, what the event loop may have been at work for it to have been quiet. */
const QUIET = 0.05;

/** Bytes by which memory must have grown: handing it back takes the event loop 30 to 90 ms. */
const WORTHWHILE = 12 << 20;

/** The process, as this sees it. */
export interface Household {
  /** The share of time that the event loop was at work, since it was asked last. */
  utilization(): number;
  /** Bytes. */
  resident(): number;
  release(): void;
}

/**
 * V8 and malloc keep what busy times have taken: after a thousand containers the daemon has 100 MiB that hold nothing, and V8 alone
 * would have them until they are needed. Once the daemon has little to do, that is collected and handed back.
 */
export class IdleMemory implements Disposable {
  readonly #household: Household;
  readonly #timer: NodeJS.Timeout;
  /** What was left when memory was handed back last. */
  #floor = 0;

  constructor(household = thisProcess(), pace = PACE) {
    this.#household = household;
    this.#timer = setInterval(() => this.#look(), pace);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const household = this.#household;
    if (household.utilization() > QUIET || household.resident() < this.#floor + WORTHWHILE) return;
    household.release();
    this.#floor = household.resident();
  }
}

function thisProcess(): Household {
  let last = performance.eventLoopUtilization();
  return {
    utilization() {
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, last);
      last = now;
      return utilization;
    },
    resident: () => process.memoryUsage.rss(),
    release: releaseMemory,
  };
}
