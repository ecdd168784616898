/** Quoted text in filters: Go's string syntax, where `/` and `|` may stand for the quotation mark. */

/** Text that is not quoted as it should be, with the place (from 0) in the input. */
export class QuoteError extends Error {
  override readonly name = 'QuoteError';
  readonly position: number;

  constructor(position: number, message: string) {
    super(message);
    this.position = position;
  }
}

export interface Quoted {
  readonly value: string;
  /** Where the input goes on after the closing mark. */
  readonly end: number;
}

const SINGLE: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '\\': '\\',
};

/** Digits after the letter, and what they make: one byte, or one character. */
const NUMERIC: Readonly<Record<string, { readonly digits: number; readonly byte: boolean }>> = {
  x: { digits: 2, byte: true },
  u: { digits: 4, byte: false },
  U: { digits: 8, byte: false },
};

const MAX_CODE_POINT = 0x10ffff;

/**
 * Reads quoted text whose opening mark is at `start`. Escapes for bytes can put a character together, so bytes are collected.
 *
 * @throws QuoteError
 */
export function readQuoted(input: string, start: number): Quoted {
  const mark = input[start]!;
  const parts: Buffer[] = [];
  let at = start + 1;
  let plain = at;
  const flush = (): void => {
    if (at > plain) parts.push(Buffer.from(input.slice(plain, at)));
  };
  for (;;) {
    const char = input[at];
    if (char === undefined || char === '\n') throw new QuoteError(start, 'quoted literal not terminated');
    if (char === mark) break;
    if (char !== '\\') {
      at += 1;
      continue;
    }
    flush();
    const escape = readEscape(input, at, mark);
    parts.push(escape.bytes);
    at = escape.end;
    plain = at;
  }
  flush();
  return { value: Buffer.concat(parts).toString('utf8'), end: at + 1 };
}

function readEscape(input: string, start: number, mark: string): { bytes: Buffer; end: number } {
  const letter = input[start + 1] ?? '';
  if (letter === mark) return { bytes: Buffer.from(mark), end: start + 2 };
  const single = SINGLE[letter];
  if (single !== undefined) return { bytes: Buffer.from(single), end: start + 2 };
  const numeric = NUMERIC[letter];
  if (numeric !== undefined) {
    const end = start + 2 + numeric.digits;
    return { bytes: number(input.slice(start + 2, end), 16, numeric, start), end };
  }
  if (/[0-7]/.test(letter)) {
    const end = start + 4;
    return { bytes: number(input.slice(start + 1, end), 8, { digits: 3, byte: true }, start), end };
  }
  throw new QuoteError(start, 'illegal escape sequence');
}

function number(
  text: string,
  base: 8 | 16,
  { digits, byte }: { readonly digits: number; readonly byte: boolean },
  position: number,
): Buffer {
  const legal = base === 8 ? /^[0-7]+$/ : /^[0-9a-fA-F]+$/;
  const value = Number.parseInt(text, base);
  if (text.length !== digits || !legal.test(text) || value > (byte ? 0xff : MAX_CODE_POINT)) {
    throw new QuoteError(position, 'illegal numeric escape sequence');
  }
  return byte ? Buffer.from([value]) : Buffer.from(String.fromCodePoint(value));
}
