/** Waiting for what the caller does not own. */
import { abortion } from '../../ttrpc/deadline.ts';

/**
 * Waits, but not for longer than the caller does.
 * @throws RpcError that says how the caller's patience ended
 */
export async function unlessAborted(
  promise: Promise<void> | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (signal === undefined) return promise;
  if (signal.aborted) throw abortion(signal);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(abortion(signal));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
