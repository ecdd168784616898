import assert from 'node:assert/strict';
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { createSubvolume, getXattr, S_IF, setAttributes, setXattr } from '../../native/native.ts';
import { Code } from '../../ttrpc/errors.ts';
import { Btrfs } from './btrfs.ts';
import { Native } from './native.ts';
import { Overlayfs } from './overlayfs.ts';
import { LoopFilesystem } from './testing/loop.ts';
import { type OpenBackend, Stage, layer, namespace, refused } from './testing/stage.ts';

const backends: { name: string; open: OpenBackend; filesystem?: string }[] = [
  { name: 'overlayfs', open: (root) => Overlayfs.open(root) },
  { name: 'native', open: (root) => Native.open(root) },
  { name: 'btrfs', open: (root) => Btrfs.open(root), filesystem: 'btrfs' },
];

for (const { name, open, filesystem } of backends) {
  const missing =
    filesystem !== undefined && !LoopFilesystem.canMake(filesystem) && `mkfs.${filesystem} is missing`;
  describe(`snapshots of ${name}`, { skip: missing, timeout: 60_000 }, () => {
    async function staged(act: (stage: Stage) => Promise<void>): Promise<void> {
      using loop = filesystem === undefined ? undefined : new LoopFilesystem(filesystem);
      await using stage = new Stage(name, open, loop?.path);
      await stage.open();
      await act(stage);
    }

    test('show the files of their parents and their own, deletions and attributes too', () =>
      staged(async (stage) => {
        const { snapshotter } = stage;
        const capability = Buffer.from('0100000280000000000000000000000000000000', 'hex');
        await layer(stage, 'one', '', (path) => {
          for (const file of ['kept', 'changed', 'deleted']) writeFileSync(join(path, file), 'one');
          mkdirSync(join(path, 'folder'));
          const time = { seconds: 1234, nanos: 567_000_000 };
          setAttributes(join(path, 'kept'), {
            mode: S_IF.REG | 0o4755,
            uid: 7,
            gid: 8,
            atime: time,
            mtime: time,
          });
          setXattr(join(path, 'kept'), 'security.capability', capability);
          setAttributes(path, { mode: S_IF.DIR | 0o755, uid: 11, gid: 12, atime: time, mtime: time });
        });
        await layer(stage, 'two', 'one', (path) => {
          writeFileSync(join(path, 'changed'), 'two');
          rmSync(join(path, 'deleted'));
          rmSync(join(path, 'folder'), { recursive: true });
        });
        await layer(stage, 'three', 'two', (path) => writeFileSync(join(path, 'new'), 'three'));
        const mounts = await snapshotter.prepare(namespace, 'box', 'three');
        await stage.within(mounts, (path) => {
          const files = readdirSync(path).map((file) => [file, readFileSync(join(path, file), 'utf8')]);
          assert.deepEqual(files, [
            ['changed', 'two'],
            ['kept', 'one'],
            ['new', 'three'],
          ]);
          const { uid, gid, mode, mtimeMs } = lstatSync(join(path, 'kept'));
          assert.deepEqual([uid, gid, mode, mtimeMs], [7, 8, S_IF.REG | 0o4755, 1_234_567]);
          assert.deepEqual(getXattr(join(path, 'kept'), 'security.capability'), capability);
          assert.deepEqual(
            [lstatSync(path).uid, lstatSync(path).gid, lstatSync(path).mode & 0o777],
            [11, 12, 0o755],
          );
          writeFileSync(join(path, 'kept'), 'box');
        });
        assert.deepEqual(await snapshotter.mounts(namespace, 'box'), mounts);
        for (const parent of ['one', 'two', 'three']) {
          await stage.within(await snapshotter.view(namespace, `view of ${parent}`, parent), (path) => {
            assert.equal(readFileSync(join(path, 'kept'), 'utf8'), 'one');
            assert.throws(() => writeFileSync(join(path, 'x'), ''), { code: 'EROFS' });
          });
        }
      }));

    test('on nothing are empty, a view too', () =>
      staged(async (stage) => {
        await stage.within(await stage.snapshotter.prepare(namespace, 'active', ''), (path) => {
          assert.deepEqual(readdirSync(path), []);
          assert.equal(lstatSync(path).mode & 0o777, 0o755);
        });
        await stage.within(await stage.snapshotter.view(namespace, 'view', ''), (path) => {
          assert.throws(() => writeFileSync(join(path, 'x'), ''), { code: 'EROFS' });
        });
      }));

    test('go with their files, and leave none behind', () =>
      staged(async (stage) => {
        const { snapshotter } = stage;
        await layer(stage, 'one', '', (path) => writeFileSync(join(path, 'file'), 'x'));
        await snapshotter.prepare(namespace, 'box', 'one');
        await snapshotter.view(namespace, 'view', 'one');
        await refused(
          () => snapshotter.remove(namespace, 'one'),
          Code.FailedPrecondition,
          /"one" with child/,
        );
        await snapshotter.remove(namespace, 'box');
        await refused(() => snapshotter.remove(namespace, 'one'), Code.FailedPrecondition, /child/);
        await snapshotter.remove(namespace, 'view');
        await snapshotter.remove(namespace, 'one');
        await refused(
          () => snapshotter.remove(namespace, 'one'),
          Code.NotFound,
          /snapshot one does not exist/,
        );
        await snapshotter.cleanup();
        assert.deepEqual(readdirSync(stage.root), []);
        assert.deepEqual(snapshotter.list(namespace), []);
      }));

    test('are the same after a restart, and what has no record is gone', () =>
      staged(async (stage) => {
        await layer(stage, 'one', '', (path) => writeFileSync(join(path, 'file'), 'x'));
        const mounts = await stage.snapshotter.prepare(namespace, 'box', 'one');
        const before = stage.snapshotter.list(namespace);
        const folders = readdirSync(stage.root);
        mkdirSync(join(stage.root, '99/fs'), { recursive: true });
        mkdirSync(join(stage.root, 'lost+found'));
        const snapshotter = await stage.reopen();
        await snapshotter.prepare(namespace, 'other', 'one');
        assert.ok(
          existsSync(join(stage.root, '100')),
          'numbers of what is being removed are not given again',
        );
        await snapshotter.remove(namespace, 'other');
        await snapshotter.cleanup();
        assert.deepEqual(snapshotter.list(namespace), before);
        assert.deepEqual(await snapshotter.mounts(namespace, 'box'), mounts);
        assert.deepEqual(readdirSync(stage.root), [...folders, 'lost+found']);
      }));

    test('of which a power failure has lost the files are forgotten, unless something needs them', () =>
      staged(async (stage) => {
        await layer(stage, 'one', '', () => undefined);
        await layer(stage, 'two', 'one', () => undefined);
        await stage.snapshotter.prepare(namespace, 'box', 'two');
        await stage.snapshotter.view(namespace, 'view', 'one');
        await layer(stage, 'lost', '', () => undefined);
        await stage.snapshotter.prepare(namespace, 'lost box', 'lost');
        const lost = stage.snapshotter.tree.all();
        const ids = new Map([...lost].map(({ snapshot: { id, info } }) => [info.name, id]));
        await stage.close();
        const backend = await open(stage.root);
        for (const key of ['one', 'lost', 'lost box']) await backend.remove(ids.get(key)!);
        const snapshotter = await stage.open();
        assert.deepEqual(
          snapshotter.list(namespace).map((info) => info.name),
          ['box', 'one', 'two', 'view'],
        );
      }));

    test('take what they add', () =>
      staged(async (stage) => {
        const { snapshotter } = stage;
        const big = Buffer.alloc(1 << 20, 'x');
        await layer(stage, 'one', '', (path) => writeFileSync(join(path, 'file'), big));
        const one = await snapshotter.usage(namespace, 'one');
        assert.equal(one.inodes, 2n);
        assert.ok(one.size >= 1n << 20n && one.size < (1n << 20n) + 65_536n, String(one.size));
        await stage.within(await snapshotter.prepare(namespace, 'box', 'one'), (path) => {
          writeFileSync(join(path, 'a'), big);
          writeFileSync(join(path, 'b'), '');
        });
        const copied = name === 'native' ? 1 : 0;
        const box = await snapshotter.usage(namespace, 'box');
        assert.equal(box.inodes, 3n + BigInt(copied));
        assert.ok(box.size >= BigInt(copied + 1) << 20n && box.size < (BigInt(copied + 1) << 20n) + 65_536n);
        await snapshotter.view(namespace, 'view', 'one');
        assert.equal((await snapshotter.usage(namespace, 'view')).inodes, 0n);
        await refused(() => snapshotter.usage(namespace, 'none'), Code.NotFound, /none/);
      }));

    test('are told of by events', () =>
      staged(async (stage) => {
        await layer(stage, 'one', '', () => undefined);
        await stage.snapshotter.view(namespace, 'view', 'one');
        await stage.snapshotter.remove(namespace, 'view');
        const snapshotter = name;
        assert.deepEqual(stage.published, [
          { namespace, topic: '/snapshot/prepare', event: { key: 'one-active', parent: '', snapshotter } },
          { namespace, topic: '/snapshot/commit', event: { key: 'one-active', name: 'one', snapshotter } },
          { namespace, topic: '/snapshot/remove', event: { key: 'view', snapshotter } },
        ]);
      }));

    // On btrfs that is when a snapshot does not fit, which is nothing but metadata, and there is no telling when.
    const skip = name === 'btrfs';
    test('on a full disk fail with that reason, and work again when there is room', { skip }, async () => {
      using loop = new LoopFilesystem('ext4', 64, '-N', '256');
      await using stage = new Stage(name, open);
      mkdirSync(stage.root);
      using small = loop.bindOn(stage.root);
      const snapshotter = await stage.open();
      await layer(stage, 'one', '', (path) => writeFileSync(join(path, 'file'), Buffer.alloc(1 << 20, 'x')));
      const filler = join(small.path, 'filler');
      fill(filler);
      const keys = Array.from({ length: 200 }, (_, index) => String(index));
      const failing = async (): Promise<void> => {
        for (const key of keys) await snapshotter.prepare(namespace, key, 'one');
      };
      await refused(failing, Code.ResourceExhausted, /no space left/);
      rmSync(filler, { recursive: true });
      await snapshotter.prepare(namespace, 'after', 'one');
      await snapshotter.cleanup();
      const ids = [...snapshotter.tree.all()].map(({ snapshot }) => String(snapshot.id));
      const left = readdirSync(stage.root).filter((entry) => /^\d+$/.test(entry));
      assert.deepEqual(left.sort(), ids.sort());
    });
  });
}

