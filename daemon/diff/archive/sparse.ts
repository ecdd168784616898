/**
 * Files with holes, as GNU tar writes them: "old GNU" headers (type `S`), and PAX records in the versions 0.0, 0.1 and 1.0
 * (GNU tar manual, "Storing Sparse Files").
 */
import type { ByteString } from '../../../native/native.ts';
import { Malformed } from './malformed.ts';
import type { Extent } from './entry.ts';
import { readDecimal, readNumber } from './number.ts';

export const BLOCK = 512;
/** More extents than this are refused: a map of them must fit in memory. */
const MOST_EXTENTS = 1_000_000;

/** What is known of a file with holes before its content. */
export interface Sparse {
  readonly size: number;
  /** The file's own name, where the header's is made up. */
  readonly name?: ByteString;
  /** Undefined when the map stands at the start of the content (version 1.0). */
  readonly extents: readonly Extent[] | undefined;
}

const OLD_MAP = 386;
const OLD_MAP_ENTRIES = 4;
const OLD_IS_EXTENDED = 482;
const OLD_REAL_SIZE = 483;
const EXTENDED_ENTRIES = 21;
const EXTENDED_IS_EXTENDED = 504;

/** Reads the map in an old GNU header; `next` gives the blocks that continue it. */
export function* readOldSparse(header: Buffer, next: number): Generator<number, Sparse, Buffer> {
  const size = readNumber(header, OLD_REAL_SIZE, 12);
  const extents: Extent[] = [];
  addOldExtents(extents, header, OLD_MAP, OLD_MAP_ENTRIES);
  for (let isExtended = header[OLD_IS_EXTENDED] !== 0; isExtended;) {
    const block: Buffer = yield next;
    addOldExtents(extents, block, 0, EXTENDED_ENTRIES);
    isExtended = block[EXTENDED_IS_EXTENDED] !== 0;
  }
  return { size, extents };
}

function addOldExtents(extents: Extent[], block: Buffer, start: number, count: number): void {
  for (let index = 0; index < count; index++) {
    const at = start + index * 24;
    // An entry of zeros, or of NULs, ends the map early.
    if (block[at] === 0 && block[at + 12] === 0) return;
    extents.push({ offset: readNumber(block, at, 12), length: readNumber(block, at + 12, 12) });
    if (extents.length > MOST_EXTENTS) throw new Malformed('a file has too many holes');
  }
}

/** Puts together what PAX records say about holes. */
export function readSparseRecords(records: readonly [key: string, value: string][]): Sparse {
  const last = new Map(records);
  const version = `${last.get('major') ?? '0'}.${last.get('minor') ?? '0'}`;
  const name = last.get('name');
  const size = readDecimal(last.get('realsize') ?? last.get('size') ?? '', 'GNU.sparse.realsize');
  if (version === '1.0') return { size, name, extents: undefined };
  if (version !== '0.0' && version !== '0.1') throw new Malformed(`sparse format ${version} is not known`);
  const map = last.get('map');
  const numbers = map === undefined ? repeatedNumbers(records) : map === '' ? [] : map.split(',');
  return { size, name, extents: pairUp(numbers) };
}

/** Version 0.0: `offset` and `numbytes` by turns. */
function repeatedNumbers(records: readonly [key: string, value: string][]): string[] {
  const numbers: string[] = [];
  for (const [key, value] of records) {
    const expected = numbers.length % 2 === 0 ? 'offset' : 'numbytes';
    if (key === expected) numbers.push(value);
    else if (key === 'offset' || key === 'numbytes') throw new Malformed('a map of holes is out of order');
  }
  return numbers;
}

function pairUp(numbers: readonly string[]): Extent[] {
  if (numbers.length % 2 !== 0) throw new Malformed('a map of holes ends in the middle');
  if (numbers.length / 2 > MOST_EXTENTS) throw new Malformed('a file has too many holes');
  const extents: Extent[] = [];
  for (let index = 0; index < numbers.length; index += 2) {
    extents.push({
      offset: readDecimal(numbers[index]!, 'GNU.sparse.map'),
      length: readDecimal(numbers[index + 1]!, 'GNU.sparse.map'),
    });
  }
  return extents;
}

/**
 * Version 1.0: decimal numbers, one a line, at the start of the content: how many extents, then each one's offset and length;
 * filled up to whole blocks.
 *
 * @param next the request for one more block
 * @returns the map and how many bytes of the content it took
 */
export function* readSparsePrefix(
  next: number,
  most: number,
): Generator<number, { extents: Extent[]; bytes: number }, Buffer> {
  let text = '';
  let bytes = 0;
  let lines: string[] = [];
  const numbers: string[] = [];
  for (let wanted = 1; numbers.length < wanted;) {
    if (bytes + BLOCK > most) throw new Malformed('a map of holes is longer than its file');
    const block: Buffer = yield next;
    bytes += BLOCK;
    lines = (text + block.toString('latin1')).split('\n');
    text = lines.pop()!;
    if (text.length > 20 && text.charCodeAt(0) !== 0) throw new Malformed('a map of holes is malformed');
    for (const line of lines) {
      if (numbers.length === wanted) break;
      numbers.push(line);
      if (numbers.length === 1) wanted = 1 + 2 * readDecimal(line, 'the map of holes');
    }
    if (wanted > 1 + 2 * MOST_EXTENTS) throw new Malformed('a file has too many holes');
  }
  return { extents: pairUp(numbers.slice(1)), bytes };
}

/**
 * Checks a map against its file: in order, not overlapping, inside the file, and as many bytes as the archive holds.
 *
 * @throws Malformed
 */
export function checkExtents(extents: readonly Extent[], size: number, stored: number): void {
  let end = 0;
  let total = 0;
  for (const { offset, length } of extents) {
    if (offset < end || offset + length > size) throw new Malformed('a map of holes does not fit its file');
    end = offset + length;
    total += length;
  }
  if (total !== stored) throw new Malformed('a map of holes does not fit its content');
}
