/** Layers that mean harm: they are refused with an error that says why, and nothing outside their snapshot changes. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { constants as zlib, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { mount, unmount } from '../../native/native.ts';
import { Code, type RpcError } from '../../ttrpc/errors.ts';
import { archiveOf, entryOf, folderFor, Snapshot, TestDiffer } from './fixture.test.ts';
import { describeTree } from './testing/tree.ts';

const differ = new TestDiffer({ limits: { entries: 1000, freeBytes: 2 ** 20 } });

/** A snapshot over a layer with links that lead out, in a folder with something to be lost. */
function target(context: TestContext): { snapshot: Snapshot; check: () => void } {
  const base = folderFor(context);
  const outside = join(base, 'outside');
  mkdirSync(outside);
  writeFileSync(join(outside, 'treasure'), 'intact');
  const bottom = new Snapshot(join(base, 'bottom'));
  const before = describeTree(outside);
  return {
    snapshot: bottom.child(join(base, 'snapshot')),
    check: () => {
      assert.deepEqual(describeTree(outside), before);
      assert.deepEqual(readdirSync(base).sort(), ['bottom', 'outside', 'snapshot']);
    },
  };
}

async function refuses(context: TestContext, layer: Buffer, code: Code, message: RegExp): Promise<Snapshot> {
  const { snapshot, check } = target(context);
  await assert.rejects(differ.apply(layer, snapshot.mounts), (error: RpcError) => {
    assert.match(error.message, message);
    assert.equal(error.code, code);
    return true;
  });
  check();
  return snapshot;
}

const invalid = Code.InvalidArgument;

test('a name that leads out of the layer is refused', async (context) => {
  for (const name of [
    '../outside/new',
    'd/../../outside/new',
    '..',
    '/../x',
    '../../../../../../../../etc/moor-was-here',
  ]) {
    await refuses(
      context,
      archiveOf(entryOf(name)),
      invalid,
      /cannot unpack ".*": its name leads out of the layer/,
    );
  }
});

test('an absolute name means the root of the layer', async (context) => {
  const { snapshot, check } = target(context);
  await differ.apply(archiveOf(entryOf('/etc/moor-was-here')), snapshot.mounts);
  assert.deepEqual(readdirSync(join(snapshot.upper, 'etc')), ['moor-was-here']);
  check();
});

for (const where of ['the same layer', 'the layer below']) {
  test(`writing, linking and whiting out through links of ${where} stays inside`, async (context) => {
    const { snapshot, check } = target(context);
    const outside = join(dirname(snapshot.folder), 'outside');
    const links = [
      entryOf('absolute', { kind: 'symlink', linkName: outside }),
      entryOf('relative', { kind: 'symlink', linkName: '../../outside' }),
      entryOf('up', { kind: 'symlink', linkName: '../../../../../../../..' }),
    ];
    const harm = ['absolute', 'relative', `up${outside}`].flatMap((way, index) => [
      entryOf(`${way}/treasure`, { content: 'lost' }),
      entryOf(`${way}/.wh.treasure`),
      entryOf(`${way}/.wh..wh..opq`),
      entryOf(`${way}/new`, { kind: 'directory', mode: 0o777 }),
      entryOf(`got-it-${index}`, { kind: 'link', linkName: `${way}/treasure` }),
    ]);
    if (where === 'the same layer') {
      await differ.apply(archiveOf(...links, ...harm), snapshot.mounts);
    } else {
      const lower = snapshot.child(join(snapshot.folder, 'above'));
      await differ.apply(archiveOf(...links), snapshot.mounts);
      await differ.apply(archiveOf(...harm), lower.mounts);
    }
    check();
    assert.equal(readFileSync(join(outside, 'treasure'), 'utf8'), 'intact');
  });
}

test('a hard link out of the layer, to nothing, to a folder or to itself is refused', async (context) => {
  const link = (linkName: string) =>
    archiveOf(entryOf('d/', { kind: 'directory' }), entryOf('l', { kind: 'link', linkName }));
  await refuses(context, link('../outside/treasure'), invalid, /"l": its name leads out of the layer/);
  await refuses(context, link('/etc/passwd'), invalid, /"l": it links to "etc\/passwd", which is not there/);
  await refuses(context, link('d'), invalid, /"l": it links to "d", which is a folder/);
  await refuses(context, link('l'), invalid, /"l": it links to "l", which is not there/);
  await refuses(context, link('.'), invalid, /"l": it links to the root/);
});

test('links that go round in circles are refused', async (context) => {
  const layer = archiveOf(
    entryOf('a', { kind: 'symlink', linkName: 'b' }),
    entryOf('b', { kind: 'symlink', linkName: 'a' }),
    entryOf('a/file'),
  );
  await refuses(context, layer, invalid, /cannot unpack "a\/file": "a" goes through too many links/);
});

test('a way through a file is refused', async (context) => {
  await refuses(
    context,
    archiveOf(entryOf('f'), entryOf('f/x')),
    invalid,
    /cannot unpack "f\/x": "f" is no folder/,
  );
});

test('names that are too long or too deep are refused', async (context) => {
  await refuses(
    context,
    archiveOf(entryOf('n'.repeat(5000))),
    invalid,
    /a name of 5000 bytes is longer than 4096/,
  );
  await refuses(
    context,
    archiveOf(entryOf('n'.repeat(256))),
    invalid,
    /a part of a name is longer than 255 bytes/,
  );
  await refuses(context, archiveOf(entryOf('d/'.repeat(600))), invalid, /it is deeper than 512 folders/);
  const linkName = 'x'.repeat(5000);
  await refuses(
    context,
    archiveOf(entryOf('l', { kind: 'symlink', linkName })),
    invalid,
    /its link is too long/,
  );
});

