import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Info as Content } from '../../proto/gen/containerd/services/content.ts';
import { Container } from '../../proto/gen/containerd/services/containers.ts';
import { Info } from '../../proto/gen/containerd/services/snapshots.ts';
import { type Digest, parseDigest } from '../content/digest.ts';
import { NamespacedContent } from '../content/namespaced-content.ts';
import { ContentStore } from '../content/store.ts';
import { ImageStore } from '../images/store.ts';
import { openLog } from '../log.ts';
import { parseNamespace } from '../identifiers.ts';
import { addToLease } from '../metadata/leases.ts';
import { MetadataStore } from '../metadata/store.ts';
import { Collector } from './collector.ts';
import { contentResource, ingestResource } from './content.ts';
import { containerResource, imageResource, leaseResource, recordResource } from './records.ts';

const ns = parseNamespace('here');
const other = parseNamespace('there');

/** Snapshots as they will lie in the metadata, without anything on disk. */
const snapshots = recordResource({
  kind: 'snapshot/fake',
  type: Info,
  facts: ({ parent, labels }) => ({
    root: false,
    references: parent === '' ? [] : [{ kind: 'snapshot/fake', id: parent }],
    labels,
  }),
  remove: (transaction, namespace, id) => transaction.remove([namespace, 'snapshot/fake', id]),
});

class World {
  readonly directory = mkdtempSync(join(tmpdir(), 'moor-gc-'));
  readonly events: string[] = [];
  metadata!: MetadataStore;
  content!: NamespacedContent;
  images!: ImageStore;
  gc!: Collector;

  static async open(t: TestContext): Promise<World> {
    const world = new World();
    await world.start();
    t.after(async () => {
      await world.stop();
      rmSync(world.directory, { recursive: true });
    });
    return world;
  }

  async start(): Promise<void> {
    this.metadata = await MetadataStore.open(join(this.directory, 'metadata'));
    const { database } = this.metadata;
    this.content = new NamespacedContent(database, await ContentStore.open(join(this.directory, 'content')));
    this.images = new ImageStore(database, { publish: (_, topic) => this.events.push(topic) });
    const deleted = imageResource((namespace, name) => this.images.deleted(namespace, name));
    const resources = [
      leaseResource,
      deleted,
      containerResource,
      snapshots,
      ingestResource(this.content),
      contentResource(this.content),
    ];
    this.gc = new Collector(database, resources, openLog('fatal'));
  }

  async stop(): Promise<void> {
    await this.content.close();
    await this.metadata.close();
  }

  put(text: string, labels: Record<string, string> = {}, options: { lease?: string } = {}): Promise<Digest> {
    return this.content.put(ns, `ref-${text}`, Buffer.from(text), { labels, ...options });
  }

  image(name: string, digest: string, labels: Record<string, string> = {}): Promise<unknown> {
    return this.images.create(ns, {
      name,
      labels,
      target: { mediaType: 'application/json', digest, size: 1n, annotations: {} },
    });
  }

  snapshot(id: string, parent = '', labels: Record<string, string> = {}): Promise<void> {
    return this.metadata.database.update((transaction) =>
      transaction.put([ns, 'snapshot/fake', id], Info, Info.fromPartial({ name: id, parent, labels })),
    );
  }

  snapshots(): string[] {
    return [...this.metadata.database.list([ns, 'snapshot/fake'], Info)].map(({ id }) => id);
  }

  /** What of these is left, in the records and on disk alike. */
  left(digests: Record<string, Digest>): string[] {
    const files = new Set(readdirSync(join(this.directory, 'content/blobs/sha256')));
    return Object.entries(digests)
      .filter(([name, digest]) => {
        const known = this.content.records.has(ns, digest);
        assert.equal(files.has(digest.slice('sha256:'.length)), known, name);
        return known;
      })
      .map(([name]) => name);
  }
}

const reference = (...digests: string[]): Record<string, string> =>
  Object.fromEntries(digests.map((digest, index) => [`containerd.io/gc.ref.content.${index}`, digest]));

