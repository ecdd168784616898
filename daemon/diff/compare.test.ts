import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { mknod, S_IF } from '../../native/native.ts';
import { Code } from '../../ttrpc/errors.ts';
import { folderFor, sh, Snapshot, TestDiffer } from './fixture.test.ts';
import { addXattrs, BASE, CHANGE, describeTree } from './testing/tree.ts';

const differ = new TestDiffer();

/** Two folders, and layers over each other, that a script has filled. */
function snapshots(context: TestContext, base: string, change: string): { left: Snapshot; right: Snapshot } {
  const folder = folderFor(context);
  const left = new Snapshot(join(folder, 'bottom')).child(join(folder, 'left'));
  left.look((merged) => sh(base, merged));
  const right = left.child(join(folder, 'right'));
  right.look((merged) => {
    sh(change, merged);
    addXattrs(merged);
  });
  return { left, right };
}

/** The same without an overlay: all of each tree in one folder. */
function copies(context: TestContext, base: string, change: string): { left: Snapshot; right: Snapshot } {
  const folder = folderFor(context);
  const [left, right] = [new Snapshot(join(folder, 'left')), new Snapshot(join(folder, 'right'))];
  sh(base, left.upper);
  sh(`cp -a ${left.upper}/. ${right.upper}`, folder);
  sh(change, right.upper);
  addXattrs(right.upper);
  return { left, right };
}

function names(blob: Buffer): string[] {
  writeFileSync(join(differ.folder, '..', 'listed'), blob);
  return sh('tar --quoting-style=literal -tf listed', join(differ.folder, '..')).trimEnd().split('\n');
}

for (const [kind, make] of [
  ['an overlay over its parent', snapshots],
  ['two unrelated folders', copies],
] as const) {
  void describe(`the layer between ${kind}`, () => {
    test('makes the same tree again elsewhere, whatever snapshots it is unpacked to', async (context) => {
      const { left, right } = make(context, BASE, CHANGE);
      const { blob } = await differ.compare(left.viewMounts, right.mounts);
      const wanted = right.look(describeTree);

      const folder = folderFor(context);
      const over = left.child(join(folder, 'over'));
      await differ.apply(blob, over.mounts);
      assert.deepEqual(over.look(describeTree), wanted);

      const beside = new Snapshot(join(folder, 'beside'));
      left.look((merged) => sh(`cp -a ${merged}/. ${beside.upper}`, folder));
      await differ.apply(blob, beside.mounts);
      assert.deepEqual(beside.look(describeTree), wanted);
    });

    test('is the same every time, and has what has changed and no more', async (context) => {
      const { left, right } = make(context, BASE, 'rm etc/old; echo n > usr/lib/new; chmod 700 empty');
      const first = await differ.compare(left.viewMounts, right.mounts);
      const second = await differ.compare(left.viewMounts, right.viewMounts);
      assert.deepEqual(first, second);
      assert.deepEqual(names(first.blob), [
        'empty/',
        'etc/',
        'etc/.wh.old',
        'usr/',
        'usr/lib/',
        'usr/lib/new',
      ]);
    });

    test('is empty when nothing has changed', async (context) => {
      const { left, right } = make(context, BASE, 'touch -c etc/hosts -r etc/hosts; cat usr/lib/a');
      const { blob } = await differ.compare(left.viewMounts, right.mounts);
      assert.deepEqual(blob, Buffer.alloc(1024));
    });

    test('has a file that changed without its size and time', async (context) => {
      const { left, right } = make(context, BASE, "printf 'SAME\\n' > same; touch -d 2020-01-01 same");
      const { blob } = await differ.compare(left.viewMounts, right.mounts);
      assert.deepEqual(names(blob), ['same']);
    });

    test('is read by tar as it is meant', async (context) => {
      const { left, right } = make(context, BASE, CHANGE);
      const { blob } = await differ.compare(left.viewMounts, right.mounts);
      const folder = folderFor(context);
      writeFileSync(join(folder, 'layer.tar'), blob);
      sh(`mkdir out; tar --xattrs --xattrs-include='*' --numeric-owner -xpf layer.tar -C out`, folder);
      const made = (tree: string[]) => tree.filter((line) => line.startsWith('made'));
      const extracted = made(describeTree(join(folder, 'out')));
      assert.deepEqual(extracted, made(right.look(describeTree)));
      assert.ok(extracted.length > 12);
      const listing = sh(`tar --numeric-owner --full-time -tvf layer.tar`, folder);
      assert.match(listing, /^-rwsr-xr-x 0\/0 +2 .* usr\/lib\/a$/m);
      assert.match(listing, /^brw-r--r-- 0\/0 +7,300 .* made\/block$/m);
    });

    test('starts from nothing when there is no left side', async (context) => {
      const { left } = make(context, BASE, 'true');
      const { blob } = await differ.compare([], left.mounts);
      const all = new Snapshot(folderFor(context));
      await differ.apply(blob, all.mounts);
      assert.deepEqual(all.look(describeTree), left.look(describeTree));
    });

    test('has all names of a file that has a new one', async (context) => {
      const { left, right } = make(context, BASE, 'ln twin2 a-third; ln same zzz');
      const { blob } = await differ.compare(left.viewMounts, right.mounts);
      const over = left.child(join(folderFor(context), 'over'));
      await differ.apply(blob, over.mounts);
      const links = (tree: string[]) => tree.filter((line) => /^(a-third|same|zzz|twin.) /.test(line));
      assert.deepEqual(links(over.look(describeTree)), links(right.look(describeTree)));
    });
  });
}

