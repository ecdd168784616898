import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { getXattr, lstat, S_IF } from '../../native/native.ts';
import { archiveOf, entryOf, folderFor, mountsBelow, sh, Snapshot, TestDiffer } from './fixture.test.ts';
import { describeTree } from './testing/tree.ts';

const differ = new TestDiffer();

/** Each case holds for an overlay, whose upper folder is written to directly, and for a plain folder. */
type Prepare = (
  context: TestContext,
  ...layers: readonly Buffer[]
) => Promise<{ tree: string[]; last: Snapshot }>;

async function onOverlay(context: TestContext, ...layers: readonly Buffer[]) {
  const folder = folderFor(context);
  let last = new Snapshot(join(folder, 'bottom'));
  for (const [index, layer] of layers.entries()) {
    last = last.child(join(folder, String(index)));
    await differ.apply(layer, last.mounts);
  }
  return { tree: last.look(describeTree), last };
}

async function onFolder(context: TestContext, ...layers: readonly Buffer[]) {
  const last = new Snapshot(folderFor(context));
  for (const layer of layers) await differ.apply(layer, last.mounts);
  return { tree: last.look(describeTree), last };
}

const T = '1600000000.0';
const folder = (name: string, more = {}) => entryOf(`${name}/`, { kind: 'directory', ...more });

