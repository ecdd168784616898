/** Containers of an image in a user namespace: their root is nobody on the host, and owns its files all the same. */
import assert from 'node:assert/strict';
import { chmodSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { SnapshotsDefinition } from '../proto/gen/containerd/services/snapshots.ts';
import { busyboxImage, ociArchive } from './harness/image.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { Moor } from './harness/moor.ts';
import { type Rig, suite } from './harness/peers.ts';

const IMAGE = 'example.com/mapped:1';
const HOST = 100_000;
const maps = ['--uidmap', `0:${HOST}:65536`, '--gidmap', `0:${HOST}:65536`];
const look = [
  'sh',
  '-c',
  'id -u; stat -c %u:%g /bin/busybox /etc/passwd; echo mine >/etc/mine; cat /etc/mine',
];
const seen = '0\n0:0\n0:0\nmine\n';

async function imported(rig: Rig): Promise<void> {
  // The container's root has to find its way to its files.
  chmodSync(rig.daemon.directory, 0o711);
  const archive = join(rig.daemon.directory, 'i.tar');
  await rig.ctr.ok('images', 'import', ociArchive(archive, [[IMAGE], await busyboxImage()]));
}

async function ownerOf(rig: Rig, id: string): Promise<string> {
  const pid = (await rig.ctr.task(id))?.pid ?? 0;
  return /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '';
}

suite('ctr run in a user namespace', {}, (rig) => {
  before(() => imported(rig));

  it('--uidmap and --gidmap shift the owners of the image’s files', async () => {
    const { ctr } = rig;
    for (const id of ['one', 'two']) {
      const { code, stdout, stderr } = await ctr.runImage(IMAGE, id, look, maps);
      assert.equal(code, 0, stderr);
      assert.equal(stdout, seen);
    }
    await ctr.ok('run', '-d', '--null-io', ...maps, IMAGE, 'stays', 'sleep', '1000');
    assert.equal(await ownerOf(rig, 'stays'), String(HOST));
    assert.equal((await ctr.exec('stays', ['id', '-u'])).stdout, '0\n');
    await ctr.remove('stays');
  });
});

suite('user namespaces', { peers: ['moord'] }, (rig) => {
  before(() => imported(rig));

  it('--remap-labels has the snapshotter shift them', async () => {
    const { ctr } = rig;
    for (const snapshotter of ['overlayfs', 'native']) {
      const flags = [...maps, '--remap-labels', '--snapshotter', snapshotter];
      const { code, stdout, stderr } = await ctr.runImage(IMAGE, 'labelled', look, flags);
      assert.equal(code, 0, stderr);
      assert.equal(stdout, seen);
    }
  });

  it('moor run does both, and leaves nothing', async () => {
    const { ctr, daemon } = rig;
    const moor = new Moor(daemon, ctr.namespace);
    await ctr.tasks();
    const held = holdings(daemon);
    for (const flags of [maps, maps, [...maps, '--remap-labels']]) {
      const { code, stdout, stderr } = await moor.call(['run', '--rm', ...flags, IMAGE, 'moored', ...look]);
      assert.equal(code, 0, stderr);
      assert.equal(stdout, seen);
    }
    await moor.ok('run', '-d', '--null-io', ...maps, IMAGE, 'stays', 'sleep', '1000');
    assert.equal(await ownerOf(rig, 'stays'), String(HOST));
    await ctr.remove('stays');
    await expectNothingLeft(daemon, held, { except: /^descriptor/ });
  });

  it('what cannot be shifted is refused, with nothing left', async () => {
    const { ctr, daemon } = rig;
    using connection = daemon.connect();
    const snapshots = connection.service(SnapshotsDefinition, ctr.namespace);
    const prepare = (mapping: string) =>
      snapshots.prepare({
        snapshotter: 'overlayfs',
        key: 'shifted',
        labels: { 'containerd.io/snapshot/uidmapping': mapping },
      });
    await assert.rejects(prepare('0:x:1'), /not container:host:length: 0:x:1/);
    await assert.rejects(prepare('5:100000:10'), /must begin at 0/);
    await assert.rejects(prepare('0:1:1,1:5:9'), /several mappings/);
    await assert.rejects(snapshots.stat({ snapshotter: 'overlayfs', key: 'shifted' }), /not found/);
  });
});