test('folders that were emptied and filled again hide what is below', async (context) => {
  const { left, right } = snapshots(
    context,
    'mkdir -p d/e; echo 1 > d/1; echo 2 > d/e/2',
    'rm -r d; mkdir -p d/e; echo 3 > d/e/3',
  );
  const { blob } = await differ.compare(left.viewMounts, right.mounts);
  assert.deepEqual(names(blob), ['d/', 'd/.wh.1', 'd/e/', 'd/e/.wh.2', 'd/e/3']);
});

test('a folder renamed inside an overlay is found in its new place', async (context) => {
  const { left, right } = snapshots(context, 'mkdir -p d/e; echo 1 > d/e/1', 'true');
  right.look((merged) => {
    // Without redirects the kernel refuses, and mv copies.
    try {
      renameSync(join(merged, 'd'), join(merged, 'moved'));
    } catch {
      sh('mv d moved', merged);
    }
  });
  const { blob } = await differ.compare(left.viewMounts, right.mounts);
  assert.deepEqual(names(blob), ['.wh.d', 'moved/', 'moved/e/', 'moved/e/1']);
});

test('more layers than fit into the options of a mount are no obstacle', async (context) => {
  const folder = join(folderFor(context), 'n'.repeat(100));
  let top = new Snapshot(join(folder, 'bottom'));
  for (let index = 0; index < 60; index++) top = top.child(join(folder, String(index)));
  assert.ok(top.mounts[0]!.options.join().length > 8000);
  const [left, right] = [top, top.child(join(folder, 'top'))];
  writeFileSync(join(right.upper, 'file'), '');
  const { blob } = await differ.compare(left.viewMounts, right.mounts);
  assert.deepEqual(names(blob), ['file']);
  const over = left.child(join(folder, 'over'));
  await differ.apply(blob, over.mounts);
  assert.deepEqual(describeTree(over.upper), describeTree(right.upper));
});

test('sockets are left out', async (context) => {
  const { left, right } = copies(context, 'true', 'true');
  mknod(join(right.upper, 'socket'), S_IF.SOCK | 0o600, 0, 0);
  const { blob } = await differ.compare(left.viewMounts, right.mounts);
  assert.deepEqual(blob, Buffer.alloc(1024));
});

test('a name that would be taken for a whiteout cannot be in a layer', async (context) => {
  const { left, right } = copies(context, 'true', 'mkdir d; touch d/.wh.x');
  await assert.rejects(differ.compare(left.viewMounts, right.mounts), {
    code: Code.FailedPrecondition,
    message: 'cannot read "d/.wh.x": a layer cannot have names that begin with .wh.',
  });
});

test('the layer is compressed as its type says, and the diff id is not', async (context) => {
  const { left, right } = copies(context, 'true', 'head -c 400000 /dev/zero > f');
  const plain = await differ.compare(left.viewMounts, right.mounts);
  const type = plain.result.mediaType;
  const gzip = await differ.compare(left.viewMounts, right.mounts, `${type}+gzip`);
  const zstd = await differ.compare(left.viewMounts, right.mounts, `${type}+zstd`);
  const standard = await differ.compare(left.viewMounts, right.mounts, '');
  assert.deepEqual(gunzipSync(gzip.blob), plain.blob);
  assert.deepEqual(zstdDecompressSync(zstd.blob), plain.blob);
  assert.deepEqual(standard, gzip);
  const diffId = `sha256:${createHash('sha256').update(plain.blob).digest('hex')}`;
  for (const { result } of [plain, gzip, zstd]) assert.equal(result.diffId, diffId);
  await assert.rejects(differ.compare([], right.mounts, 'text/plain'), { code: Code.Unimplemented });
});

test('a limit of time holds for everything in the layer', async (context) => {
  const { right } = copies(context, 'true', 'mkdir d; echo x > d/new; touch -d 2000-01-01 d/old');
  const pieces: Uint8Array[] = [];
  const write = (piece: Buffer) => Promise.resolve(void pieces.push(piece));
  const mediaType = 'application/vnd.oci.image.layer.v1.tar';
  await differ.differ.compare([], right.mounts, { mediaType, write, latest: 1_000_000_000 });
  const beside = new Snapshot(folderFor(context));
  await differ.apply(Buffer.concat(pieces), beside.mounts);
  const times = beside.look(describeTree).map((line) => line.split(' ').slice(0, 4).join(' '));
  assert.match(
    times.join('\n'),
    /^d 40755 0:0 1000000000.0\nd\/new 100644 0:0 1000000000.0\nd\/old 100644 0:0 94\d+.0$/,
  );
});
