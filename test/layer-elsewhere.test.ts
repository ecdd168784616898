/**
 * A layer that `ctr snapshots diff` has made is unpacked by others to the same tree: names, types, modes, owners, times, contents,
 * extended attributes, hard links, devices, and nothing of what was removed or replaced.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { addXattrs, BASE, CHANGE, describeTree } from '../daemon/diff/testing/tree.ts';
import { digestOf, makeImage, ociArchive, writeLayout } from './harness/image.ts';
import type { Ctr } from './harness/ctr.ts';
import { Daemon, type Peer } from './harness/daemon.ts';

const TAR = 'application/vnd.oci.image.layer.v1.tar';

describe('a layer made by ctr snapshots diff', { timeout: 240_000 }, () => {
  const daemons = new Map<Peer, Daemon>();
  before(async () => {
    for (const peer of ['moord', 'containerd'] as const) daemons.set(peer, await Daemon.start(peer));
  });
  after(async () => {
    for (const daemon of daemons.values()) await daemon.stop();
  });

  /** Mounts a snapshot and lets `act` work there. */
  async function inside<T>(ctr: Ctr, snapshotter: string, key: string, act: (path: string) => T): Promise<T> {
    const path = `${ctr.fifos}-${snapshotter}-${key}`;
    mkdirSync(path, { recursive: true });
    execFileSync('sh', ['-c', await ctr.ok('snapshots', '--snapshotter', snapshotter, 'mounts', path, key)]);
    try {
      return act(path);
    } finally {
      execFileSync('umount', [path]);
    }
  }

  /** Two layers as two tars, and the tree they make. */
  async function made(peer: Peer, snapshotter: string) {
    const daemon = daemons.get(peer)!;
    const ctr = daemon.ctr();
    const snapshots = (...args: string[]) => ctr.ok('snapshots', '--snapshotter', snapshotter, ...args);
    const script = (text: string) => (cwd: string) => void execFileSync('bash', ['-euc', text], { cwd });
    await snapshots('prepare', 'writing');
    await inside(ctr, snapshotter, 'writing', script(BASE));
    await snapshots('commit', 'base', 'writing');
    await snapshots('prepare', 'changed', 'base');
    const tree = await inside(ctr, snapshotter, 'changed', (path) => {
      script(CHANGE)(path);
      addXattrs(path);
      return describeTree(path);
    });
    await snapshots('commit', 'change', 'changed');
    const layers: Buffer[] = [];
    for (const key of ['base', 'change']) {
      const file = join(daemon.directory, 'layer');
      const diff = ['snapshots', '--snapshotter', snapshotter, 'diff'];
      await ctr.save(file, ...diff, '--media-type', TAR, key);
      const plain = readFileSync(file);
      await ctr.save(file, ...diff, key);
      const again = gunzipSync(readFileSync(file));
      // containerd gives whiteouts the present time, so that no two of its layers are equal.
      if (peer === 'moord') assert.equal(digestOf(again), digestOf(plain), 'compressed it is the same');
      layers.push(plain);
    }
    await snapshots('rm', 'change');
    await snapshots('rm', 'base');
    return { tree, layers };
  }

  /** The tree of an image with these layers, as a daemon unpacks it. */
  async function unpacked(peer: Peer, layers: readonly Buffer[], plain: boolean): Promise<string[]> {
    const daemon = daemons.get(peer)!;
    const ctr = daemon.ctr();
    const image = await makeImage(layers, { plain });
    const file = ociArchive(join(daemon.directory, 'image.tar'), [['example.com/layers:1'], image]);
    await ctr.ok('images', 'import', file);
    const path = join(daemon.directory, 'mounted');
    mkdirSync(path, { recursive: true });
    await ctr.ok('images', 'mount', 'example.com/layers:1', path);
    try {
      return describeTree(path);
    } finally {
      await ctr.ok('images', 'unmount', '--rm', path);
      await ctr.ok('images', 'rm', '--sync', 'example.com/layers:1');
    }
  }

  async function unpackedByUmoci(layers: readonly Buffer[]): Promise<string[]> {
    const { directory } = daemons.get('moord')!;
    const [layout, bundle] = [join(directory, 'layout'), join(directory, 'bundle')];
    try {
      writeLayout(layout, [['tag'], await makeImage(layers)]);
      execFileSync('umoci', ['unpack', '--image', `${layout}:tag`, bundle], { stdio: 'pipe' });
      return describeTree(join(bundle, 'rootfs'));
    } finally {
      execFileSync('rm', ['-r', layout, bundle]);
    }
  }

  /** containerd unpacks no time before 1970 … */
  const since1970 = (tree: readonly string[]): string[] =>
    tree.map((line) => line.replace(/( \d+:\d+) -\d+\.\d+/, '$1 0.0'));
  /** … and its layers have neither fractions of seconds nor users' extended attributes. */
  const rough = (tree: readonly string[]): string[] =>
    tree.map((line) => line.replace(/( \d+:\d+ -?\d+)\.\d+/, '$1').replaceAll(/ user\.\w+=\w+/g, ''));

  for (const snapshotter of ['overlayfs', 'native']) {
    it(`of ${snapshotter} here is unpacked by others, and here, to the same tree`, async () => {
      const { tree, layers } = await made('moord', snapshotter);
      assert.ok(tree.length > 30 && tree.some((line) => line.includes('security.capability=')));
      assert.deepEqual(await unpacked('moord', layers, false), tree);
      assert.deepEqual(await unpacked('containerd', layers, true), since1970(tree));
      assert.deepEqual(await unpackedByUmoci(layers), tree);
    });
  }

  it('of containerd is unpacked here to the same tree', async () => {
    const { tree, layers } = await made('containerd', 'overlayfs');
    const here = await unpacked('moord', layers, false);
    assert.deepEqual(rough(here), rough(tree));
    assert.deepEqual(since1970(here), await unpacked('containerd', layers, true));
  });
});
