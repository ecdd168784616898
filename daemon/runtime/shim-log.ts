/** A foreign shim logs into a FIFO in its bundle, and somebody has to read it. */
import { constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Logger } from 'pino';
import { mkfifo } from '../../native/native.ts';
import { hasCode } from './bundle.ts';

const MAX_LINE = 8192;

/**
 * Makes the FIFO when there is none, and copies its lines into the daemon's log.
 *
 * It is opened for reading and writing: opening does not wait for the shim then, and the end of one writer is not the end
 * of the log (fifo(7)).
 *
 * @returns a function that stops
 */
export function followLogFifo(path: string, log: Logger): () => void {
  try {
    mkfifo(path, 0o700);
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error;
  }
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const fifo = new Socket({ fd, readable: true, writable: false });
  fifo.unref();
  let rest = '';
  fifo.setEncoding('utf8');
  fifo.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop()!;
    if (rest.length > MAX_LINE) {
      lines.push(rest);
      rest = '';
    }
    for (const line of lines) if (line !== '') write(log, line.slice(0, MAX_LINE));
  });
  fifo.on('error', (error) => log.warn({ err: error }, 'cannot read the shim log'));
  return () => {
    fifo.destroy();
  };
}

/** What shims tell at the level info, they tell of every container. */
function write(log: Logger, line: string): void {
  if (/\blevel"?[=:]"?(?:warn|error|fatal|panic)/.test(line)) log.warn({ line }, 'shim');
  else log.debug({ line }, 'shim');
}
