/** How fast something is used now, from what had been used by two moments. */

/** Nearer to each other than that, two samples say nothing. */
const LEAST_MS = 1000;

interface Sample {
  readonly at: number;
  readonly total: bigint;
  /** Per second, as it was at that moment. */
  readonly rate: bigint;
}

export class Rates {
  readonly #samples = new Map<string, Sample>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** How much of it a second, since it was asked before; 0 the first time. */
  of(id: string, total: bigint): bigint {
    const at = this.#now();
    const before = this.#samples.get(id);
    if (before !== undefined && at - before.at < LEAST_MS) return before.rate;
    const elapsed = before === undefined ? 0 : at - before.at;
    const used = before === undefined ? 0n : total - before.total;
    // One that was started anew begins at 0 again.
    const rate = elapsed === 0 || used < 0n ? 0n : BigInt(Math.round((Number(used) * 1000) / elapsed));
    this.#samples.set(id, { at, total, rate });
    return rate;
  }

  forget(id: string): void {
    this.#samples.delete(id);
  }
}
