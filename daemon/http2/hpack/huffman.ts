/** Huffman's code for the texts of headers (RFC 7541, section 5.2 and appendix B). */

/** Bits of each byte's code; the last is that of the end of a text, which no text may contain. */
// prettier-ignore
const LENGTHS = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];

const END = 256;
const LONGEST = 30;
/** What fills up the last byte is shorter than a byte. */
const MOST_PADDING = 7;

/** Two branches for each knot: the next knot, or a byte as a negative number. The root is knot 0, which nothing leads to. */
const TREE = tree();

/**
 * The code is canonical: codes of the same length follow one another in the order of what they stand for, and longer ones go on where
 * shorter ones end. So the lengths say all.
 */
function tree(): Int16Array {
  const branches = new Int16Array(2 * LENGTHS.length);
  let knots = 1;
  let code = 0;
  for (let length = 1; length <= LONGEST; length += 1) {
    for (const [byte, its] of LENGTHS.entries()) {
      if (its !== length) continue;
      let knot = 0;
      for (let bit = length - 1; bit > 0; bit -= 1) {
        const branch = 2 * knot + ((code >>> bit) & 1);
        knot = branches[branch] ||= knots++;
      }
      branches[2 * knot + (code & 1)] = ~byte;
      code += 1;
    }
    code <<= 1;
  }
  return branches;
}

/**
 * @param text where the bytes go that come out, if there are no more than it holds
 * @returns how many bytes the text has; -1 for what is no text
 */
export function unpack(packed: Buffer, text: Buffer): number {
  let length = 0;
  let knot = 0;
  /** Since the last byte: how many bits, and whether they were all ones, as the end's are. */
  let bits = 0;
  let areOnes = true;
  for (const byte of packed) {
    for (let mask = 0x80; mask > 0; mask >>>= 1) {
      const bit = (byte & mask) === 0 ? 0 : 1;
      const next = TREE[2 * knot + bit]!;
      if (next < 0) {
        if (~next === END) return -1;
        if (length < text.length) text[length] = ~next;
        length += 1;
        knot = 0;
        bits = 0;
        areOnes = true;
      } else {
        knot = next;
        bits += 1;
        areOnes &&= bit === 1;
      }
    }
  }
  return areOnes && bits <= MOST_PADDING ? length : -1;
}
