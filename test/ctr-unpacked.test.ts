/** Snapshots that hold an image, by Debian's ctr: unpacked, looked into, changed, compared, and held. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, it } from 'node:test';
import { busyboxImage, ociArchive } from './harness/image.ts';
import { suite } from './harness/peers.ts';

suite('ctr and the snapshots of an image', {}, (rig) => {
  const path = (name: string): string => join(rig.daemon.directory, name);
  const collect = async (): Promise<void> => {
    await rig.ctr.ok('leases', 'create', '--id', 'collect');
    await rig.ctr.ok('leases', 'rm', '--sync', 'collect');
  };
  /** What an archive that ctr prints has in it. */
  const listing = async (...args: string[]): Promise<string[]> => {
    await rig.ctr.save(path('out'), ...args);
    return execFileSync('tar', ['-tf', path('out')], { encoding: 'utf8' })
      .trimEnd()
      .split('\n')
      .sort();
  };
  afterEach(async () => {
    await rig.ctr.removeImages();
    for (const snapshotter of ['overlayfs', 'native']) assert.equal(await rig.ctr.snapshots(snapshotter), 0);
  });

  for (const snapshotter of ['overlayfs', 'native']) {
    const snapshots = (...args: string[]) => rig.ctr.ok('snapshots', '--snapshotter', snapshotter, ...args);

    it(`unpack, tree, usage, prepare, diff, commit and rm with ${snapshotter}`, async () => {
      const image = await busyboxImage({ above: [{ 'etc/motd': 'old', 'etc/gone': 'x' }] });
      const name = 'example.com/layers:1';
      await rig.ctr.ok('images', 'import', '--no-unpack', ociArchive(path('i.tar'), [[name], image]));
      assert.equal(await rig.ctr.snapshots(snapshotter), 0);
      await snapshots('unpack', '--snapshotter', snapshotter, image.manifest.digest);
      const tree = (await snapshots('tree')).trimEnd().split('\n');
      assert.equal(tree.length, image.layers.length);
      const top = tree.at(-1)!.replace(/^[ \\_]+/, '');
      assert.match(top, /^sha256:[0-9a-f]{64}$/);
      const info = JSON.parse(await snapshots('info', top)) as { Kind: string; Parent: string };
      assert.equal(info.Kind, 'Committed');
      assert.match(tree.at(-2)!, new RegExp(info.Parent));
      const sizes = (await snapshots('usage', '-b')).trimEnd().split('\n').slice(1);
      assert.ok(
        sizes.every((line) => Number(line.trim().split(/\s+/)[1]) > 0),
        sizes.join('\n'),
      );

      const command = await snapshots('prepare', '-t', path('here'), 'change', top);
      mkdirSync(path('here'), { recursive: true });
      execFileSync('sh', ['-c', command]);
      writeFileSync(join(path('here'), 'etc/motd'), 'new');
      execFileSync('rm', [join(path('here'), 'etc/gone')]);
      execFileSync('umount', [path('here')]);
      const mounts = JSON.parse(await snapshots('view', '--mounts', 'look', top)) as { Options: string[] }[];
      assert.equal(mounts.length, 1);
      const changed = ['etc/', 'etc/.wh.gone', 'etc/motd'];
      // containerd names folders with a slash or without, by how they came to be.
      const plain = (names: string[]) =>
        names.filter((entry) => entry.startsWith('etc') && entry !== 'etc' && entry !== 'etc/');
      const diff = (...args: string[]) => listing('snapshots', '--snapshotter', snapshotter, 'diff', ...args);
      assert.deepEqual(plain(await diff('change')), plain(changed));
      assert.deepEqual(plain(await diff(top, 'change')), plain(changed));
      await snapshots('commit', 'changed', 'change');
      assert.match(await snapshots('tree'), /\\_ changed/);
      // containerd does not label a layer that is there already.
      if (rig.peer === 'containerd') await collect();
      await snapshots('diff', '--keep', '--label', 'by=test', '--ref', 'kept', 'changed');
      const [kept] = await rig.ctr.lines('content', 'ls', '-q', 'labels.by==test');
      await collect();
      assert.ok((await rig.ctr.digests()).includes(kept!), '--keep outlives the lease');
      await rig.ctr.ok('content', 'rm', kept!);

      // The image's snapshots stay below what stands on them.
      await rig.ctr.removeImages();
      assert.equal(await rig.ctr.snapshots(snapshotter), image.layers.length + 1);
      assert.match(
        (await rig.ctr.call(['snapshots', '--snapshotter', snapshotter, 'rm', top])).stderr,
        /failed precondition/,
      );
      await snapshots('rm', 'changed');
      await collect();
    });
  }

  it('content prune references leaves configurations and manifests, and the image runs on', async () => {
    const image = await busyboxImage({ above: [{ 'etc/motd': 'unpacked' }] });
    const name = 'example.com/pruned:1';
    await rig.ctr.ok('images', 'import', ociArchive(path('i.tar'), [[name], image]));
    await rig.ctr.ok('content', 'prune', 'references');
    assert.deepEqual(await rig.ctr.digests(), [image.manifest.digest, image.config.digest].sort());
    assert.equal((await rig.ctr.runImage(name, 'box', ['cat', '/etc/motd'])).stdout, 'unpacked');
    // What was let go comes again.
    await rig.ctr.ok('images', 'import', path('i.tar'));
    assert.match(await rig.ctr.ok('images', 'check'), /complete \(4\/4\).*true/);
    assert.equal(readFileSync(path('i.tar')).length > 0, true);
  });

  it('a lease that has expired holds nothing', async () => {
    await rig.ctr.ok('leases', 'create', '--id', 'short', '--expires', '1ns');
    await rig.ctr.ok('leases', 'create', '--id', 'long', '--expires', '1h');
    await collect();
    assert.deepEqual(await rig.ctr.lines('leases', 'ls', '-q'), ['long']);
    await rig.ctr.ok('leases', 'rm', 'long');
  });
});
