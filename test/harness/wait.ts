/** Waiting in tests: for a condition, with a bound, and with a failure that says what was seen last. */
import { AssertionError } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';

/** Milliseconds that a wait may take where a test names no bound: what a machine with much else to do needs, and more. */
export const PATIENCE = 30_000;

export interface Bound {
  /** Milliseconds until the wait fails. */
  readonly within?: number;
}

/**
 * Probes until the probe's answer is truthy, and returns that answer.
 *
 * For what has no event to await (the process table, files, mounts). A probe that throws counts as "not yet".
 * The pause between probes grows from 5 to 50 ms. Throws an AssertionError naming `what` and the last failure.
 */
export async function eventually<T>(
  what: string,
  probe: () => T | Promise<T>,
  { within = PATIENCE }: Bound = {},
): Promise<Exclude<T, false | null | undefined>> {
  const deadline = performance.now() + within;
  let pause = 5;
  let last: unknown = 'the condition was false';
  for (;;) {
    try {
      const seen = await probe();
      if (seen) return seen as Exclude<T, false | null | undefined>;
      last = seen ?? last;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= deadline) {
      const reason = last instanceof Error ? last.message : String(last);
      throw new AssertionError({ message: `not within ${within} ms: ${what} (last seen: ${reason})` });
    }
    await delay(pause);
    pause = Math.min(50, pause * 1.5);
  }
}

/** Fails when the promise has not settled in time, so that a hang is reported where it happens. */
export async function soon<T>(
  what: string,
  promise: Promise<T>,
  { within = PATIENCE }: Bound = {},
): Promise<T> {
  const ended = new AbortController();
  const late = delay(within, undefined, { signal: ended.signal }).then(() => {
    throw new AssertionError({ message: `not within ${within} ms: ${what}` });
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    late.catch(() => undefined);
    ended.abort();
  }
}
