import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { constants, mount, unmount } from '../../native/native.ts';
import { Code } from '../../ttrpc/errors.ts';
import { Collector } from '../gc/collector.ts';
import type { GcResource } from '../gc/resource.ts';
import { parseNamespace } from '../identifiers.ts';
import { openLog } from '../log.ts';
import { Database } from '../metadata/database.ts';
import { NamespaceStore } from '../metadata/namespaces.ts';
import { mountOf } from './btrfs.ts';
import { Overlayfs } from './overlayfs.ts';
import { Snapshotters } from './snapshotters.ts';
import { LoopFilesystem } from './testing/loop.ts';

function folder(context: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'moor-snapshotters-'));
  context.after(() => rmSync(path, { recursive: true }));
  return path;
}

test('a snapshotter that this host cannot have, or is not to have, is refused by name, and the others work', async (context) => {
  const root = folder(context);
  const database = await Database.open(join(root, 'metadata'));
  const surroundings = { database, exchange: { publish: () => undefined }, log: openLog('fatal') };
  const snapshotters = await Snapshotters.open(root, surroundings, {
    isDisabled: (name) => name === 'native',
  });
  assert.deepEqual(
    snapshotters.all.map(({ name }) => name),
    ['overlayfs'],
  );
  snapshotters.check('overlayfs');
  assert.throws(
    () => snapshotters.check('btrfs'),
    /snapshots\/btrfs \(.+\) must be a btrfs filesystem .*: skip plugin$/,
  );
  assert.throws(() => snapshotters.get('btrfs'), {
    code: Code.InvalidArgument,
    message: /not loaded: btrfs/,
  });
  assert.throws(() => snapshotters.get('native'), { code: Code.InvalidArgument });
  assert.throws(() => snapshotters.get(''), { code: Code.InvalidArgument, message: /argument missing/ });
  assert.deepEqual(readdirSync(join(root, 'snapshots')), ['overlayfs', 'overlayfs.probed']);
  await snapshotters.close();
  await database.close();
});

test('what a snapshotter that is away has made is still scanned, and collected when nothing needs it', async (context) => {
  const root = folder(context);
  const database = await Database.open(join(root, 'metadata'));
  const log = openLog('fatal');
  const surroundings = { database, exchange: { publish: () => undefined }, log };
  const isDisabled = (name: string): boolean => name !== 'native';
  const namespace = parseNamespace('here');
  const open = (isAway: boolean): Promise<Snapshotters> =>
    Snapshotters.open(root, surroundings, { isDisabled: (name) => isAway || isDisabled(name) });
  const before = await open(false);
  const native = before.get('native');
  const needs = { 'containerd.io/gc.ref.content': 'sha256:x' };
  await native.prepare(namespace, 'kept', '', { labels: { 'containerd.io/gc.root': 'x', ...needs } });
  await native.prepare(namespace, 'lost', '');
  await before.close();

  const away = await open(true);
  const facts = { root: false, references: [], labels: {} };
  const taken: string[] = [];
  const content: GcResource = {
    kind: 'content',
    list: () => ['sha256:x', 'sha256:y'].map((id) => ({ id, facts })),
    get: () => undefined,
    remove: (_transaction, _namespace, id) => void taken.push(id),
  };
  const collector = new Collector(database, [content, ...away.resources(surroundings)], log);
  const { removed } = await collector.collect();
  assert.deepEqual(taken, ['sha256:y']);
  assert.deepEqual(
    removed.map(({ kind, id }) => `${kind} ${id}`),
    ['snapshot/native lost', 'content sha256:y'],
  );
  await assert.rejects(new NamespaceStore(database).delete(namespace), /snapshots on "native" snapshotter/);
  await away.close();

  const after = await open(false);
  assert.deepEqual(
    after
      .get('native')
      .list(namespace)
      .map(({ name }) => name),
    ['kept'],
  );
  await after.get('native').cleanup();
  assert.equal(readdirSync(join(root, 'snapshots/native')).length, 1);
  await after.close();
  await database.close();
});