test('images keep what their labels lead to; the rest goes, from the disk too', async (t) => {
  const world = await World.open(t);
  const layer = await world.put('layer');
  const config = await world.put('config', { 'containerd.io/gc.ref.snapshot.fake/x': 'top' });
  const manifest = await world.put('manifest', reference(layer, config));
  const index = await world.put('index', { 'containerd.io/gc.ref.content': manifest });
  const stray = await world.put('stray', reference(layer));
  const root = await world.put('root', { 'containerd.io/gc.root': 'yes' });
  const almost = await world.put('almost');
  await world.snapshot('base');
  await world.snapshot('top', 'base');
  await world.snapshot('lost', 'base');
  await world.image('docker.io/library/a:1', index, { 'containerd.io/gc.ref.contents': almost });
  const all = { layer, config, manifest, index, stray, root, almost };
  const collected = await world.gc.collect();
  assert.deepEqual(world.left(all), ['layer', 'config', 'manifest', 'index', 'root']);
  assert.deepEqual(world.snapshots(), ['base', 'top']);
  assert.equal(collected.removed.length, 3);

  await world.images.delete(ns, 'docker.io/library/a:1');
  await world.gc.collect();
  assert.deepEqual(world.left(all), ['root']);
  assert.deepEqual(world.snapshots(), []);
});

test('containers keep their snapshots and what their labels name', async (t) => {
  const world = await World.open(t);
  await world.snapshot('base');
  await world.snapshot('rootfs', 'base');
  const wanted = await world.put('wanted');
  const container = Container.fromPartial({
    id: 'c',
    runtime: { name: 'r' },
    spec: {},
    snapshotter: 'fake',
    snapshotKey: 'rootfs',
    labels: reference(wanted),
  });
  await world.metadata.containers.create(ns, container);
  await world.gc.collect();
  assert.deepEqual(world.snapshots(), ['base', 'rootfs']);
  assert.deepEqual(world.left({ wanted }), ['wanted']);
});

test('leases keep their resources until they are deleted or expire; flat ones keep nothing behind them', async (t) => {
  const world = await World.open(t);
  const past = new Date(Date.now() - 1000).toISOString();
  const future = new Date(Date.now() + 100_000).toISOString();
  await world.metadata.leases.create(ns, 'deep', { 'containerd.io/gc.expire': future });
  await world.metadata.leases.create(ns, 'flat', { 'containerd.io/gc.flat': 'yes' });
  await world.metadata.leases.create(ns, 'late', { 'containerd.io/gc.expire': past });
  await world.metadata.leases.create(ns, 'odd', { 'containerd.io/gc.expire': 'tomorrow' });
  const [a, b, c] = [await world.put('a'), await world.put('b'), await world.put('c')];
  const deep = await world.put('deep', reference(a), { lease: 'deep' });
  const flat = await world.put('flat', reference(b), { lease: 'flat' });
  const late = await world.put('late', reference(c), { lease: 'late' });
  const odd = await world.put('odd', {}, { lease: 'odd' });
  await world.snapshot('base', '', reference(c));
  await world.snapshot('top', 'base', reference(c));
  await world.metadata.leases.addResource(ns, 'flat', { type: 'snapshots/fake', id: 'top' });
  const { expires } = await world.gc.collect();
  assert.deepEqual(world.left({ a, b, c, deep, flat, late, odd }), ['a', 'deep', 'flat', 'odd']);
  assert.deepEqual(world.snapshots(), ['base', 'top']);
  assert.deepEqual(
    world.metadata.leases.list(ns).map(({ id }) => id),
    ['deep', 'flat', 'odd'],
  );
  assert.equal(expires, Date.parse(future));
  for (const lease of ['deep', 'flat', 'odd']) await world.metadata.leases.delete(ns, lease);
  await world.gc.collect();
  assert.deepEqual(world.left({ a, b, c, deep, flat, late, odd }), []);
  assert.deepEqual(world.snapshots(), []);
});

test('back references live as long as what they name; expired images go, with an event', async (t) => {
  const world = await World.open(t);
  const image = await world.put('image');
  const attached = await world.put('attached', { 'containerd.io/gc.bref.content.why': image });
  const further = await world.put('further', { 'containerd.io/gc.bref.image': 'a' });
  const alone = await world.put('alone', { 'containerd.io/gc.bref.content': digestOf('nothing') });
  await world.image('a', image);
  await world.image('old', alone, { 'containerd.io/gc.expire': new Date(0).toISOString() });
  await world.gc.collect();
  assert.deepEqual(world.left({ image, attached, further, alone }), ['image', 'attached', 'further']);
  assert.deepEqual(world.events, ['/images/create', '/images/create', '/images/delete']);
});