test('a name with a null byte is refused', async (context) => {
  const name = `${'n'.repeat(120)}\0x`;
  await refuses(context, archiveOf(entryOf(name)), invalid, /its name has a null byte/);
});

test('whiteouts of nothing, or of the folder itself, are refused', async (context) => {
  for (const name of ['.wh.', '.wh..', 'd/.wh...']) {
    await refuses(context, archiveOf(entryOf(name)), invalid, /it is no valid whiteout/);
  }
});

test('more entries than the limit are refused', async (context) => {
  const entries = Array.from({ length: 1001 }, (_, index) => entryOf(`f${index}`));
  await refuses(
    context,
    archiveOf(...entries),
    Code.ResourceExhausted,
    /"f1000": the layer has more than 1000 entries/,
  );
});

test('a few bytes that unpack to very many are refused', async (context) => {
  const size = 64 * 2 ** 20;
  const bomb = Buffer.concat([entryOf('zeros', { size }), Buffer.alloc(size)]);
  for (const compress of [gzipSync, zstdCompressSync]) {
    const layer = compress(bomb);
    const snapshot = await refuses(
      context,
      layer,
      Code.ResourceExhausted,
      new RegExp(`a layer of ${layer.length} bytes unpacks to more than the \\d+ that it may`),
    );
    assert.ok(statSync(join(snapshot.upper, 'zeros')).size < size);
  }
});

test('a stream that is cut off, broken or followed by something is refused', async (context) => {
  const archive = archiveOf(entryOf('f', { content: 'x'.repeat(3000) }), entryOf('g'));
  const gzip = gzipSync(archive);
  const zstd = zstdCompressSync(archive);
  const broken = (message: RegExp) => (layer: Buffer) => refuses(context, layer, invalid, message);
  await broken(/the layer's gzip stream is broken: unexpected end of file/)(gzip.subarray(0, -9));
  await broken(/the layer's gzip stream is broken: unexpected end of file/)(gzip.subarray(0, 30));
  await broken(/the layer's gzip stream is broken/)(Buffer.concat([gzip.subarray(0, -8), Buffer.alloc(8)]));
  await broken(/the layer's gzip stream is broken/)(Buffer.concat([gzip, Buffer.from('extra')]));
  await broken(/the layer's gzip stream has 512 bytes behind its end/)(
    Buffer.concat([gzip, Buffer.alloc(512)]),
  );
  await broken(/the layer's zstd stream is broken/)(zstd.subarray(0, -3));
  await broken(/the layer's zstd stream/)(Buffer.concat([zstd, Buffer.from('extra')]));
  await broken(/invalid layer archive at or after "f": the archive is cut off/)(archive.subarray(0, 2000));
  await broken(/invalid layer archive at or after "f": the archive is cut off/)(
    gzipSync(archive.subarray(0, 3900)),
  );
  await broken(/invalid layer archive at its start/)(Buffer.from('this is no layer at all'));
  await broken(/invalid layer archive at its start/)(Buffer.alloc(5000, 'not a layer '));
  await broken(/the layer's gzip stream is broken/)(
    Buffer.concat([gzip.subarray(0, 10), deflateRawSync(archive, { finishFlush: zlib.Z_SYNC_FLUSH })]),
  );
});

test('a header with a wrong checksum is refused', async (context) => {
  const archive = archiveOf(entryOf('good'), entryOf('bad'));
  archive[512 + 100]! ^= 1;
  const snapshot = await refuses(
    context,
    archive,
    invalid,
    /after "good": a header does not have the checksum it says/,
  );
  assert.deepEqual(readdirSync(snapshot.upper), ['good']);
});

test('an entry with an unknown type is refused', async (context) => {
  const archive = archiveOf(entryOf('odd'));
  archive[156] = 'V'.charCodeAt(0);
  archive[154] = 0;
  archive.fill(' ', 148, 156);
  let sum = 0;
  for (const byte of archive.subarray(0, 512)) sum += byte;
  archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  await refuses(context, archive, invalid, /"odd": entries of type "V" are not known/);
});

test('a full disk is named as the cause', async (context) => {
  const folder = folderFor(context);
  mount('moor', folder, 'tmpfs', 0, 'size=1m');
  try {
    const snapshot = new Snapshot(folder);
    const content = 'x'.repeat(700_000);
    for (const layer of [
      archiveOf(entryOf('one', { content }), entryOf('two', { content })),
      archiveOf(
        ...Array.from({ length: 20 }, (_, index) =>
          entryOf(`small${index}`, { content: 'x'.repeat(99_000) }),
        ),
      ),
    ]) {
      await assert.rejects(differ.apply(layer, snapshot.mounts), {
        code: Code.ResourceExhausted,
        message: /cannot unpack "(two|small\d+)": .*ENOSPC.*no space left/i,
      });
    }
  } finally {
    unmount(folder, 0);
  }
});

test('a layer of nothing is fine', async (context) => {
  const { snapshot, check } = target(context);
  await differ.apply(archiveOf(), snapshot.mounts);
  await differ.apply(Buffer.alloc(0), snapshot.mounts);
  assert.deepEqual(readdirSync(snapshot.upper), []);
  check();
});
