/** What can end a call from outside: its deadline and its caller's signal. */
import { cancelled, deadlineExceeded, RpcError } from './errors.ts';
import type { CallOptions } from './service.ts';

/** A longer delay would make a timer fire at once. https://nodejs.org/api/timers.html#settimeoutcallback-delay-args */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Calls `expired` once after so many milliseconds, however many. Cancel with the answer. */
export function startDeadline(milliseconds: number, expired: () => void): () => void {
  let left = milliseconds;
  let timer: NodeJS.Timeout;
  const arm = () => {
    const delay = Math.min(left, MAX_TIMER_MS);
    left -= delay;
    timer = setTimeout(() => (left > 0 ? arm() : expired()), delay);
  };
  arm();
  return () => clearTimeout(timer);
}

const nothing = () => {};

/**
 * Calls `fail` when the caller gives up or its time is over; possibly both, the first one counts. The answer takes
 * every timer and listener back.
 */
export function watch(options: CallOptions | undefined, fail: (error: RpcError) => void): () => void {
  if (options === undefined) return nothing;
  const { signal, timeout } = options;
  if (signal === undefined && timeout === undefined) return nothing;
  const stopDeadline =
    timeout === undefined || timeout === Infinity
      ? nothing
      : startDeadline(timeout, () => fail(expiry(timeout)));
  if (signal === undefined) return stopDeadline;
  const onAbort = () => fail(abortion(signal));
  signal.addEventListener('abort', onAbort, { once: true });
  return () => {
    stopDeadline();
    signal.removeEventListener('abort', onAbort);
  };
}

/** Why a call with these options is over before it begins, if it is. */
export function overBeforeStart(options: CallOptions | undefined): RpcError | undefined {
  if (options?.signal?.aborted === true) return abortion(options.signal);
  if (options?.timeout !== undefined && !(options.timeout > 0)) return expiry(options.timeout);
  return undefined;
}

function expiry(milliseconds: number): RpcError {
  return deadlineExceeded(`not answered within ${milliseconds} ms`);
}

/** The signal of a call that is served says with which code it ended; calls made on its behalf end likewise. */
export function abortion(signal: AbortSignal): RpcError {
  const reason: unknown = signal.reason;
  return reason instanceof RpcError ? reason : cancelled('cancelled by the caller', reason);
}
