/**
 * PAX extension records (POSIX.1-2017 pax, "pax Extended Header"): `<length> <key>=<value>\n`, where the length counts the
 * whole record.
 */
import type { ByteString, Time } from '../../../native/native.ts';
import { Malformed } from './malformed.ts';
import { readDecimal, readTime } from './number.ts';

/** What the records of one header say about the entry that follows. */
export interface Extension {
  path?: ByteString;
  linkPath?: ByteString;
  size?: number;
  uid?: number;
  gid?: number;
  mtime?: Time;
  atime?: Time;
  xattrs?: Map<ByteString, Buffer>;
  /** GNU tar's records about holes, in order, as version 0.0 says the same keys again and again. */
  sparse?: [key: string, value: string][];
}

const XATTR = 'SCHILY.xattr.';
const SPARSE = 'GNU.sparse.';
const SPACE = 0x20;
const NEWLINE = 0x0a;
const EQUALS = 0x3d;

/** @throws Malformed when it is not made of records */
export function readExtension(data: Buffer): Extension {
  const extension: Extension = {};
  for (let at = 0; at < data.length;) {
    // Some writers fill the rest of the block with zeros and count them in.
    if (data[at] === 0) break;
    const space = data.indexOf(SPACE, at);
    if (space === -1 || space - at > 10) throw new Malformed('an extension record is malformed');
    const end = at + readDecimal(data.toString('latin1', at, space), 'length');
    const equals = data.indexOf(EQUALS, space + 1);
    if (
      end <= space + 1 ||
      end > data.length ||
      data[end - 1] !== NEWLINE ||
      equals === -1 ||
      equals >= end
    ) {
      throw new Malformed('an extension record is malformed');
    }
    addRecord(extension, data.toString('latin1', space + 1, equals), data, equals + 1, end - 1);
    at = end;
  }
  return extension;
}

function addRecord(extension: Extension, key: string, data: Buffer, start: number, end: number): void {
  if (key.startsWith(XATTR)) {
    extension.xattrs ??= new Map();
    extension.xattrs.set(key.slice(XATTR.length), Buffer.from(data.subarray(start, end)));
    return;
  }
  if (key.startsWith(SPARSE)) {
    extension.sparse ??= [];
    extension.sparse.push([key.slice(SPARSE.length), data.toString('latin1', start, end)]);
    return;
  }
  // An empty value takes back what a global header said, and those are not followed here (see reader.ts).
  if (start === end) return;
  const value = () => data.toString('latin1', start, end);
  switch (key) {
    case 'path':
      extension.path = value();
      break;
    case 'linkpath':
      extension.linkPath = value();
      break;
    case 'size':
      extension.size = readDecimal(value(), key);
      break;
    case 'uid':
      extension.uid = readDecimal(value(), key);
      break;
    case 'gid':
      extension.gid = readDecimal(value(), key);
      break;
    case 'mtime':
      extension.mtime = readTime(value(), key);
      break;
    case 'atime':
      extension.atime = readTime(value(), key);
      break;
    default: // Comments, user names and the like: nothing that a layer keeps.
  }
}

/** One record as bytes. */
export function writeRecord(key: ByteString, value: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), value, Buffer.from('\n')]);
  // The length counts its own digits.
  let length = body.length + 1;
  while (String(length).length + body.length !== length) length = String(length).length + body.length;
  return Buffer.concat([Buffer.from(String(length)), body]);
}
