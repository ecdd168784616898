/** Ctrl-C while the daemon works for this command. */
import { Failure } from './failure.ts';
import type { Session } from './session.ts';

/** What shells have for a command that SIGINT has ended. */
const INTERRUPTED_STATUS = 130;

/**
 * Runs something that ends in good order when the user interrupts it. A second interrupt ends the command at once.
 *
 * @param hint what the user may do then
 * @throws Failure when it was interrupted
 */
export async function interruptible<T>(
  { call }: Session,
  hint: string,
  work: (call: Session['call']) => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  const signal = AbortSignal.any([call.signal, stop.signal]);
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(INTERRUPTED_STATUS);
    stop.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    return await work({ ...call, signal });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    process.exitCode = INTERRUPTED_STATUS;
    throw new Failure('interrupted', hint);
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}
