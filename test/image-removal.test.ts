/**
 * Removing the images of a namespace frees what they took, on disk as well, and takes nothing from another namespace that has the same
 * blobs.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { LeasesDefinition } from '../proto/gen/containerd/services/leases.ts';
import type { Ctr } from './harness/ctr.ts';
import { mountsBelow } from './harness/daemon.ts';
import {
  type MadeImage,
  type MultiPlatform,
  busyboxImage,
  dockerArchive,
  multiPlatform,
  ociArchive,
  piecesOf,
} from './harness/image.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { LocalRegistry } from './harness/registry.ts';
import { blobsOnDisk, ingestsOnDisk, snapshotsOnDisk } from './harness/storage.ts';
import { eventually } from './harness/wait.ts';

const snapshotters = ['overlayfs', 'native'];

suite('removing images', {}, (rig) => {
  const path = (name: string): string => join(rig.daemon.directory, name);
  const blobsOf = (...images: (MadeImage | MultiPlatform)[]): string[] =>
    [...new Set(images.flatMap(piecesOf).map(({ digest }) => digest))].sort();
  /** Fails unless the namespace has nothing at all. */
  const expectEmpty = async (ctr: Ctr): Promise<void> => {
    assert.deepEqual(await ctr.images(), []);
    assert.deepEqual(await ctr.digests(), []);
    for (const snapshotter of snapshotters) assert.equal(await ctr.snapshots(snapshotter), 0, snapshotter);
  };
  /** Fails unless the daemon stores what these namespaces see and no more. */
  const expectStored = async (...namespaces: Ctr[]): Promise<void> => {
    const seen = (await Promise.all(namespaces.map((ctr) => ctr.digests()))).flat();
    assert.deepEqual(blobsOnDisk(rig.daemon), [...new Set(seen)].sort());
    assert.deepEqual(ingestsOnDisk(rig.daemon), []);
    for (const snapshotter of snapshotters) {
      let count = 0;
      for (const ctr of namespaces) count += await ctr.snapshots(snapshotter);
      // The files go when the names have gone: a collection does not wait for that.
      await eventually(
        `there are ${count} folders of ${snapshotter}`,
        () => snapshotsOnDisk(rig.daemon, snapshotter).length === count,
      );
    }
  };
  const said = async (ctr: Ctr, image: string, snapshotter = 'overlayfs'): Promise<string> => {
    const flags = ['--snapshotter', snapshotter];
    const { code, stdout, stderr } = await ctr.runImage(image, 'box', ['cat', '/etc/motd'], flags);
    assert.equal(code, 0, stderr);
    return stdout;
  };

  let registry: LocalRegistry;
  before(async () => {
    registry = await LocalRegistry.start();
  });
  after(() => registry[Symbol.asyncDispose]());

  it('frees every blob and snapshot of the namespace, and nothing of another with the same', async () => {
    const [one, other] = [rig.daemon.ctr(), rig.daemon.ctr()];
    const held = holdings(rig.daemon);
    const motd = (text: string) => ({ above: [{ 'etc/motd': text }] });
    const [low, high, arm, saved] = await Promise.all([
      busyboxImage(motd('low')),
      busyboxImage({ above: [{ 'etc/motd': 'low' }, { 'etc/motd': 'high' }] }),
      busyboxImage({ architecture: 'arm64', ...motd('arm') }),
      busyboxImage({ plain: true, docker: true, ...motd('saved') }),
    ]);
    const both = multiPlatform({ amd64: low, arm64: arm });
    const oci = ociArchive(path('i.tar'), [['example.com/both:1'], both], [['example.com/high:1'], high]);
    const docker = dockerArchive(path('d.tar'), [['example.com/saved:1'], saved]);
    const pulled = registry.image('removal', '1');
    for (const ctr of [one, other]) {
      await ctr.ok('images', 'import', '--all-platforms', oci);
      await ctr.ok('images', 'import', docker);
      await ctr.ok('images', 'tag', 'example.com/high:1', pulled, 'example.com/again:1');
      await ctr.ok('images', 'push', '--plain-http', pulled);
      await ctr.ok('images', 'pull', '--plain-http', '--snapshotter', 'native', pulled);
    }
    await one.ok('images', 'convert', '--uncompress', '--oci', 'example.com/high:1', 'example.com/plain:1');
    assert.equal(await said(one, 'example.com/plain:1'), 'high');
    await other.ok('run', '-d', '--null-io', 'example.com/high:1', 'long', 'sleep', '100');
    await expectStored(one, other);

    await one.removeImages();
    await expectEmpty(one);
    await expectStored(other);
    await one.ok('namespaces', 'rm', one.namespace);
    for (const digest of blobsOf(both, high)) assert.ok((await other.digests()).includes(digest), digest);
    assert.match(await other.ok('images', 'check'), /complete/);
    assert.doesNotMatch(await other.ok('images', 'check'), /incomplete|unavailable|false/);
    assert.equal(await said(other, 'example.com/both:1'), 'low');
    assert.equal(await said(other, 'example.com/saved:1'), 'saved');
    assert.equal(await said(other, pulled, 'native'), 'high');
    assert.equal((await other.exec('long', ['cat', '/etc/motd'])).stdout, 'high');

    await other.removeImages();
    assert.deepEqual(await other.digests(), []);
    assert.deepEqual(blobsOnDisk(rig.daemon), []);
    // The container has its own snapshot, and with it those below.
    assert.equal(await other.snapshots('overlayfs'), 1 + high.layers.length);
    assert.equal((await other.exec('long', ['cat', '/etc/motd'])).stdout, 'high');
    await other.remove('long');
    await other.ok('snapshots', 'rm', 'long').catch(() => undefined);
    await other.ok('leases', 'create', '--id', 'collect');
    await other.ok('leases', 'rm', '--sync', 'collect');
    await expectEmpty(other);
    await expectStored();
    await other.ok('namespaces', 'rm', other.namespace);
    assert.deepEqual(mountsBelow(rig.daemon.root), []);
    // containerd opens each snapshotter's database when it is first used.
    await expectNothingLeft(rig.daemon, held, { except: /metadata\.db/ });
  });

  it('without --sync everything goes soon', async (context) => {
    if (rig.peer === 'containerd') return context.skip('it may wait for more to do');
    const ctr = rig.daemon.ctr();
    const file = ociArchive(path('soon.tar'), [['example.com/soon:1'], await busyboxImage()]);
    await ctr.ok('images', 'import', file);
    await ctr.ok('images', 'rm', 'example.com/soon:1');
    await eventually('nothing is left', async () => (await ctr.digests()).length === 0, { within: 30_000 });
    await expectEmpty(ctr);
    await expectStored();
  });

  it('what a lease or a label holds stays until that goes', async () => {
    const ctr = rig.daemon.ctr();
    const image = await busyboxImage();
    const [layer, config] = [image.layers[0]!.digest, image.config.digest];
    await ctr.ok('images', 'import', ociArchive(path('held.tar'), [['example.com/held:1'], image]));
    using connection = rig.daemon.connect();
    const leases = connection.service(LeasesDefinition, ctr.namespace);
    await leases.create({ id: 'holder' });
    await leases.addResource({ id: 'holder', resource: { id: layer, type: 'content' } });
    // The lower of two snapshots is called as its layer.
    const resource = { id: image.diffIds[0]!, type: 'snapshots/overlayfs' };
    await leases.addResource({ id: 'holder', resource });
    await ctr.ok('content', 'label', config, 'containerd.io/gc.root=test');
    await ctr.removeImages();
    assert.deepEqual(await ctr.digests(), [layer, config].sort());
    // The configuration refers to the snapshot of the whole image.
    assert.equal(await ctr.snapshots('overlayfs'), 2);
    await expectStored(ctr);
    await ctr.ok('content', 'label', config, 'containerd.io/gc.root=');
    await ctr.ok('leases', 'create', '--id', 'collect');
    await ctr.ok('leases', 'rm', '--sync', 'collect');
    assert.deepEqual(await ctr.digests(), [layer]);
    assert.equal(await ctr.snapshots('overlayfs'), 1);
    await expectStored(ctr);
    await ctr.ok('leases', 'rm', '--sync', 'holder');
    await expectEmpty(ctr);
    await expectStored();
  });

  it('one namespace removes while another takes in the same: the other’s images are whole', async () => {
    const [one, other] = [rig.daemon.ctr(), rig.daemon.ctr()];
    const image = await busyboxImage({ above: [{ 'etc/motd': 'here' }] });
    const file = ociArchive(path('race.tar'), [['example.com/race:1'], image]);
    for (let round = 0; round < 4; round += 1) {
      await one.ok('images', 'import', file);
      await Promise.all([
        one.ok('images', 'rm', '--sync', 'example.com/race:1'),
        other.ok('images', 'import', file),
      ]);
      await expectEmpty(one);
      const there = await other.digests();
      // The archive's own index is there too until the next collection.
      for (const digest of blobsOf(image)) assert.ok(there.includes(digest), digest);
      assert.equal(await said(other, 'example.com/race:1'), 'here');
      await other.removeImages();
      await expectEmpty(other);
      await expectStored();
    }
  });
});
