import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { constants, mkfifo, mount } from '../../native/native.ts';
import { parseId, parseNamespace } from '../identifiers.ts';
import { Bundle, exitOfRemains, listBundles, removeEmpty, removeRemains } from './bundle.ts';
import { mountedBelow } from './rootfs.ts';

function bundle(t: TestContext): { bundle: Bundle; tasks: string } {
  const tasks = mkdtempSync('/tmp/moor-bundle-');
  t.after(() => rmSync(tasks, { recursive: true, force: true }));
  const made = new Bundle(tasks, parseNamespace('ns'), parseId('a'));
  made.create({ spec: Buffer.from('{}'), options: Buffer.from('o') });
  return { bundle: made, tasks };
}

test('a bundle has what the runtime reads, for root alone', (t) => {
  const { bundle: made } = bundle(t);
  assert.deepEqual(readdirSync(made.path).sort(), ['config.json', 'options', 'rootfs']);
  assert.equal(statSync(made.path).mode & 0o777, 0o711);
  assert.equal(statSync(join(made.path, 'config.json')).mode & 0o777, 0o600);
  assert.throws(() => made.create({ spec: Buffer.from('{}'), options: undefined }), { code: 'EEXIST' });
});

test('a hidden bundle cannot be found any more, but how its task ended can', async (t) => {
  const { bundle: made, tasks } = bundle(t);
  made.writeExit({ pid: 4, status: 42, exitedAt: { seconds: 1n, nanos: 0 }, published: true });
  const path = made.hide();
  assert.ok(path !== undefined);
  assert.equal(made.hide(), undefined);
  const { bundles, remains } = listBundles(tasks);
  assert.deepEqual([bundles.length, remains.length], [0, 1]);
  assert.equal(remains[0]!.id, 'a');
  assert.equal(exitOfRemains(remains[0]!)?.status, 42);
  await removeRemains(path);
  removeEmpty(tasks);
  assert.deepEqual(readdirSync(tasks), [], 'the empty namespace is gone too');
});

test('what is mounted in a bundle outlives its removal', async (t) => {
  const { bundle: made, tasks } = bundle(t);
  const treasure = join(tasks, '.treasure');
  mkdirSync(treasure);
  writeFileSync(join(treasure, 'file'), 'kept');
  const nested = join(made.path, 'nested dir', 'deep');
  mkdirSync(nested, { recursive: true });
  for (const target of [made.rootfs, made.rootfs, nested]) mount(treasure, target, '', constants.MS_BIND, '');
  const path = made.hide();
  await removeRemains(path!);
  assert.ok(!existsSync(path!));
  assert.equal(readFileSync(join(treasure, 'file'), 'utf8'), 'kept');
  assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes(tasks));
});

test('a mount in use does not keep a bundle from being removed', async (t) => {
  const { bundle: made } = bundle(t);
  mount('tmpfs', made.rootfs, 'tmpfs', 0, '');
  const user = execFileSync('sh', ['-c', 'cd "$1"; sleep 30 >/dev/null 2>&1 & echo $!', 'sh', made.rootfs], {
    encoding: 'utf8',
  });
  try {
    await removeRemains(made.hide()!);
    assert.ok(!existsSync(made.path));
  } finally {
    process.kill(Number(user), 'SIGKILL');
  }
});

test('only what is a task is listed as one', (t) => {
  const { bundle: made, tasks } = bundle(t);
  mkdirSync(join(tasks, 'ns', '.hidden'));
  mkdirSync(join(tasks, '-odd'));
  const { bundles, strangers } = listBundles(tasks);
  assert.deepEqual(
    bundles.map(({ path }) => path),
    [made.path],
  );
  assert.deepEqual(strangers.map((path) => path.slice(tasks.length)).sort(), ['/-odd', '/ns/.hidden']);
});

test('the tail of a log is told, unless the log is a FIFO', (t) => {
  const { bundle: made } = bundle(t);
  assert.equal(made.logTail(10), '');
  writeFileSync(made.log, 'first line\nlast line\n');
  assert.equal(made.logTail(10), 'last line');
  rmSync(made.log);
  mkfifo(made.log, 0o600);
  assert.equal(made.logTail(10), '');
});

test('mount points are read with their escapes, the latest first', () => {
  const line = (target: string) => `36 35 98:0 / ${target} rw,noatime - ext3 /dev/root rw`;
  const text = [line('/a'), line('/a/b'), line('/ab'), line('/a/c\\040d'), ''].join('\n');
  assert.deepEqual(mountedBelow(text, '/a'), ['/a/c d', '/a/b', '/a']);
});