for (const [where, prepare] of [
  ['an overlay', onOverlay],
  ['a plain folder', onFolder],
] as const satisfies readonly (readonly [string, Prepare])[]) {
  void describe(`a layer unpacked into ${where}`, () => {
    test('has files, folders, links, devices and FIFOs with all their attributes', async (context) => {
      const mtime = { seconds: 1_234_567_890, nanos: 123_456_789 };
      const capability = Buffer.from('0100000280000000000000000000000000000000', 'hex');
      const { tree } = await prepare(
        context,
        archiveOf(
          folder('d', { mode: 0o1777, uid: 7, mtime }),
          entryOf('d/setuid', { mode: 0o6755, uid: 1, gid: 2, mtime, content: 'x' }),
          entryOf('d/capable', { xattrs: new Map([['security.capability', capability]]), uid: 3 }),
          entryOf('d/user', { xattrs: new Map([['user.note', Buffer.from('n')]]) }),
          entryOf('d/hard', { kind: 'link', linkName: 'd/setuid' }),
          entryOf('d/soft', { kind: 'symlink', linkName: '/no/where', mtime, uid: 5 }),
          entryOf('d/fifo', { kind: 'fifo', mode: 0o600 }),
          entryOf('d/char', { kind: 'character-device', major: 1, minor: 3, mode: 0o666 }),
          entryOf('d/block', { kind: 'block-device', major: 7, minor: 300 }),
        ),
      );
      const at = '1234567890.123456789';
      assert.deepEqual(tree, [
        `d 41777 7:0 ${at}`,
        `d/block 60644 0:0 ${T} 7/300`,
        `d/capable 100644 3:0 ${T} "" security.capability=${capability.toString('hex')}`,
        `d/char 20666 0:0 ${T} 1/3`,
        `d/fifo 10600 0:0 ${T}`,
        `d/hard 106755 1:2 ${at} "x" #0`,
        `d/setuid 106755 1:2 ${at} "x" #0`,
        `d/soft 120777 5:0 ${at} -> /no/where`,
        `d/user 100644 0:0 ${T} "" user.note=6e`,
      ]);
    });

    test('removes what its whiteouts name, and nothing of its own', async (context) => {
      const { tree } = await prepare(
        context,
        archiveOf(
          folder('d'),
          entryOf('d/gone'),
          entryOf('d/stays'),
          folder('d/tree'),
          entryOf('d/tree/file'),
        ),
        archiveOf(
          entryOf('d/.wh.gone'),
          entryOf('d/tree/new'),
          entryOf('d/.wh.tree'),
          entryOf('.wh.never-there'),
          entryOf('new/.wh.never-there'),
          entryOf('.wh..wh.plnk', { kind: 'directory' }),
        ),
      );
      assert.deepEqual(
        tree.map((line) => line.split(' ')[0]),
        ['d', 'd/stays', 'd/tree', 'd/tree/new', 'new'],
      );
    });

    test('hides everything below in an opaque folder, wherever the mark stands', async (context) => {
      const base = archiveOf(
        folder('d'),
        entryOf('d/old'),
        folder('d/s'),
        entryOf('d/s/old'),
        entryOf('e/old'),
      );
      const { tree } = await prepare(
        context,
        base,
        archiveOf(entryOf('d/s/new'), entryOf('d/new'), entryOf('d/.wh..wh..opq')),
      );
      assert.deepEqual(
        tree.map((line) => line.split(' ')[0]),
        ['d', 'd/new', 'd/s', 'd/s/new', 'e', 'e/old'],
      );
    });

    test('shows nothing of a folder that was removed and made again', async (context) => {
      const base = archiveOf(folder('d'), entryOf('d/old'));
      const again = archiveOf(entryOf('.wh.d'), folder('d'), entryOf('d/new'));
      const { tree } = await prepare(context, base, again);
      assert.deepEqual(
        tree.map((line) => line.split(' ')[0]),
        ['d', 'd/new'],
      );
      const implied = await prepare(context, base, archiveOf(entryOf('.wh.d'), entryOf('d/new')));
      assert.deepEqual(
        implied.tree.map((line) => line.split(' ').slice(0, 2).join(' ')),
        ['d 40755', 'd/new 100644'],
      );
    });

    test('replaces a file by a folder, a folder by a file and either by a link', async (context) => {
      const { tree } = await prepare(
        context,
        archiveOf(entryOf('a'), folder('b'), entryOf('b/x'), folder('c'), entryOf('c/x'), entryOf('l')),
        archiveOf(
          folder('a'),
          entryOf('a/y'),
          entryOf('b', { content: 'b' }),
          entryOf('c', { kind: 'symlink', linkName: 'a' }),
          entryOf('c/through', { content: 't' }),
          entryOf('l', { kind: 'link', linkName: 'b' }),
        ),
      );
      assert.deepEqual(tree, [
        `a 40755 0:0 ${T}`,
        `a/through 100644 0:0 ${T} "t"`,
        `a/y 100644 0:0 ${T} ""`,
        `b 100644 0:0 ${T} "b" #0`,
        `c 120777 0:0 ${T} -> a`,
        `l 100644 0:0 ${T} "b" #0`,
      ]);
    });

    test('writes through links of the layers below, inside the tree', async (context) => {
      const { tree } = await prepare(
        context,
        archiveOf(
          folder('usr'),
          folder('usr/lib', { mode: 0o711, uid: 9 }),
          entryOf('lib', { kind: 'symlink', linkName: '/usr/lib' }),
          entryOf('up', { kind: 'symlink', linkName: '../../../usr' }),
          entryOf('usr/lib/gone'),
        ),
        archiveOf(entryOf('lib/new'), entryOf('up/too'), entryOf('lib/.wh.gone')),
      );
      assert.deepEqual(tree, [
        `lib 120777 0:0 ${T} -> /usr/lib`,
        `up 120777 0:0 ${T} -> ../../../usr`,
        `usr 40755 0:0 ${T}`,
        `usr/lib 40711 9:0 ${T}`,
        `usr/lib/new 100644 0:0 ${T} ""`,
        `usr/too 100644 0:0 ${T} ""`,
      ]);
    });

    test('links to files of the layers below', async (context) => {
      const { tree } = await prepare(
        context,
        archiveOf(
          entryOf('d/file', { content: 'below', uid: 4, xattrs: new Map([['user.x', Buffer.from('1')]]) }),
        ),
        archiveOf(entryOf('link', { kind: 'link', linkName: 'd/file' })),
      );
      assert.deepEqual(tree.slice(1), [
        `d/file 100644 4:0 ${T} "below" user.x=31 #0`,
        `link 100644 4:0 ${T} "below" user.x=31 #0`,
      ]);
    });

    test('leaves the times of folders that it only goes through', async (context) => {
      const { tree } = await prepare(
        context,
        archiveOf(folder('d'), entryOf('d/a')),
        archiveOf(entryOf('d/b')),
      );
      assert.equal(tree[0], `d 40755 0:0 ${T}`);
    });

    test('has the last of several entries with one name', async (context) => {
      const { tree } = await prepare(
        context,
        archiveOf(
          entryOf('f', { content: 'one' }),
          entryOf('./f', { content: 'two' }),
          folder('f'),
          entryOf('/f'),
        ),
      );
      assert.deepEqual(tree, [`f 100644 0:0 ${T} ""`]);
    });

    test('keeps names that are long or no UTF-8', async (context) => {
      const long = `${'d'.repeat(200)}/${'f'.repeat(255)}`;
      const { tree } = await prepare(
        context,
        archiveOf(entryOf('\u00ff\u0001'), entryOf(long), entryOf('ä')),
      );
      assert.deepEqual(
        tree.map((line) => line.split(' ')[0]),
        ['d'.repeat(200), long, 'ä', '\u00ff\u0001'],
      );
    });
  });
}

test('what hides a lower layer is written as overlayfs has it', async (context) => {
  const { last } = await onOverlay(
    context,
    archiveOf(entryOf('gone'), entryOf('d/old')),
    archiveOf(entryOf('.wh.gone'), entryOf('d/.wh..wh..opq'), entryOf('.wh.never-there')),
  );
  assert.deepEqual(readdirSync(last.upper).sort(), ['d', 'gone']);
  const { mode, major, minor } = lstat(join(last.upper, 'gone'))!;
  assert.deepEqual([mode & S_IF.MT, major, minor], [S_IF.CHR, 0, 0]);
  assert.equal(getXattr(join(last.upper, 'd'), 'trusted.overlay.opaque')?.toString(), 'y');
});

