import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pack } from 'tar-stream';
import { Code } from '../../../ttrpc/errors.ts';
import { archiveOf, entryOf } from '../fixture.test.ts';
import type { Entry } from './entry.ts';
import { writeRecord } from './extension.ts';
import { ArchiveReader } from './reader.ts';
import { encodeEntry, END_OF_ARCHIVE, paddingOf } from './writer.ts';

interface Member {
  readonly entry: Entry;
  readonly content: string;
}

/** Reads an archive in pieces of so many bytes. */
function read(archive: Buffer, pieceSize = archive.length): Member[] {
  const members: { entry: Entry; content: Buffer }[] = [];
  const reader = new ArchiveReader({
    entry: (entry, content) =>
      members.push({ entry, content: content ? Buffer.from(content) : Buffer.alloc(entry.size) }),
    data: (chunk, position) => members.at(-1)!.content.set(chunk, position),
    finish: () => undefined,
  });
  // The same memory again and again, as the unpacker does it.
  const piece = Buffer.alloc(Math.max(pieceSize, 1));
  for (let at = 0; at < archive.length; at += pieceSize) {
    const length = archive.copy(piece, 0, at, at + pieceSize);
    reader.push(piece.subarray(0, length));
  }
  reader.end();
  return members.map(({ entry, content }) => ({ entry, content: content.toString('latin1') }));
}

function refuses(archive: Buffer, message: RegExp): void {
  assert.throws(
    () => read(archive),
    (error: { code: Code; message: string }) => {
      assert.equal(error.code, Code.InvalidArgument);
      assert.match(error.message, message);
      return true;
    },
  );
}

/** An entry after an extension header of these records. */
function extended(records: Buffer, name = 'file'): Buffer {
  const header = entryOf('x', { size: records.length });
  header[156] = 'x'.charCodeAt(0);
  fixChecksum(header);
  return Buffer.concat([header.subarray(0, 512), records, paddingOf(records.length), entryOf(name)]);
}

function fixChecksum(header: Buffer, signed = false): void {
  header.fill(' ', 148, 156);
  let sum = 0;
  for (const byte of header.subarray(0, 512)) sum += signed && byte > 127 ? byte - 256 : byte;
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}

test('pieces of any size give the same entries', () => {
  const archive = archiveOf(
    entryOf('a', { content: 'short' }),
    entryOf(`${'long/'.repeat(60)}name`, { mtime: { seconds: -3, nanos: 5 }, content: 'y'.repeat(600) }),
    entryOf('large', { content: 'z'.repeat(200_000) }),
    entryOf('link', { kind: 'symlink', linkName: 't'.repeat(300) }),
  );
  const whole = read(archive);
  assert.deepEqual(
    whole.map(({ entry }) => entry.name.length),
    [1, 304, 5, 4],
  );
  assert.equal(whole[2]!.content, 'z'.repeat(200_000));
  for (const size of [1, 7, 511, 512, 513, 4096, 131_073]) assert.deepEqual(read(archive, size), whole);
});

test('an archive cut off anywhere but between entries is refused', () => {
  const archive = archiveOf(entryOf('a', { content: 'x'.repeat(700) }), entryOf('n'.repeat(150)));
  // Entries end at 512 + 1024, and at 3 blocks more; then come the zeros that may be missing.
  const fine = new Set([0, 1536, 3072, 3584]);
  for (let size = 0; size < archive.length; size += 128) {
    if (fine.has(size)) read(archive.subarray(0, size));
    else if (size < 3072) refuses(archive.subarray(0, size), /the archive is cut off/);
  }
});

test('what another writer makes is read as it was meant', async () => {
  const packed = pack();
  const mtime = new Date(1_500_000_000_000);
  packed.entry({ name: 'd/', type: 'directory', mode: 0o1750, uid: 5, mtime });
  packed.entry(
    { name: 'd/ö', mtime, pax: { mtime: '1500000000.25', 'SCHILY.xattr.user.k': 'v=w' } },
    'content',
  );
  packed.entry({ name: 'd/dev', type: 'block-device', devmajor: 8, devminor: 1, mtime });
  packed.finalize();
  const pieces: Buffer[] = [];
  for await (const piece of packed) pieces.push(piece as Buffer);
  const [d, f, dev] = read(Buffer.concat(pieces));
  assert.deepEqual([d!.entry.kind, d!.entry.mode, d!.entry.uid], ['directory', 0o1750, 5]);
  assert.equal(Buffer.from(f!.entry.name, 'latin1').toString(), 'd/ö');
  assert.deepEqual(f!.entry.mtime, { seconds: 1_500_000_000, nanos: 250_000_000 });
  assert.deepEqual(f!.entry.xattrs, new Map([['user.k', Buffer.from('v=w')]]));
  assert.equal(f!.content, 'content');
  assert.deepEqual([dev!.entry.kind, dev!.entry.major, dev!.entry.minor], ['block-device', 8, 1]);
});

test('whatever is written is read again', () => {
  const entry: Entry = {
    name: `\u00ff${'n'.repeat(300)}`,
    kind: 'file',
    mode: 0o7777,
    uid: 4_294_967_294,
    gid: 2_097_152,
    size: 0,
    mtime: { seconds: -9_000_000_000, nanos: 1 },
    atime: { seconds: -9_000_000_000, nanos: 1 },
    linkName: '',
    major: 0,
    minor: 0,
    xattrs: new Map([
      ['user.b', Buffer.from([0, 10, 61, 255])],
      ['user.a', Buffer.alloc(0)],
    ]),
  };
  assert.deepEqual(read(Buffer.concat([encodeEntry(entry), END_OF_ARCHIVE])), [{ entry, content: '' }]);
  const device: Entry = { ...entry, name: 'd', kind: 'character-device', major: 4095, minor: 1_048_575_000 };
  assert.deepEqual(read(Buffer.concat([encodeEntry(device), END_OF_ARCHIVE]))[0]!.entry, device);
  const links = ['l'.repeat(99), 'l'.repeat(100), 'l'.repeat(101)];
  for (const name of [
    'x'.repeat(100),
    'x'.repeat(101),
    `${'a'.repeat(155)}/${'b'.repeat(100)}`,
    'a/'.repeat(70),
  ]) {
    for (const linkName of links) {
      const link: Entry = { ...entry, kind: 'symlink', name, linkName };
      assert.deepEqual(read(Buffer.concat([encodeEntry(link), END_OF_ARCHIVE]))[0]!.entry, link);
    }
  }
});

