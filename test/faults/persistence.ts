/** A client that repeats what was cut off, as architecture.md promises that it can. */
import { setTimeout as delay } from 'node:timers/promises';
import { Code, RpcError } from '../../ttrpc/errors.ts';

/** What a call came to. */
export interface Outcome<T> {
  readonly value: T;
  /** It had been cut off before: the one that succeeded was not the first. */
  readonly repeated: boolean;
}

/** Milliseconds after which a call is stuck. */
const PATIENCE = 40_000;
const PAUSE = 15;

/** A call that nobody answered for a minute, or that was cut off over and over. */
export class Stuck extends Error {}

/**
 * Makes the call until it is answered.
 *
 * @param done what a repeated call may fail with when the one that was cut off had its effect, and what stands for its answer then
 * @throws RpcError with what the daemon answered; Stuck
 */
export async function persist<T>(
  what: string,
  call: (timeout: number) => Promise<T>,
  done: { readonly [code: number]: (error: RpcError) => T } = {},
): Promise<Outcome<T>> {
  const deadline = performance.now() + PATIENCE;
  for (let repeated = false; ; repeated = true) {
    try {
      return { value: await call(PATIENCE), repeated };
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      const stand = repeated ? done[error.code] : undefined;
      if (stand !== undefined) return { value: stand(error), repeated };
      if (error.code === Code.DeadlineExceeded) throw new Stuck(`${what}: no answer for ${PATIENCE} ms`);
      if (error.code !== Code.Unavailable && error.code !== Code.Cancelled) {
        throw new RpcError(error.code, `${what}: ${error.message}`, { cause: error });
      }
      if (performance.now() > deadline) throw new Stuck(`${what}: ${error.message}`);
      await delay(PAUSE);
    }
  }
}
