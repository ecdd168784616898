/**
 * The name that a caller gives the server, `:authority`, inside a packed block of headers (RFC 7541).
 *
 * Go's gRPC up to 1.5x takes the path of a unix socket for that name when it is given a dialer of its own, as kubelet and crictl do:
 * `/run/moor/moor.sock`. No name may have a slash (RFC 3986, 3.2), and nghttp2 resets every such call without asking Node.
 */

/** Of what the standard table names (RFC 7541, Appendix A). */
const AUTHORITY = 1;

const SLASH = '/'.charCodeAt(0);
const DOT = '.'.charCodeAt(0);

/**
 * The codes of each length in bits (RFC 7541, Appendix B): the first, and how many follow one another. Longer ones are of characters that
 * are in no path.
 */
const CODES = [
  [5, 0x0, 10],
  [6, 0x14, 26],
  [7, 0x5c, 32],
  [8, 0xf8, 6],
  [10, 0x3f8, 5],
  [11, 0x7fa, 3],
  [12, 0xffa, 2],
  [13, 0x1ff8, 6],
  [14, 0x3ffc, 2],
  [15, 0x7ffc, 3],
] as const;
const SHORT = 6;
const SLASH_CODE = 0b011000;
const DOT_CODE = 0b010111;

/** Where a packed string is. */
interface Packed {
  readonly start: number;
  readonly end: number;
  readonly isHuffman: boolean;
}

/**
 * Writes a dot for every slash of the name, in place. Both are one byte, and six bits when packed: nothing else in the block moves, and
 * the tables of both sides stay alike.
 *
 * @returns whether there was one
 */
export function mendAuthority(block: Buffer): boolean {
  const name = authorityIn(block);
  if (name === undefined) return false;
  return name.isHuffman ? mendHuffman(block, name) : mendPlain(block, name);
}

function authorityIn(block: Buffer): Packed | undefined {
  const reader = new BlockReader(block);
  while (reader.at < block.length) {
    const first = block[reader.at]!;
    if ((first & 0x80) !== 0) reader.number(7);
    else if ((first & 0xe0) === 0x20) reader.number(5);
    else {
      const index = reader.number((first & 0xc0) === 0x40 ? 6 : 4);
      if (index === 0) reader.string();
      const value = reader.string();
      if (value.end > block.length) return undefined;
      if (index === AUTHORITY) return value;
    }
  }
  return undefined;
}

class BlockReader {
  at = 0;
  readonly #block: Buffer;

  constructor(block: Buffer) {
    this.#block = block;
  }

  /** An integer that begins with the last bits of a byte (5.1). */
  number(bits: number): number {
    const mask = (1 << bits) - 1;
    let value = this.#byte() & mask;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** shift;
      if ((byte & 0x80) === 0) return value;
    }
  }

  string(): Packed {
    const isHuffman = ((this.#block[this.at] ?? 0) & 0x80) !== 0;
    const length = this.number(7);
    const start = this.at;
    this.at = start + length;
    return { start, end: this.at, isHuffman };
  }

  /** Zeros when the block ends too soon, which end every number. */
  #byte(): number {
    const byte = this.#block[this.at] ?? 0;
    this.at += 1;
    return byte;
  }
}

function mendPlain(block: Buffer, { start, end }: Packed): boolean {
  let found = false;
  for (let at = start; at < end; at += 1) {
    if (block[at] !== SLASH) continue;
    block[at] = DOT;
    found = true;
  }
  return found;
}

function mendHuffman(block: Buffer, { start, end }: Packed): boolean {
  let found = false;
  const last = end * 8;
  let at = start * 8;
  while (at < last) {
    const length = lengthAt(block, at, last);
    if (length === undefined) break;
    if (length === SHORT && bitsAt(block, at, SHORT) === SLASH_CODE) {
      setBits(block, at, SHORT, DOT_CODE);
      found = true;
    }
    at += length;
  }
  return found;
}

/** Bits of the code that begins there; undefined at the padding, and where it is none of the common ones. */
function lengthAt(block: Buffer, at: number, last: number): number | undefined {
  return CODES.find(([length, first, count]) => {
    if (at + length > last) return false;
    const code = bitsAt(block, at, length);
    return code >= first && code < first + count;
  })?.[0];
}

function bitsAt(block: Buffer, at: number, length: number): number {
  let bits = 0;
  for (let bit = at; bit < at + length; bit += 1)
    bits = (bits << 1) | ((block[bit >> 3]! >> (7 - (bit & 7))) & 1);
  return bits;
}

function setBits(block: Buffer, at: number, length: number, bits: number): void {
  for (let index = 0; index < length; index += 1) {
    const bit = at + index;
    const mask = 1 << (7 - (bit & 7));
    const isSet = ((bits >> (length - 1 - index)) & 1) === 1;
    block[bit >> 3] = isSet ? block[bit >> 3]! | mask : block[bit >> 3]! & ~mask;
  }
}
