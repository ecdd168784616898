import assert from 'node:assert/strict';
import {
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { getXattr, listXattrs, lstat, mknod, S_IF, setAttributes, setXattr, writeNewFile } from './native.ts';

function folder(context: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'moor-attribute-'));
  context.after(() => rmSync(path, { recursive: true }));
  return path;
}

const attributes = {
  mode: S_IF.REG | 0o4751,
  uid: 12345,
  gid: 4_000_000_000,
  atime: { seconds: 1, nanos: 2 },
  mtime: { seconds: -5, nanos: 999_999_999 },
};

test('a file is made whole: content, owner, mode with setuid, times to the nanosecond', (context) => {
  const path = join(folder(context), 'file');
  writeNewFile(path, Buffer.from('content'), attributes);
  assert.equal(readFileSync(path, 'utf8'), 'content');
  const status = lstat(path);
  assert.ok(status !== undefined);
  const { identity, ...rest } = status;
  assert.deepEqual(rest, {
    ...attributes,
    size: 7,
    links: 1,
    major: 0,
    minor: 0,
    atime: rest.atime,
  });
  assert.match(identity, /^\d+:\d+:\d+$/);
  assert.throws(() => writeNewFile(path, Buffer.alloc(0), attributes), { code: 'EEXIST', syscall: 'open' });
});

test('a file is never made through a link', (context) => {
  const base = folder(context);
  symlinkSync(join(base, 'elsewhere'), join(base, 'link'));
  assert.throws(() => writeNewFile(join(base, 'link'), Buffer.alloc(0), attributes), { code: 'EEXIST' });
  assert.deepEqual(readdirSync(base), ['link']);
});

test('names are bytes, whatever they spell', (context) => {
  const base = folder(context);
  writeNewFile(`${base}/\u00ff\u0080`, Buffer.alloc(0), attributes);
  assert.deepEqual(readdirSync(base, { encoding: 'buffer' }), [Buffer.from([0xff, 0x80])]);
  assert.throws(() => lstat(`${base}/a\0b`), { name: 'TypeError' });
  assert.equal(lstat(`${base}/missing`), undefined);
});

test('attributes of a link are its own', (context) => {
  const base = folder(context);
  writeFileSync(join(base, 'file'), '');
  const before = lstatSync(join(base, 'file'));
  symlinkSync('file', join(base, 'link'));
  setAttributes(join(base, 'link'), { ...attributes, mode: S_IF.LNK | 0o777 });
  const status = lstat(join(base, 'link'));
  assert.deepEqual([status?.uid, status?.gid, status?.mtime], [12345, 4_000_000_000, attributes.mtime]);
  const after = lstatSync(join(base, 'file'));
  assert.deepEqual([after.uid, after.mode, after.mtimeMs], [before.uid, before.mode, before.mtimeMs]);
});

test('extended attributes hold any bytes, capabilities among them', (context) => {
  const path = join(folder(context), 'file');
  writeNewFile(path, Buffer.alloc(0), { ...attributes, mode: S_IF.REG | 0o755 });
  const capability = Buffer.from('0100000280000000000000000000000000000000', 'hex');
  setXattr(path, 'security.capability', capability);
  setXattr(path, 'user.empty', Buffer.alloc(0));
  assert.deepEqual(getXattr(path, 'security.capability'), capability);
  assert.deepEqual(getXattr(path, 'user.empty'), Buffer.alloc(0));
  assert.equal(getXattr(path, 'user.missing'), undefined);
  assert.deepEqual(
    listXattrs(path).filter((name) => name !== 'security.selinux'),
    ['security.capability', 'user.empty'],
  );
  assert.throws(() => setXattr(path, 'no-such-kind.x', capability), { syscall: 'lsetxattr' });
});

test('device nodes and FIFOs are made with their numbers', (context) => {
  const base = folder(context);
  mknod(join(base, 'device'), S_IF.CHR | 0o600, 510, 70_000);
  const status = lstat(join(base, 'device'));
  assert.deepEqual([status?.mode, status?.major, status?.minor], [S_IF.CHR | 0o600, 510, 70_000]);
  mknod(join(base, 'fifo'), S_IF.FIFO | 0o600, 0, 0);
  assert.ok(lstatSync(join(base, 'fifo')).isFIFO());
});
