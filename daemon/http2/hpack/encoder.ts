/** Header blocks that put nothing into the peer's table, so that one block is as good on each connection (RFC 7541, section 6). */
import { STATIC_TABLE } from './static-table.ts';

const INDEXED = { pattern: 0x80, bits: 7 };
/** A literal that is not to be kept. */
const LITERAL = { pattern: 0x00, bits: 4 };
/** A text that is not packed. */
const PLAIN = { pattern: 0x00, bits: 7 };

/** Says that the table is empty from now on, as has to be said when the peer has made it smaller (section 4.2). */
export const NO_TABLE = Buffer.of(0x20);

/** @param fields whose names are in lower case; a `:status` first */
export function headerBlock(fields: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(Object.entries(fields).flatMap(([name, value]) => encode(name, value)));
}

function encode(name: string, value: string): Buffer[] {
  const whole = STATIC_TABLE.findIndex((field) => field.name === name && field.value === value);
  if (whole >= 0) return [number(whole + 1, INDEXED)];
  const named = STATIC_TABLE.findIndex((field) => field.name === name);
  const head = number(named + 1, LITERAL);
  return named < 0 ? [head, ...text(name), ...text(value)] : [head, ...text(value)];
}

function text(value: string): Buffer[] {
  const bytes = Buffer.from(value, 'latin1');
  return [number(bytes.length, PLAIN), bytes];
}

/** A number behind some bits that say what it is (section 5.1). */
function number(value: number, { pattern, bits }: { pattern: number; bits: number }): Buffer {
  const most = 2 ** bits - 1;
  if (value < most) return Buffer.of(pattern | value);
  const bytes = [pattern | most];
  let rest = value - most;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return Buffer.from([...bytes, rest]);
}