test('a snapshotter keeps its files where the configuration says, mounts with its options and tells its folders', async (context) => {
  const root = folder(context);
  const database = await Database.open(join(root, 'metadata'));
  const surroundings = { database, exchange: { publish: () => undefined }, log: openLog('fatal') };
  const namespace = parseNamespace('here');
  const snapshotters = await Snapshotters.open(root, surroundings, {
    isDisabled: (name) => name !== 'overlayfs',
    settings: () => ({
      root_path: join(root, 'elsewhere'),
      mount_options: ['metacopy=off'],
      upperdir_label: true,
      sync_remove: true,
    }),
  });
  const overlay = snapshotters.get('overlayfs');
  await overlay.prepare(namespace, 'base', '');
  await overlay.commit(namespace, 'one', 'base');
  const [mount] = await overlay.prepare(namespace, 'box', 'one');
  assert.ok(mount!.options.includes('metacopy=off'), mount!.options.join());
  const upper = join(root, 'elsewhere', '2', 'fs');
  const label = 'containerd.io/snapshot/overlay.upperdir';
  assert.equal(overlay.stat(namespace, 'box').labels[label], upper);
  assert.deepEqual(
    overlay.list(namespace, [`labels."${label}"=="${upper}"`]).map(({ name }) => name),
    ['box'],
  );
  await overlay.remove(namespace, 'box');
  assert.deepEqual(readdirSync(join(root, 'elsewhere')), ['1']);
  await snapshotters.close();
  await database.close();
});

test('overlays are refused where they would show deleted files', async () => {
  using loop = new LoopFilesystem('ext4', 64, '-O', '^filetype');
  await assert.rejects(Overlayfs.open(join(loop.path, 'snapshots')), /does not support d_type/);
  assert.deepEqual(readdirSync(join(loop.path, 'snapshots')), []);
});

test('overlays are refused where the kernel refuses them, with its reason', async (context) => {
  await assert.rejects(Overlayfs.open(join(folder(context), 'a:b')), /a:b: its path has a colon/);
  const path = join(folder(context), 'merged');
  for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(join(path, '..', name));
  const at = (name: string): string => join(path, '..', name);
  mount(
    'overlay',
    path,
    'overlay',
    0,
    `lowerdir=${at('lower')},upperdir=${at('upper')},workdir=${at('work')}`,
  );
  try {
    await assert.rejects(
      Overlayfs.open(join(path, 'snapshots')),
      /overlayfs cannot be used on .*: mount .*: E[A-Z]+/,
    );
  } finally {
    unmount(path, constants.MNT_DETACH);
  }
});

test('overlays are tried once a boot, and again when a record is of another one', async (context) => {
  const root = folder(context);
  const probed = join(folder(context), 'below/probed');
  const isTried = async (): Promise<boolean> => {
    // What a probe makes and removes changes it.
    utimesSync(root, 0, 0);
    await Overlayfs.open(root, { probed });
    return statSync(root).mtimeMs !== 0;
  };
  assert.equal(await isTried(), true);
  assert.equal(await isTried(), false);
  writeFileSync(probed, 'boot 0\n');
  assert.equal(await isTried(), true);
  assert.equal(await isTried(), false);
});

test('what a probe has left that was killed is cleared away', async (context) => {
  const root = folder(context);
  const at = (name: string): string => join(root, 'probe', name);
  for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(at(name), { recursive: true });
  mount(
    'overlay',
    at('merged'),
    'overlay',
    0,
    `lowerdir=${at('lower')},upperdir=${at('upper')},workdir=${at('work')}`,
  );
  await Overlayfs.open(root);
  assert.deepEqual(readdirSync(root), []);
  assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes(root));
});

test('the mount of a path is the deepest and latest that holds it', () => {
  const mountinfo = [
    '22 1 254:0 / / rw - ext4 /dev/vda rw',
    '30 22 7:0 / /var/lib\\040a rw shared:1 - xfs /dev/loop0 rw',
    '31 30 7:1 / /var/lib\\040a rw shared:2 master:1 - btrfs /dev/my\\040disk rw,subvolid=5',
    '32 22 0:3 / /var/lib rw - tmpfs none rw',
    '',
  ].join('\n');
  assert.deepEqual(mountOf('/var/lib a/x', mountinfo), { type: 'btrfs', source: '/dev/my disk' });
  assert.deepEqual(mountOf('/var/lib/x', mountinfo), { type: 'tmpfs', source: 'none' });
  assert.deepEqual(mountOf('/var/library', mountinfo), { type: 'ext4', source: '/dev/vda' });
});
