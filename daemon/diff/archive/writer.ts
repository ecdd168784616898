import type { ByteString } from '../../../native/native.ts';
import type { Entry, EntryKind } from './entry.ts';
import { writeRecord } from './extension.ts';
import { writeNumber, writeTime } from './number.ts';
import { BLOCK } from './sparse.ts';

const TYPES: Readonly<Record<EntryKind, string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  'character-device': '3',
  'block-device': '4',
  directory: '5',
  fifo: '6',
};

const MOST_ID = 0o7777777;
const MOST_OCTAL = 8 ** 11 - 1;
/** Two blocks of zeros end an archive. */
export const END_OF_ARCHIVE = Buffer.alloc(2 * BLOCK);

/**
 * The header of an entry: one ustar block, after an extension where that cannot say it all (long names, names that are not
 * ASCII, fractions of seconds, large numbers, extended attributes). Equal entries give equal bytes.
 */
export function encodeEntry(entry: Entry): Buffer {
  const fields = splitName(entry.name);
  const records = recordsOf(entry, fields !== undefined);
  const header = encodeBlock(TYPES[entry.kind], entry, fields ?? { name: truncate(entry.name), prefix: '' });
  if (records.length === 0) return header;
  const data = Buffer.concat(records);
  const about: Entry = {
    ...entry,
    mode: 0o644,
    size: data.length,
    uid: 0,
    gid: 0,
    linkName: '',
    major: 0,
    minor: 0,
  };
  const name = `PaxHeaders.0/${truncate(entry.name).replace(/^.*\//, '')}`.slice(0, 99);
  return Buffer.concat([encodeBlock('x', about, { name, prefix: '' }), data, paddingOf(data.length), header]);
}

/** What fills the last block of `size` bytes of content. */
export function paddingOf(size: number): Buffer {
  return size % BLOCK === 0
    ? END_OF_ARCHIVE.subarray(0, 0)
    : END_OF_ARCHIVE.subarray(0, BLOCK - (size % BLOCK));
}

interface NameFields {
  readonly name: ByteString;
  readonly prefix: ByteString;
}

/** The name in ustar's two fields of 100 and 155 bytes; undefined when it cannot be parted at a slash. */
function splitName(name: ByteString): NameFields | undefined {
  if (name.length <= 100) return { name, prefix: '' };
  // The first slash that leaves at most 100 bytes, and not only the one that ends a directory's name.
  const slash = name.indexOf('/', name.length - 101);
  if (slash < 1 || slash > 155 || slash === name.length - 1) return undefined;
  return { name: name.slice(slash + 1), prefix: name.slice(0, slash) };
}

/** A stand-in for a name that the extension gives in full. A slash at its end would make it a directory's. */
function truncate(name: ByteString): ByteString {
  return name
    .slice(0, 100)
    .replace(/[^\x20-\x7e]/g, '_')
    .replace(/\/+$/, '');
}

function recordsOf(entry: Entry, nameFits: boolean): Buffer[] {
  const records: Buffer[] = [];
  const add = (key: string, value: string | Uint8Array) =>
    records.push(writeRecord(key, typeof value === 'string' ? Buffer.from(value, 'latin1') : value));
  const isLongLink = entry.linkName.length > 100;
  const names = [entry.name, entry.linkName];
  // Names that are not UTF-8 fit in no record by the letter of POSIX; in the header they pass as they are.
  if ((!nameFits && !isUtf8(entry.name)) || (isLongLink && !isUtf8(entry.linkName)))
    add('hdrcharset', 'BINARY');
  if (entry.gid > MOST_ID) add('gid', String(entry.gid));
  if (isLongLink || needsRecord(names[1]!)) add('linkpath', entry.linkName);
  const { seconds, nanos } = entry.mtime;
  if (nanos !== 0 || seconds < 0 || seconds > MOST_OCTAL) add('mtime', writeTime(entry.mtime));
  if (!nameFits || needsRecord(names[0]!)) add('path', entry.name);
  if (entry.size > MOST_OCTAL) add('size', String(entry.size));
  if (entry.uid > MOST_ID) add('uid', String(entry.uid));
  for (const [key, value] of [...entry.xattrs].sort(byName)) add(`SCHILY.xattr.${key}`, value);
  return records;
}

function byName([one]: readonly [ByteString, unknown], [other]: readonly [ByteString, unknown]): number {
  return one < other ? -1 : 1;
}

function needsRecord(name: ByteString): boolean {
  return /[^\x00-\x7f]/.test(name) && isUtf8(name); // eslint-disable-line no-control-regex -- "not ASCII"
}

const strict = new TextDecoder('utf-8', { fatal: true });

function isUtf8(name: ByteString): boolean {
  try {
    strict.decode(Buffer.from(name, 'latin1'));
    return true;
  } catch {
    return false;
  }
}

function encodeBlock(type: string, entry: Entry, { name, prefix }: NameFields): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(name, 0, 'latin1');
  writeNumber(block, 100, 8, entry.mode);
  writeNumber(block, 108, 8, entry.uid > MOST_ID ? 0 : entry.uid);
  writeNumber(block, 116, 8, entry.gid > MOST_ID ? 0 : entry.gid);
  writeNumber(block, 124, 12, entry.size);
  const { seconds } = entry.mtime;
  writeNumber(block, 136, 12, Math.min(Math.max(seconds, 0), MOST_OCTAL));
  block.write(type, 156, 'latin1');
  block.write(entry.linkName.length > 100 ? truncate(entry.linkName) : entry.linkName, 157, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  writeNumber(block, 329, 8, entry.major);
  writeNumber(block, 337, 8, entry.minor);
  block.write(prefix, 345, 'latin1');
  block.fill(' ', 148, 156);
  let sum = 0;
  for (const byte of block) sum += byte;
  writeNumber(block, 148, 7, sum);
  return block;
}
