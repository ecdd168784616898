import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import {
  constants,
  copyTree,
  getXattr,
  lstat,
  mknod,
  mount,
  removeTree,
  S_IF,
  setAttributes,
  setXattr,
  treeUsage,
  unmount,
} from './native.ts';

function folder(context: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'moor-tree-'));
  context.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Folders in one another, deeper than any path can say. */
function nest(path: string, depth: number): void {
  const before = process.cwd();
  process.chdir(path);
  for (let level = 0; level < depth; level++) {
    mkdirSync('deep-down-below');
    process.chdir('deep-down-below');
    if (level % 100 === 0) writeFileSync('file', '');
  }
  process.chdir(before);
}

test('usage counts blocks, and a file with two names once', async (context) => {
  const path = folder(context);
  writeFileSync(join(path, 'file'), Buffer.alloc(10_000));
  linkSync(join(path, 'file'), join(path, 'again'));
  mkdirSync(join(path, 'folder'));
  writeFileSync(join(path, 'folder', 'sparse'), 'x');
  truncateSync(join(path, 'folder', 'sparse'), 1 << 30);
  symlinkSync('/', join(path, 'folder', 'link'));
  const bytes = ['.', 'file', 'folder', 'folder/sparse'].map(
    (name) => lstatSync(join(path, name)).blocks * 512,
  );
  assert.deepEqual(await treeUsage(path), { size: bytes.reduce((sum, each) => sum + each), inodes: 5 });
  await assert.rejects(treeUsage(join(path, 'missing')), { code: 'ENOENT' });
});

test('usage beside a base counts what is not the same file unchanged', async (context) => {
  const path = folder(context);
  const [old, now] = [join(path, 'old'), join(path, 'now')];
  for (const each of [old, now]) mkdirSync(join(each, 'in'), { recursive: true });
  writeFileSync(join(old, 'in/kept'), 'kept');
  linkSync(join(old, 'in/kept'), join(now, 'in/kept'));
  writeFileSync(join(now, 'in/new'), Buffer.alloc(4096));
  assert.equal((await treeUsage(now)).inodes, 4);
  assert.equal((await treeUsage(now, old)).inodes, 3);
});

test('a tree is removed with read-only files, immutable ones and folders deeper than a path', async (context) => {
  const path = join(folder(context), 'tree');
  mkdirSync(join(path, 'locked'), { recursive: true });
  writeFileSync(join(path, 'locked/file'), '');
  execFileSync('chattr', ['+i', join(path, 'locked/file'), join(path, 'locked')]);
  symlinkSync(path, join(path, 'link'));
  mknod(join(path, 'fifo'), S_IF.FIFO | 0o600, 0, 0);
  nest(path, 400);
  await removeTree(path);
  assert.ok(!existsSync(path));
  await removeTree(path);
});

test('removal leaves alone what links lead to and what is mounted', async (context) => {
  const base = folder(context);
  const [path, outside] = [join(base, 'tree'), join(base, 'outside')];
  mkdirSync(join(path, 'mounted'), { recursive: true });
  mkdirSync(outside);
  writeFileSync(join(outside, 'file'), '');
  symlinkSync(outside, join(path, 'link'));
  mount(outside, join(path, 'mounted'), '', constants.MS_BIND, '');
  try {
    assert.equal((await treeUsage(path)).inodes, 3, 'the root, the link, the place of the mount');
    await assert.rejects(removeTree(path), { code: 'EXDEV' });
  } finally {
    unmount(join(path, 'mounted'), constants.MNT_DETACH);
  }
  assert.deepEqual(readdirSync(outside), ['file']);
  await removeTree(path);
  assert.deepEqual(readdirSync(base), ['outside']);
});

test('a copy has everything: owners, modes, times, attributes, hard links, devices, holes', async (context) => {
  const base = folder(context);
  const [from, to] = [join(base, 'from'), join(base, 'to')];
  for (const each of [from, to]) mkdirSync(each);
  const at = (seconds: number) => ({ seconds, nanos: 987_654_321 });
  const stamp = (name: string, mode: number, id: number) =>
    setAttributes(join(from, name), { mode, uid: id, gid: id + 1, atime: at(id), mtime: at(-id) });
  mkdirSync(join(from, 'folder'));
  writeFileSync(join(from, 'folder/file'), Buffer.alloc(100_000, 'moored '));
  linkSync(join(from, 'folder/file'), join(from, 'name'));
  writeFileSync(join(from, 'sparse'), 'begin');
  truncateSync(join(from, 'sparse'), 1 << 24);
  writeFileSync(join(from, 'sparse'), 'end', { flag: 'a' });
  symlinkSync('nowhere', join(from, 'link'));
  mknod(join(from, 'device'), S_IF.CHR | 0o600, 510, 70_000);
  mknod(join(from, 'whiteout'), S_IF.CHR, 0, 0);
  mknod(join(from, 'fifo'), S_IF.FIFO | 0o600, 0, 0);
  writeFileSync(`${from}/\u00ff`, '');
  const capability = Buffer.from('0100000280000000000000000000000000000000', 'hex');
  stamp('folder/file', S_IF.REG | 0o4751, 12345);
  setXattr(join(from, 'folder/file'), 'security.capability', capability);
  setXattr(join(from, 'folder'), 'trusted.overlay.opaque', Buffer.from('y'));
  stamp('device', S_IF.CHR | 0o666, 20);
  stamp('link', S_IF.LNK | 0o777, 30);
  stamp('folder', S_IF.DIR | 0o1777, 40);
  stamp('', S_IF.DIR | 0o555, 50);

  await copyTree(from, to);
  const names = [
    '',
    'folder',
    'folder/file',
    'name',
    'sparse',
    'link',
    'device',
    'whiteout',
    'fifo',
    '\u00ff',
  ];
  for (const name of names) {
    const [expected, actual] = [lstat(join(from, name)), lstat(join(to, name))];
    assert.deepEqual({ ...actual, identity: '', atime: '' }, { ...expected, identity: '', atime: '' }, name);
  }
  assert.deepEqual(lstat(join(to, 'name'))?.identity, lstat(join(to, 'folder/file'))?.identity);
  assert.deepEqual(readFileSync(join(to, 'name')), readFileSync(join(from, 'name')));
  assert.deepEqual(getXattr(join(to, 'name'), 'security.capability'), capability);
  assert.deepEqual(getXattr(join(to, 'folder'), 'trusted.overlay.opaque'), Buffer.from('y'));
  assert.ok(lstatSync(join(to, 'sparse')).blocks < 100);
  assert.equal(spawnSync('cmp', [join(from, 'sparse'), join(to, 'sparse')]).status, 0);
});

test('a cancelled job ends with the reason', async (context) => {
  const base = folder(context);
  for (const name of ['from', 'to']) mkdirSync(join(base, name));
  for (let index = 0; index < 500; index++) writeFileSync(join(base, 'from', String(index)), 'x');
  const reason = new Error('not wanted any more');
  const abort = new AbortController();
  const copying = copyTree(join(base, 'from'), join(base, 'to'), abort.signal);
  abort.abort(reason);
  await assert.rejects(copying, reason);
  assert.ok(readdirSync(join(base, 'to')).length < 500);
  await assert.rejects(removeTree(base, abort.signal), reason);
  assert.ok(existsSync(base));
});
