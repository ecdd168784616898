import { constants } from 'node:os';
import { invalidArgument } from '../ttrpc/errors.ts';

/** A signal's number or its name: `9`, `'SIGKILL'`, `'kill'`, `'RTMIN+3'`. */
export type Signal = number | string;

/** The range of real-time signals as glibc counts them; it keeps the kernel's 32 and 33 to itself (signal(7)). */
const RTMIN = 34;
const RTMAX = 64;

/**
 * The number of a signal on Linux.
 *
 * @throws RpcError InvalidArgument for a name or number that is no signal
 */
export function signalNumber(signal: Signal): number {
  const number = typeof signal === 'number' ? signal : parse(signal);
  if (number === undefined || !Number.isInteger(number) || number < 1 || number > RTMAX) {
    throw invalidArgument(`invalid signal: ${signal}`);
  }
  return number;
}

function parse(text: string): number | undefined {
  if (/^\d+$/.test(text)) return Number(text);
  const name = text.toUpperCase().replace(/^SIG/, '');
  const realTime = /^RT(?:MIN(?:\+(\d+))?|MAX(?:-(\d+))?)$/.exec(name);
  if (realTime !== null) {
    const number = name.startsWith('RTMIN')
      ? RTMIN + Number(realTime[1] ?? 0)
      : RTMAX - Number(realTime[2] ?? 0);
    return number < RTMIN || number > RTMAX ? undefined : number;
  }
  return constants.signals[`SIG${name}` as NodeJS.Signals];
}
