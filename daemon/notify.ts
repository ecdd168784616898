/** What the service manager is told (sd_notify(3)). */
import type { Logger } from 'pino';
import { sendDatagram } from '../native/native.ts';

/**
 * Sends states such as `READY=1` to the socket that the service manager has named in the environment, if there is one. A
 * manager that cannot be reached is logged and otherwise ignored.
 */
export function notify(log: Logger, ...states: readonly string[]): void {
  const address = process.env.NOTIFY_SOCKET;
  if (address === undefined || address === '') return;
  try {
    sendDatagram(address, states.join('\n'));
  } catch (error) {
    log.warn({ err: error, address }, 'the service manager cannot be told');
  }
}
