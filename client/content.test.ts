import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { type Client, Code, connect, isCode, kindName } from './client.ts';
import { namespace, Peer, peers } from './peer.test.ts';

const code = (expected: Code) => (error: unknown) => isCode(error, expected);
const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

for (const name of peers) {
  suite(`content and snapshots of ${name}`, { timeout: 120_000 }, () => {
    let peer: Peer;
    let client: Client;
    before(async () => {
      peer = await Peer.start(name);
      client = await connect({ address: peer.address, namespace });
      await client.leases.create({ id: 'hold' });
      client = client.withLease('hold');
    });
    after(async () => {
      client?.close();
      await peer?.[Symbol.asyncDispose]();
    });

    test('bytes are written, found, read in parts, labelled and deleted', async () => {
      const bytes = randomBytes(3_000_001);
      const digest = digestOf(bytes);
      assert.equal(await client.content.write('w', bytes, { labels: { a: '1' } }), digest);
      const { size, labels } = await client.content.info(digest);
      assert.deepEqual([Number(size), labels['a']], [bytes.length, '1']);
      assert.ok((await client.content.readAll(digest)).equals(bytes));
      const part = await client.content.readAll(digest, { offset: 1000, size: 500, limit: 500 });
      assert.ok(part.equals(bytes.subarray(1000, 1500)));
      await assert.rejects(client.content.readAll(digest, { limit: 1000 }), code(Code.ResourceExhausted));
      assert.equal((await client.content.label(digest, { b: '2' }))['b'], '2');
      const found = await client.content.list(['labels.b==2']);
      assert.deepEqual(
        found.map((info) => info.digest),
        [digest],
      );
      // Again: it is there, and what was asked for holds.
      assert.equal(
        await client.content.write('again', bytes, { expected: digest, labels: { c: '3' } }),
        digest,
      );
      assert.equal((await client.content.info(digest)).labels['c'], '3');
      // Also when only the end of the bytes shows what they are.
      assert.equal(await client.content.write('unexpected', bytes, { labels: { d: '4' } }), digest);
      assert.equal((await client.content.info(digest)).labels['d'], '4');
      await client.content.delete(digest);
      await assert.rejects(client.content.info(digest), code(Code.NotFound));
      await assert.rejects(client.content.readAll(digest), code(Code.NotFound));
    });

    test('a write that breaks off goes on where it stopped', async () => {
      const bytes = randomBytes(2_500_000);
      const expected = digestOf(bytes);
      async function* broken(): AsyncGenerator<Uint8Array> {
        yield bytes.subarray(0, 1_200_000);
        throw new Error('the source is gone');
      }
      await assert.rejects(client.content.write('part', broken(), { expected }), /the source is gone/);
      // What was sent last may or may not have arrived before the call was cancelled.
      const { offset, ref } = await client.content.status('part');
      assert.equal(ref, 'part');
      assert.ok(offset <= 1_200_000n, String(offset));
      assert.equal((await client.content.statuses()).length, 1);
      const pieces = [bytes.subarray(0, 7), bytes.subarray(7)];
      assert.equal(await client.content.write('part', pieces, { expected, size: bytes.length }), expected);
      assert.deepEqual(await client.content.statuses(), []);
      assert.ok((await client.content.readAll(expected)).equals(bytes));
    });

    test('bytes that are not what was expected are refused, and a write can be given up', async () => {
      const bytes = Buffer.from('bytes');
      const expected = digestOf(Buffer.from('others'));
      const refused = code(Code.FailedPrecondition);
      await assert.rejects(client.content.write('wrong', bytes, { expected }), refused);
      await assert.rejects(client.content.write('short', bytes, { size: 7 }), refused);
      for (const { ref } of await client.content.statuses()) await client.content.abort(ref);
      await assert.rejects(client.content.status('short'), code(Code.NotFound));
      await assert.rejects(client.content.abort('short'), code(Code.NotFound));
    });

    test('snapshots are prepared, committed, viewed, labelled and removed', async () => {
      const snapshots = client.snapshots();
      assert.equal(await snapshots.name(), 'overlayfs');
      const [mount] = await snapshots.prepare('work', '', { labels: { a: '1' } });
      assert.equal(mount?.type, 'bind');
      await assert.rejects(snapshots.prepare('work'), code(Code.AlreadyExists));
      await snapshots.commit('base', 'work');
      assert.equal(kindName((await snapshots.stat('base')).kind), 'COMMITTED');
      await snapshots.prepare('top', 'base');
      assert.deepEqual(await snapshots.mounts('top'), await snapshots.mounts('top'));
      assert.equal((await snapshots.view('look', 'base')).length, 1);
      assert.deepEqual(await snapshots.label('top', { b: '2' }), { b: '2' });
      assert.ok((await snapshots.usage('top')).inodes > 0n);
      const children = await snapshots.list(['parent==base']);
      assert.deepEqual(children.map((info) => info.name).sort(), ['look', 'top']);
      await assert.rejects(snapshots.remove('base'), code(Code.FailedPrecondition));
      for (const key of ['top', 'look', 'base']) await snapshots.remove(key);
      await assert.rejects(snapshots.stat('base'), code(Code.NotFound));
      await assert.rejects(client.snapshots('none').list(), code(Code.InvalidArgument));
    });

    test('a namespace names its snapshotter', async () => {
      const other = client.in(`${namespace}-native`);
      await other.namespaces.create(other.namespace, { 'containerd.io/defaults/snapshotter': 'native' });
      assert.equal(await other.snapshots().name(), 'native');
      await other.namespaces.delete(other.namespace);
    });
  });
}