test('one namespace does not free what another has, and the last one frees it', async (t) => {
  const world = await World.open(t);
  const digest = await world.put('shared');
  await world.content.put(other, 'x', Buffer.from('shared'), { labels: { 'containerd.io/gc.root': '1' } });
  await world.gc.collect();
  assert.equal(world.content.records.has(ns, digest), false);
  assert.equal((await world.content.read(other, digest, 10)).toString(), 'shared');
  await world.content.delete(other, digest);
  await world.gc.collect();
  assert.deepEqual(readdirSync(join(world.directory, 'content/blobs/sha256')), []);
});

test('ingests stay while they are written, leased or young; the bytes of the others go', async (t) => {
  const world = await World.open(t);
  await world.metadata.leases.create(ns, 'l', {});
  const writer = await world.content.writer(ns, 'leased', { lease: 'l' });
  await writer.write(Buffer.from('x'));
  await (await world.content.writer(ns, 'young')).close();
  await world.metadata.leases.delete(ns, 'l');
  await world.gc.collect();
  const refs = (): string[] => world.content.records.ingests(ns).map(({ ref }) => ref);
  assert.deepEqual(refs(), ['leased', 'young']);
  await writer.close();
  await world.gc.collect();
  assert.deepEqual(refs(), ['young']);
  assert.equal(readdirSync(join(world.directory, 'content/ingest')).length, 1);
});

test('a shared ingest keeps the blob it will be', async (t) => {
  const world = await World.open(t);
  const digest = await world.put('shared');
  const writer = await world.content.writer(other, 'x', { expected: digest });
  await world.gc.collect();
  assert.equal(world.content.records.has(ns, digest), false);
  await writer.commit();
  assert.equal((await world.content.read(other, digest, 10)).toString(), 'shared');
});

test('what lies on disk without a record goes at the first collection', async (t) => {
  const world = await World.open(t);
  const blob = join(world.directory, 'content/blobs/sha256', 'a'.repeat(64));
  writeFileSync(blob, 'orphan');
  mkdirSync(join(world.directory, 'content/ingest', 'b'.repeat(64)));
  await (await world.content.writer(ns, 'young')).close();
  await world.gc.collect();
  assert.deepEqual(readdirSync(join(world.directory, 'content/blobs/sha256')), []);
  assert.equal(readdirSync(join(world.directory, 'content/ingest')).length, 1);
});

test('what is referred to again while a collection runs is not taken', async (t) => {
  const world = await World.open(t);
  const { database, leases } = world.metadata;
  await leases.create(ns, 'late', {});
  const chains = Array.from({ length: 1500 }, (_, index) => ({
    manifest: digestOf(`manifest ${index}`),
    layer: digestOf(`layer ${index}`),
  }));
  const record = (digest: Digest, labels: Record<string, string>): Content =>
    Content.fromPartial({ digest, size: 1n, labels });
  await database.update((transaction) => {
    for (const { manifest, layer } of chains) {
      transaction.put([ns, 'content', layer], Content, record(layer, {}));
      transaction.put([ns, 'content', manifest], Content, record(manifest, reference(layer)));
    }
  });
  // One after the other is leased, at ever later moments of the collection: those that are still there must stay, whole.
  let over = false;
  const collecting = world.gc.collect().finally(() => {
    over = true;
  });
  const saved: typeof chains = [];
  for (const chain of chains) {
    if (over) break;
    await database.update((transaction) => {
      if (!transaction.has([ns, 'content', chain.manifest])) return;
      addToLease(transaction, ns, 'late', { type: 'content', id: chain.manifest });
      saved.push(chain);
    });
  }
  const { removed } = await collecting;
  t.diagnostic(`${saved.length} saved, ${removed.length} removed`);
  assert.ok(saved.length > 0 && removed.length > 0);
  const left = world.content.list(ns).map(({ digest }) => digest);
  assert.deepEqual(left.sort(), saved.flatMap(({ manifest, layer }) => [manifest, layer]).sort());
});

function digestOf(text: string): Digest {
  return parseDigest(`sha256:${createHash('sha256').update(text).digest('hex')}`);
}
