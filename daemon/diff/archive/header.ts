/**
 * The 512 bytes before each member, in the dialects that layers come in: POSIX ustar (POSIX.1-2017 pax, "ustar Interchange
 * Format"), GNU tar and the old v7 that both grew from.
 */
import type { ByteString } from '../../../native/native.ts';
import { Malformed } from './malformed.ts';
import type { EntryKind } from './entry.ts';
import { readNumber } from './number.ts';

const CHECKSUM = 148;
const TYPE = 156;
const MAGIC = 257;
const SPACE = 0x20;

/** One header as it stands, before extensions have their say. */
export interface Header {
  readonly name: ByteString;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly linkName: ByteString;
  readonly major: number;
  readonly minor: number;
}

/** The kinds by the header's type; the types that describe other headers are not among them. */
export const KINDS: Readonly<Record<string, EntryKind>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character-device',
  '4': 'block-device',
  '5': 'directory',
  '6': 'fifo',
};

export function isZeroBlock(block: Buffer): boolean {
  if (block[0] !== 0) return false;
  for (let at = 1; at < block.length; at++) if (block[at] !== 0) return false;
  return true;
}

/** @throws Malformed when the checksum does not match or a number is none */
export function readHeader(block: Buffer): Header {
  checkSum(block);
  const isPosix = block.toString('latin1', MAGIC, MAGIC + 6) === 'ustar\0';
  const isGnu = block.toString('latin1', MAGIC, MAGIC + 8) === 'ustar  \0';
  const prefix = isPosix ? readText(block, 345, prefixLength(block)) : '';
  const name = readText(block, 0, 100);
  const type = String.fromCharCode(block[TYPE]!);
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    type,
    mode: readNumber(block, 100, 8),
    uid: readNumber(block, 108, 8),
    gid: readNumber(block, 116, 8),
    size: readNumber(block, 124, 12),
    mtime: readNumber(block, 136, 12),
    linkName: readText(block, 157, 100),
    major: isPosix || isGnu ? readNumber(block, 329, 8) : 0,
    minor: isPosix || isGnu ? readNumber(block, 337, 8) : 0,
  };
}

/** Schilling's star keeps times behind a shorter prefix, and signs at the block's end. */
function prefixLength(block: Buffer): number {
  return block.toString('latin1', 508, 512) === 'tar\0' ? 131 : 155;
}

function checkSum(block: Buffer): void {
  let unsigned = 8 * SPACE;
  let high = 0;
  for (let at = 0; at < block.length; at++) {
    if (at === CHECKSUM) at += 8;
    const byte = block[at]!;
    unsigned += byte;
    if (byte > 127) high++;
  }
  const expected = readNumber(block, CHECKSUM, 8);
  // Some old writers added up signed bytes (GNU tar manual, "Checksumming Problems").
  if (expected !== unsigned && expected !== unsigned - 256 * high) {
    throw new Malformed('a header does not have the checksum it says');
  }
}

function readText(block: Buffer, offset: number, length: number): ByteString {
  const end = block.indexOf(0, offset);
  return block.toString('latin1', offset, end === -1 || end > offset + length ? offset + length : end);
}
