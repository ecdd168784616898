import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { parseNamespace } from '../identifiers.ts';
import { MetadataStore } from '../metadata/store.ts';
import { type Digest, parseDigest } from './digest.ts';
import { NamespacedContent } from './namespaced-content.ts';
import { ContentStore } from './store.ts';

const here = parseNamespace('here');
const there = parseNamespace('there');

const digestOf = (bytes: Buffer): Digest =>
  parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`);

const code =
  (expected: Code, pattern = /./) =>
  (error: unknown) =>
    isCode(error, expected) && pattern.test(error.message);

class Place {
  readonly directory = mkdtempSync(join(tmpdir(), 'moor-content-'));
  metadata!: MetadataStore;
  content!: NamespacedContent;

  static async open(t: TestContext): Promise<Place> {
    const place = new Place();
    await place.start();
    t.after(async () => {
      await place.stop();
      rmSync(place.directory, { recursive: true });
    });
    return place;
  }

  async start(): Promise<void> {
    this.metadata = await MetadataStore.open(join(this.directory, 'metadata'));
    const store = await ContentStore.open(join(this.directory, 'content'));
    this.content = new NamespacedContent(this.metadata.database, store);
  }

  async stop(): Promise<void> {
    await this.content.close();
    await this.metadata.close();
  }

  blobs(): string[] {
    return readdirSync(join(this.directory, 'content/blobs/sha256'));
  }

  ingests(): string[] {
    return readdirSync(join(this.directory, 'content/ingest'));
  }
}

test('what is written in pieces is read back whole, read-only on disk, with its labels', async (t) => {
  const { content } = await Place.open(t);
  const bytes = randomBytes(3_000_001);
  const digest = digestOf(bytes);
  const writer = await content.writer(here, 'layer', { total: bytes.length, expected: digest });
  for (let at = 0; at < bytes.length; at += 70_000) await writer.write(bytes.subarray(at, at + 70_000));
  assert.equal(writer.digest, digest);
  await writer.commit({ size: bytes.length, expected: digest, labels: { a: 'b', empty: '' } });

  const info = content.info(here, digest);
  assert.equal(info.size, BigInt(bytes.length));
  assert.deepEqual({ ...info.labels }, { a: 'b' });
  assert.deepEqual(await content.read(here, digest, bytes.length), bytes);
  assert.equal(statSync(content.store.path(digest)).mode & 0o777, 0o444);
  await using blob = await content.openBlob(here, digest);
  const parts: Buffer[] = [];
  for await (const part of blob.chunks(5, 2_500_000)) parts.push(Buffer.from(part));
  assert.deepEqual(Buffer.concat(parts), bytes.subarray(5, 2_500_000));
});

test('an ingest is resumed over a restart, where its writer has left off', async (t) => {
  const place = await Place.open(t);
  const bytes = randomBytes(2_500_000);
  const first = await place.content.writer(here, 'layer', { total: bytes.length });
  await first.write(bytes.subarray(0, 1_500_000));
  await place.stop();
  await place.start();
  const status = await place.content.status(here, 'layer');
  assert.equal(status.offset, 1_500_000);
  assert.equal(status.total, bytes.length);
  assert.deepEqual((await place.content.statuses(here)).length, 1);
  assert.deepEqual(await place.content.statuses(there), []);
  const second = await place.content.writer(here, 'layer', { total: bytes.length });
  assert.equal(second.offset, 1_500_000);
  await second.write(bytes.subarray(1_500_000));
  await second.commit({ size: bytes.length, expected: digestOf(bytes) });
  assert.deepEqual(place.ingests(), []);
  await assert.rejects(place.content.status(here, 'layer'), code(Code.NotFound, /reference layer/));
});

test('a wrong digest or size keeps nothing', async (t) => {
  const place = await Place.open(t);
  const { content } = place;
  for (const wrong of [{ size: 4 }, { expected: digestOf(Buffer.from('other')) }]) {
    const writer = await content.writer(here, 'layer');
    await writer.write(Buffer.from('bytes'));
    await assert.rejects(writer.commit(wrong), code(Code.FailedPrecondition, /4|expected sha256/));
    assert.deepEqual([...place.blobs(), ...place.ingests(), ...(await content.statuses(here))], []);
    await assert.rejects(writer.write(Buffer.from('x')), code(Code.FailedPrecondition, /closed/));
  }
});

test('one writer excludes another of the same ref, but not in another namespace', async (t) => {
  const { content } = await Place.open(t);
  const writer = await content.writer(here, 'layer');
  await assert.rejects(content.writer(here, 'layer'), code(Code.Unavailable, /ref layer locked/));
  await (await content.writer(there, 'layer')).close();
  const waiting = content.writer(here, 'layer');
  await writer.close();
  await (await waiting).close();
});

test('a blob of another namespace is seen only after a commit, and then without its bytes being sent', async (t) => {
  const place = await Place.open(t);
  const { content } = place;
  const bytes = randomBytes(100_000);
  const digest = await content.put(here, 'layer', bytes);
  assert.throws(() => content.info(there, digest), code(Code.NotFound));
  await assert.rejects(content.openBlob(there, digest), code(Code.NotFound));

  const writer = await content.writer(there, 'layer', { expected: digest });
  assert.deepEqual(
    { ...writer.status, startedAt: 0, updatedAt: 0 },
    {
      ref: 'layer',
      offset: bytes.length,
      total: bytes.length,
      expected: digest,
      startedAt: 0,
      updatedAt: 0,
    },
  );
  assert.throws(() => content.info(there, digest), code(Code.NotFound));
  await writer.commit({ size: bytes.length, expected: digest, labels: { mine: 'yes' } });
  assert.deepEqual(await content.read(there, digest, 1e6), bytes);
  assert.deepEqual({ ...content.info(here, digest).labels }, {});
  assert.equal(place.blobs().length, 1);
});

test('writing to a shared blob writes to a copy', async (t) => {
  const { content } = await Place.open(t);
  const digest = await content.put(here, 'layer', Buffer.from('abc'));
  const writer = await content.writer(there, 'layer', { expected: digest });
  await writer.write(Buffer.from('def'));
  const all = digestOf(Buffer.from('abcdef'));
  assert.equal(writer.digest, all);
  await writer.commit({ expected: all });
  assert.equal((await content.read(here, digest, 10)).toString(), 'abc');
  assert.equal((await content.read(there, all, 10)).toString(), 'abcdef');

  const again = await content.writer(there, 'again', { expected: digest });
  await again.truncate();
  await again.write(Buffer.from('xyz'));
  assert.equal((await again.commit()).digest, digestOf(Buffer.from('xyz')));
});

test('content that is there already needs no writer, and comes under the lease', async (t) => {
  const { content, metadata } = await Place.open(t);
  const digest = await content.put(here, 'layer', Buffer.from('abc'));
  await metadata.leases.create(here, 'mine', {});
  await assert.rejects(
    content.writer(here, 'x', { expected: digest, lease: 'mine' }),
    code(Code.AlreadyExists),
  );
  assert.deepEqual(metadata.leases.resources(here, 'mine'), [{ type: 'content', id: digest }]);
  await (await content.writer(here, 'x', { lease: 'mine' })).close();
  assert.deepEqual(
    metadata.leases.resources(here, 'mine').map(({ type }) => type),
    ['content', 'ingests'],
  );
  await assert.rejects(content.writer(here, 'y', { lease: 'gone' }), code(Code.NotFound, /lease "gone"/));
  assert.equal(content.isActive(here, 'y'), false);
  const writer = await content.writer(here, 'x', { lease: 'mine' });
  await writer.write(Buffer.from('abc'));
  await assert.rejects(writer.commit(), code(Code.AlreadyExists));
  assert.deepEqual(metadata.leases.resources(here, 'mine'), [{ type: 'content', id: digest }]);
});

test('a blob whose file is cut or gone is an error that names it, and can be written again', async (t) => {
  const { content } = await Place.open(t);
  const digest = await content.put(here, 'layer', Buffer.from('abc'));
  truncateSync(content.store.path(digest), 1);
  await assert.rejects(content.openBlob(here, digest), code(Code.DataLoss, new RegExp(`${digest}.*1 of 3`)));
  await content.put(here, 'layer', Buffer.from('abc'));
  assert.equal((await content.read(here, digest, 3)).toString(), 'abc');
  rmSync(content.store.path(digest));
  await assert.rejects(
    content.openBlob(here, digest),
    code(Code.NotFound, new RegExp(`blob ${digest} expected`)),
  );
  await content.put(here, 'layer', Buffer.from('abc'));
  assert.equal(readFileSync(content.store.path(digest), 'utf8'), 'abc');
});

test('an abort throws away what is written, also under a writer', async (t) => {
  const place = await Place.open(t);
  const writer = await place.content.writer(here, 'layer');
  await writer.write(Buffer.from('abc'));
  await place.content.abort(here, 'layer');
  assert.deepEqual(place.ingests(), []);
  await assert.rejects(writer.write(Buffer.from('d')), code(Code.Aborted, /layer was aborted/));
  await assert.rejects(place.content.abort(here, 'layer'), code(Code.NotFound, /reference layer/));
});

test('labels are changed by paths', async (t) => {
  const { content } = await Place.open(t);
  const digest = await content.put(here, 'x', Buffer.from('abc'), { labels: { a: '1', b: '2', c: '3' } });
  const info = content.info(here, digest);
  const change = { ...info, labels: { a: '9', b: '9', d: '4' } };
  assert.deepEqual(
    { ...(await content.update(here, change, ['labels.a', 'labels.c', 'labels.d'])).labels },
    { a: '9', b: '2', d: '4' },
  );
  assert.deepEqual({ ...(await content.update(here, change, ['labels'])).labels }, change.labels);
  await assert.rejects(
    content.update(here, change, ['size']),
    code(Code.InvalidArgument, /cannot update "size"/),
  );
  await assert.rejects(
    content.update(here, { ...change, labels: { k: 'v'.repeat(4096) } }),
    code(Code.InvalidArgument, /info.Labels/),
  );
  assert.deepEqual(content.list(here, ['labels.a==9']).length, 1);
  assert.deepEqual(content.list(here, [`digest!=${digest}`]), []);
  await content.delete(here, digest);
  assert.throws(() => content.info(here, digest), code(Code.NotFound));
});

test('refs and digests are checked', async (t) => {
  const { content } = await Place.open(t);
  await assert.rejects(content.writer(here, ''), code(Code.InvalidArgument, /empty/));
  await assert.rejects(content.writer(here, 'x'.repeat(2000)), code(Code.InvalidArgument, /longer/));
  for (const bad of ['', 'sha256:', 'sha256:../../etc', `sha256:${'A'.repeat(64)}`, `md5:${'a'.repeat(32)}`])
    assert.throws(() => parseDigest(bad), code(Code.InvalidArgument));
  parseDigest(`sha512:${'a'.repeat(128)}`);
});