test('attributes that are overlayfs’s own are not taken from a layer', async (context) => {
  const xattrs = new Map([['trusted.overlay.redirect', Buffer.from('/elsewhere')]]);
  const { last } = await onOverlay(context, archiveOf(entryOf('d/', { kind: 'directory', xattrs })));
  assert.equal(getXattr(join(last.upper, 'd'), 'trusted.overlay.redirect'), undefined);
});

for (const [name, compress] of [
  ['none', (data: Buffer) => data],
  ['gzip', gzipSync],
  [
    'gzip in several members',
    (data: Buffer) => Buffer.concat([gzipSync(data.subarray(0, 700)), gzipSync(data.subarray(700))]),
  ],
  ['zstd', zstdCompressSync],
  [
    'zstd in several frames',
    (data: Buffer) =>
      Buffer.concat([zstdCompressSync(data.subarray(0, 700)), zstdCompressSync(data.subarray(700))]),
  ],
] as const) {
  test(`the diff id is that of the whole archive; compression: ${name}`, async (context) => {
    const snapshot = new Snapshot(folderFor(context));
    const archive = Buffer.concat([archiveOf(entryOf('f', { content: 'x' })), Buffer.alloc(9000, 7)]);
    const applied = await differ.apply(compress(archive), snapshot.mounts);
    assert.deepEqual(applied, {
      mediaType: 'application/vnd.oci.image.layer.v1.tar',
      digest: `sha256:${createHash('sha256').update(archive).digest('hex')}`,
      size: archive.length,
    });
    assert.equal(readFileSync(join(snapshot.upper, 'f'), 'utf8'), 'x');
  });
}

for (const format of ['v7', 'ustar', 'oldgnu', 'gnu', 'posix']) {
  test(`archives of GNU tar are unpacked as by itself; format: ${format}`, async (context) => {
    const base = folderFor(context);
    const isOld = format === 'v7' || format === 'ustar';
    sh(
      `mkdir -p in/dir/sub out; cd in; echo text > dir/file; ln dir/file dir/hard; ln -s ../file dir/sub/soft
       chmod 6711 dir/file; chown 12:34 dir/sub; touch -d '2001-02-03 04:05:06' dir dir/file
       head -c 700000 /dev/urandom > dir/large; ${isOld ? '' : `echo x > $(printf 'n%.0s' {1..200})`}
       ${format === 'v7' ? '' : 'mkfifo dir/fifo; mknod dir/device c 1 3'}
       cd ..; tar --format=${format} -cf layer.tar -C in .; tar -xpf layer.tar --same-owner -C out`,
      base,
    );
    const snapshot = new Snapshot(join(base, 'snapshot'));
    await differ.apply(join(base, 'layer.tar'), snapshot.mounts);
    const withoutNanos = (tree: string[]) => tree.map((line) => line.replace(/(\d{9,})\.\d+/, '$1'));
    assert.deepEqual(
      withoutNanos(describeTree(snapshot.upper)),
      withoutNanos(describeTree(join(base, 'out'))),
    );
  });
}

for (const options of [
  '--format=gnu',
  '--format=posix --sparse-version=0.0',
  '--format=posix --sparse-version=0.1',
  '--format=posix --sparse-version=1.0',
]) {
  test(`files with holes come out with their holes; tar -S ${options}`, async (context) => {
    const base = folderFor(context);
    sh(
      `truncate -s 64M many; for i in $(seq 0 30); do echo $i | dd of=many bs=1 seek=$((i * 1500000)) conv=notrunc status=none; done
       truncate -s 32M empty; echo start > tail; truncate -s 8M tail
       tar ${options} -S -cf layer.tar many empty tail`,
      base,
    );
    const snapshot = new Snapshot(join(base, 'snapshot'));
    await differ.apply(join(base, 'layer.tar'), snapshot.mounts);
    sh('for f in many empty tail; do cmp $f snapshot/fs/$f; done', base);
    assert.ok(statSync(join(snapshot.upper, 'many')).blocks * 512 < 2 ** 20);
    assert.equal(statSync(join(snapshot.upper, 'empty')).blocks, 0);
  });
}

test('a large file arrives whole', async (context) => {
  const base = folderFor(context);
  sh('head -c 20000001 /dev/urandom > file; tar -czf layer.tar.gz file', base);
  const snapshot = new Snapshot(join(base, 'snapshot'));
  await differ.apply(join(base, 'layer.tar.gz'), snapshot.mounts);
  sh('cmp file snapshot/fs/file', base);
});

test('nothing of the work is seen outside, and nothing is left', async (context) => {
  const snapshot = new Snapshot(folderFor(context));
  await differ.apply(archiveOf(entryOf('f')), snapshot.mounts);
  assert.deepEqual([...mountsBelow(differ.folder), ...mountsBelow(snapshot.folder)], []);
  assert.deepEqual(readdirSync(differ.folder), []);
  assert.deepEqual(readdirSync(snapshot.upper), ['f']);
});
