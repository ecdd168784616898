/** Random choices that can be repeated: the seed is printed, and `TEST_SEED` sets it. */
import type { TestContext } from 'node:test';

export interface Seed {
  /** A number in [0, below). */
  next(below: number): number;
  /** One of the choices. */
  pick<T>(choices: readonly T[]): T;
}

/** The same choices for the same number, for ever (mulberry32). */
export function choicesOf(seed: number): Seed {
  let state = seed;
  const fraction = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next: (below) => fraction() * below,
    pick: (choices) => choices[Math.floor(fraction() * choices.length)] as (typeof choices)[number],
  };
}

/** Choices whose seed is shown with the test. */
export function seeded(context: TestContext): Seed {
  const seed = Number(process.env['TEST_SEED'] ?? (Date.now() ^ process.pid) & 0x7fffffff);
  context.diagnostic(`TEST_SEED=${seed}`);
  return choicesOf(seed);
}
