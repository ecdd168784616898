import { Malformed } from './malformed.ts';
import type { Time } from '../../../native/native.ts';

const ZERO = 0x30;
const SPACE = 0x20;

/**
 * A numeric field of a header: octal digits between spaces and NULs, or, when the first byte's highest bit is set, a two's
 * complement number in base 256 (GNU tar's way for what octal cannot hold).
 *
 * @throws Malformed when it is neither, or no whole number that JavaScript can hold
 */
export function readNumber(block: Uint8Array, offset: number, length: number): number {
  if ((block[offset]! & 0x80) !== 0) return readBase256(block, offset, length);
  let at = offset;
  const end = offset + length;
  while (at < end && (block[at] === SPACE || block[at] === 0)) at++;
  let value = 0;
  for (; at < end; at++) {
    const digit = block[at]! - ZERO;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  for (; at < end; at++) {
    if (block[at] !== SPACE && block[at] !== 0)
      throw new Malformed('a header has a number that is not octal');
  }
  return value;
}

function readBase256(block: Uint8Array, offset: number, length: number): number {
  const isNegative = (block[offset]! & 0x40) !== 0;
  // The first byte has 6 bits of the number beside the mark and the sign.
  let value = isNegative ? (block[offset]! & 0x3f) - 0x40 : block[offset]! & 0x3f;
  for (let at = offset + 1; at < offset + length; at++) value = value * 256 + block[at]!;
  if (!Number.isSafeInteger(value)) throw new Malformed('a header has a number that is too large');
  return value;
}

/** Writes octal digits and a NUL, or base 256 when they do not fit. */
export function writeNumber(block: Uint8Array, offset: number, length: number, value: number): void {
  const digits = length - 1;
  if (value >= 0 && value < 8 ** digits) {
    let rest = value;
    for (let at = offset + digits - 1; at >= offset; at--) {
      block[at] = ZERO + (rest % 8);
      rest = Math.floor(rest / 8);
    }
    block[offset + digits] = 0;
    return;
  }
  let rest = value;
  for (let at = offset + length - 1; at > offset; at--) {
    block[at] = ((rest % 256) + 256) % 256;
    rest = Math.floor(rest / 256);
  }
  block[offset] = value < 0 ? 0xff : 0x80;
}

/**
 * A decimal number without sign, as extension records have it.
 *
 * @throws Malformed naming the record
 */
export function readDecimal(text: string, record: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) throw new Malformed(`extension record ${record} is not a number`);
  return value;
}

/**
 * A time as extension records have it: seconds since 1970 with a sign and any number of decimals. What is beyond nanoseconds is
 * cut off, towards the past.
 *
 * @throws Malformed naming the record
 */
export function readTime(text: string, record: string): Time {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(text);
  if (match === null) throw new Malformed(`extension record ${record} is not a time`);
  const seconds = Number(match[2]);
  const decimals = match[3] ?? '';
  const nanos = Number(decimals.slice(0, 9).padEnd(9, '0'));
  if (match[1] === '') return { seconds, nanos };
  const isExact = nanos === 0 && !/[1-9]/.test(decimals.slice(9));
  if (isExact) return { seconds: 0 - seconds, nanos: 0 };
  const cut = /[1-9]/.test(decimals.slice(9)) ? 1 : 0;
  return { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos - cut };
}

/** The inverse of `readTime`. */
export function writeTime({ seconds, nanos }: Time): string {
  if (nanos === 0) return String(seconds);
  const [whole, rest] = seconds < 0 ? [-(seconds + 1), 1_000_000_000 - nanos] : [seconds, nanos];
  return `${seconds < 0 ? '-' : ''}${whole}.${String(rest).padStart(9, '0').replace(/0+$/, '')}`;
}