/** Makes files until there is no inode for another one. */
function fill(path: string): void {
  mkdirSync(path);
  assert.throws(
    () => {
      for (let index = 0; ; index++) writeFileSync(join(path, `inode-${index}`), '');
    },
    { code: 'ENOSPC' },
  );
}

describe('snapshots of btrfs', { skip: !LoopFilesystem.canMake('btrfs') && 'mkfs.btrfs is missing' }, () => {
  test('go with the subvolumes that were made inside, and are sealed by their commit', async () => {
    using loop = new LoopFilesystem('btrfs');
    await using stage = new Stage('btrfs', (root) => Btrfs.open(root), loop.path);
    const snapshotter = await stage.open();
    const mounts = await snapshotter.prepare(namespace, 'active', '');
    await stage.within(mounts, async (path) => {
      await createSubvolume(path, 'nested');
      writeFileSync(join(path, 'nested/file'), '');
    });
    const { id } = snapshotter.tree.get(namespace, 'active');
    await snapshotter.commit(namespace, 'one', 'active');
    assert.throws(() => writeFileSync(join(stage.root, String(id), 'late'), ''), { code: 'EROFS' });
    await snapshotter.remove(namespace, 'one');
    await snapshotter.cleanup();
    assert.deepEqual(readdirSync(stage.root), []);
  });
});