test('numbers too large for octal are read in base 256', () => {
  const archive = archiveOf(entryOf('f'));
  archive.fill(0, 136, 148);
  archive.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], 136);
  archive.set([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], 108);
  fixChecksum(archive);
  const [{ entry }] = read(archive) as [Member];
  assert.deepEqual([entry.mtime.seconds, entry.uid], [-2, 4_294_967_295]);
  archive.fill(0xee, 124, 136);
  fixChecksum(archive);
  refuses(archive, /a header has a number that is too large/);
  archive.write('0000009\0', 124, 'latin1');
  fixChecksum(archive);
  refuses(archive, /a header has a number that is not octal/);
});

test('a checksum over signed bytes is as good', () => {
  const archive = archiveOf(entryOf('\u00e9\u00e8'));
  fixChecksum(archive, true);
  assert.equal(read(archive)[0]!.entry.name, '\u00e9\u00e8');
  archive[150]! ^= 1;
  refuses(archive, /does not have the checksum it says/);
});

test('records that say nothing about files are skipped, global ones too', () => {
  const global = extended(writeRecord('path', Buffer.from('everywhere')));
  global[156] = 'g'.charCodeAt(0);
  fixChecksum(global);
  const archive = archiveOf(global, extended(writeRecord('comment', Buffer.from('hello')), 'other'));
  assert.deepEqual(
    read(archive).map(({ entry }) => entry.name),
    ['file', 'other'],
  );
});

test('malformed records are refused', () => {
  const bad = (text: string, message = /an extension record is malformed/) =>
    refuses(archiveOf(extended(Buffer.from(text))), message);
  bad('nonsense');
  bad('5 a=b');
  bad('-6 a=b\n', /extension record length is not a number/);
  bad('6 ab\nx\n');
  bad('99 a=b\n');
  bad('0 a=b\n');
  // Nothing after the first record has a space.
  bad('6 a=b\n30mtime=1\n');
  bad('18 mtime=tomorrow\n', /extension record mtime is not a time/);
  bad('12 size=-44\n', /extension record size is not a number/);
  bad('29 size=99999999999999999999\n', /extension record size is not a number/);
});

test('times are read to the nanosecond, before 1970 too', () => {
  for (const [text, seconds, nanos] of [
    ['5', 5, 0],
    ['5.', 5, 0],
    ['5.1', 5, 100_000_000],
    ['5.1234567899', 5, 123_456_789],
    ['-5', -5, 0],
    ['-5.25', -6, 750_000_000],
    ['-0.000000001', -1, 999_999_999],
    ['-5.0000000001', -6, 999_999_999],
  ] as const) {
    const [member] = read(archiveOf(extended(writeRecord('mtime', Buffer.from(text)))));
    assert.deepEqual(member!.entry.mtime, { seconds, nanos }, text);
  }
});

test('maps of holes that do not fit are refused', () => {
  const sparse = (records: Record<string, string>) =>
    archiveOf(
      extended(
        Buffer.concat(
          Object.entries(records).map(([key, value]) => writeRecord(`GNU.sparse.${key}`, Buffer.from(value))),
        ),
      ),
    );
  refuses(sparse({ size: '10', map: '0,5,3,2' }), /a map of holes does not fit its file/);
  refuses(sparse({ size: '10', map: '8,5' }), /a map of holes does not fit its file/);
  refuses(sparse({ size: '10', map: '0,5' }), /a map of holes does not fit its content/);
  refuses(sparse({ size: '10', map: '0' }), /a map of holes ends in the middle/);
  refuses(sparse({ size: '10', numbytes: '5' }), /a map of holes is out of order/);
  refuses(sparse({ realsize: '10', major: '2', minor: '0' }), /sparse format 2.0 is not known/);
  refuses(sparse({ realsize: '10', major: '1', minor: '0' }), /a map of holes is longer than its file/);
  refuses(sparse({ map: '0,5' }), /GNU.sparse.realsize is not a number/);
});

test('an extension of endless size is refused before it is read', () => {
  const header = entryOf('x', { size: 2 ** 33 - 1 });
  header[156] = 'L'.charCodeAt(0);
  fixChecksum(header);
  refuses(header, /an extension of 8589934591 bytes is too large/);
});

test('an old directory is told by the slash at the end of its name, however long', () => {
  for (const name of ['d/', 'long/'.repeat(60)]) {
    const archive = archiveOf(entryOf(name));
    assert.equal(read(archive)[0]!.entry.kind, 'directory');
  }
  assert.equal(read(archiveOf(entryOf(`${'long/'.repeat(60)}file`)))[0]!.entry.kind, 'file');
});

test('a lone block of zeros is refused, and what follows two is ignored', () => {
  const entry = entryOf('f');
  refuses(Buffer.concat([Buffer.alloc(512), entry]), /a block of zeros stands alone/);
  assert.equal(read(Buffer.concat([archiveOf(entry), Buffer.alloc(700, 'rubbish')])).length, 1);
});
