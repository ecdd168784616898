/** Snapshots by Debian's ctr and by a gRPC client, on both snapshotters that every host has. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { SnapshotsDefinition } from '../proto/gen/containerd/services/snapshots.ts';
import { Code } from '../ttrpc/errors.ts';
import { Daemon } from './harness/daemon.ts';
import { type Rig, suite } from './harness/peers.ts';
import { snapshotFolder, snapshotsOnDisk } from './harness/storage.ts';
import { eventually } from './harness/wait.ts';

/** Mounts as `ctr snapshots mounts` says to, lets `act` work there, and unmounts. */
async function mounted<T>(
  { daemon, ctr }: Rig,
  snapshotter: string,
  key: string,
  act: (path: string) => T,
): Promise<T> {
  const path = join(daemon.directory, `mnt-${snapshotter}-${key}`);
  mkdirSync(path);
  const command = await ctr.ok('snapshots', '--snapshotter', snapshotter, 'mounts', path, key);
  execFileSync('sh', ['-c', command]);
  try {
    return act(path);
  } finally {
    execFileSync('umount', [path]);
  }
}

suite('ctr snapshots', {}, (rig) => {
  for (const snapshotter of ['overlayfs', 'native']) {
    const ctr = (...args: string[]): Promise<string> =>
      rig.ctr.ok('snapshots', '--snapshotter', snapshotter, ...args);
    const refused = async (text: RegExp, ...args: string[]): Promise<void> => {
      const { code, stderr } = await rig.ctr.call(['snapshots', '--snapshotter', snapshotter, ...args]);
      assert.equal(code, 1);
      assert.match(stderr, text);
    };
    const rows = async (): Promise<string[]> =>
      (await ctr('ls'))
        .trim()
        .split('\n')
        .slice(1)
        .map((line) => line.trim().replace(/\s+/g, ' '))
        .sort();

    it(`prepare, mount, commit, view and remove layers of ${snapshotter}`, async () => {
      await ctr('prepare', 'active');
      await mounted(rig, snapshotter, 'active', (path) => writeFileSync(join(path, 'file'), 'one'));
      await ctr('commit', 'one', 'active');
      await ctr('prepare', 'box', 'one');
      await mounted(rig, snapshotter, 'box', (path) => {
        assert.equal(readFileSync(join(path, 'file'), 'utf8'), 'one');
        writeFileSync(join(path, 'file'), 'box');
      });
      // By ctr it would be nobody's, and might be collected before it has a label.
      const labels = { 'containerd.io/gc.root': 'test' };
      using connection = rig.daemon.connect();
      await connection
        .service(SnapshotsDefinition, rig.ctr.namespace)
        .view({ snapshotter, key: 'view', parent: 'one', labels });
      await ctr('label', 'view', 'colour=blue');
      await mounted(rig, snapshotter, 'view', (path) => {
        assert.equal(readFileSync(join(path, 'file'), 'utf8'), 'one');
        assert.throws(() => writeFileSync(join(path, 'file'), ''), { code: 'EROFS' });
      });
      assert.deepEqual(await rows(), ['box one Active', 'one Committed', 'view one View']);
      const info = JSON.parse(await ctr('info', 'view')) as {
        Kind: string;
        Parent: string;
        Labels: { colour: string };
      };
      assert.deepEqual([info.Kind, info.Parent, info.Labels.colour], ['View', 'one', 'blue']);
      assert.deepEqual(
        (await ctr('tree'))
          .trim()
          .split('\n')
          .map((line) => line.trim()),
        ['one', '\\_ box', '\\_ view'],
      );
      const [, size, inodes] = (await ctr('usage', '-b', 'one'))
        .trim()
        .split('\n')
        .at(-1)!
        .trim()
        .split(/\s+/);
      assert.equal(inodes, '2');
      assert.ok(Number(size) >= 4096);

      await refused(/"box": already exists/, 'prepare', 'box', 'one');
      await refused(/parent snapshot none does not exist: not found/, 'prepare', 'x', 'none');
      // containerd looks for the files of the view first, of which native has none.
      if (rig.peer === 'moord' || snapshotter === 'overlayfs')
        await refused(/view" is not active: failed precondition/, 'commit', 'two', 'view');
      await refused(/child: failed precondition/, 'rm', 'one');
      await refused(/does not exist: not found/, 'rm', 'none');
      await ctr('rm', 'box', 'view');
      await ctr('rm', 'one');
      assert.deepEqual(await rows(), []);
      // containerd lets them lie until something else starts a collection.
      if (rig.peer === 'moord')
        await eventually('the files are gone', () => snapshotsOnDisk(rig.daemon, snapshotter).length === 0);
    });
  }

  it('plugins ls says which snapshotters work here', async () => {
    const lines = (await rig.ctr.ok('plugins', 'ls')).split('\n').map((line) => line.split(/\s+/));
    const status = (id: string) =>
      lines.find(([type, name]) => type === 'io.containerd.snapshotter.v1' && name === id)?.[3];
    assert.deepEqual([status('overlayfs'), status('native')], ['ok', 'ok']);
    // Debian's containerd is built without it.
    if (rig.peer === 'moord') assert.equal(status('btrfs'), 'skip');
    assert.ok(existsSync(snapshotFolder(rig.daemon, 'native')));
  });

  it('are known by their codes to other clients', async () => {
    using connection = rig.daemon.connect();
    const snapshots = connection.service(SnapshotsDefinition);
    const as = { metadata: [['containerd-namespace', rig.ctr.namespace]] as const };
    const key = { snapshotter: 'overlayfs', key: 'x' };
    const refused = (call: Promise<unknown>, code: Code) => assert.rejects(call, { code });
    await refused(snapshots.stat(key, as), Code.NotFound);
    await refused(snapshots.stat({ ...key, snapshotter: '' }, as), Code.InvalidArgument);
    await refused(snapshots.stat({ ...key, snapshotter: 'none' }, as), Code.InvalidArgument);
    await refused(snapshots.stat(key), Code.FailedPrecondition);
    await snapshots.prepare({ ...key, labels: { 'containerd.io/gc.root': 'x', a: '1' } }, as);
    await refused(snapshots.prepare(key, as), Code.AlreadyExists);
    await refused(snapshots.prepare({ ...key, key: 'y', parent: 'x' }, as), Code.InvalidArgument);
    const target = { 'containerd.io/snapshot.ref': 'x' };
    await refused(snapshots.prepare({ ...key, key: 'y', labels: target }, as), Code.AlreadyExists);
    const change = { snapshotter: 'overlayfs', info: { name: 'x', labels: { b: '2' } } };
    const { info } = await snapshots.update({ ...change, updateMask: ['labels.b', 'labels.a'] }, as);
    assert.deepEqual(info?.labels, { 'containerd.io/gc.root': 'x', b: '2' });
    await refused(snapshots.update({ ...change, updateMask: ['parent'] }, as), Code.InvalidArgument);
    const names: string[] = [];
    const filters = ['kind==active,labels.b==2'];
    for await (const block of snapshots.list({ snapshotter: 'overlayfs', filters }, as)) {
      names.push(...block.info.map(({ name }) => name));
    }
    assert.deepEqual(names, ['x']);
    await refused(snapshots.mounts({ snapshotter: 'overlayfs', key: 'none' }, as), Code.NotFound);
    // containerd serves the method, and has nothing behind it.
    if (rig.peer === 'moord') await snapshots.cleanup({ snapshotter: 'overlayfs' }, as);
    assert.equal((await snapshots.mounts(key, as)).mounts.length, 1);
    await snapshots.remove(key, as);
  });

  it('outlive kill -9 of the daemon, and what was removed does not', async () => {
    await using daemon = await Daemon.start(rig.peer);
    const ctr = daemon.ctr();
    // Characters of one to four bytes.
    const box = 'Kästchen-箱-📦';
    await ctr.ok('snapshots', 'prepare', 'active');
    await ctr.ok('snapshots', 'commit', 'one', 'active');
    await ctr.ok('snapshots', 'prepare', box, 'one');
    await ctr.ok('snapshots', 'prepare', 'other', 'one');
    const mounts = await ctr.ok('snapshots', 'mounts', '/x', box);
    await ctr.ok('snapshots', 'rm', 'other');
    await daemon.restart();
    assert.equal(await ctr.ok('snapshots', 'mounts', '/x', box), mounts);
    assert.match(await ctr.ok('snapshots', 'ls'), new RegExp(`^${box} `, 'm'));
    assert.match((await ctr.call(['snapshots', 'info', 'other'])).stderr, /not found/);
    await ctr.ok('snapshots', 'rm', box);
    if (rig.peer !== 'moord') return;
    await eventually('one is left', () => snapshotsOnDisk(daemon).length === 1);
  });
});
