import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Container } from '../../proto/gen/containerd/services/containers.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { type ContainerId, parseId, parseNamespace } from '../identifiers.ts';
import { MetadataStore } from './store.ts';

const ns = parseNamespace('default');
const other = parseNamespace('other');
const id = parseId('c1');

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'moor-metadata-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

async function openStore(t: TestContext): Promise<MetadataStore> {
  const store = await MetadataStore.open(directory(t));
  t.after(() => store.close());
  return store;
}

const container = (change: Parameters<typeof Container.fromPartial>[0] = {}): Container =>
  Container.fromPartial({
    id,
    image: 'busybox',
    runtime: { name: 'io.containerd.runc.v2', options: { typeUrl: 'x', value: Buffer.from('y') } },
    spec: { typeUrl: 'spec', value: Buffer.from('{}') },
    ...change,
  });

const fails = (action: Promise<unknown> | (() => unknown), code: Code, message: RegExp): Promise<void> =>
  assert.rejects(
    async () => (typeof action === 'function' ? action() : action),
    (error) => {
      assert.ok(isCode(error, code), String(error));
      assert.match(error.message, message);
      return true;
    },
  );

test('a container is found again as it was made, by every later store', async (t) => {
  const path = directory(t);
  const first = await MetadataStore.open(path);
  const made = await first.containers.create(
    ns,
    container({
      labels: { a: 'b', gone: '', __proto__: 'x' },
      extensions: { e: { typeUrl: 'u', value: Buffer.from([1, 2]) } },
      snapshotter: 'overlayfs',
      snapshotKey: 'key',
      sandbox: 's',
    }),
  );
  assert.deepEqual(made.labels, { a: 'b' });
  assert.deepEqual(made.createdAt, made.updatedAt);
  await first.close();
  const second = await MetadataStore.open(path);
  assert.deepEqual(second.containers.get(ns, id), made);
  await second.close();
});

test('a container belongs to one namespace', async (t) => {
  const { containers, namespaces } = await openStore(t);
  await containers.create(ns, container());
  await fails(
    () => containers.get(other, id),
    Code.NotFound,
    /^container "c1" in namespace "other": not found$/,
  );
  await containers.create(other, container({ image: 'else' }));
  await fails(containers.create(ns, container()), Code.AlreadyExists, /^container "c1": already exists$/);
  await containers.delete(ns, id);
  assert.equal(containers.get(other, id).image, 'else');
  await fails(containers.delete(ns, id), Code.NotFound, /not found$/);
  assert.deepEqual(
    namespaces.list().map(({ name }) => name),
    ['default', 'other'],
  );
});

test('containers are listed in order, by filter', async (t) => {
  const { containers } = await openStore(t);
  for (const name of ['b', 'a', 'c.1', 'c-1', 'C']) {
    await containers.create(
      ns,
      container({ id: name, labels: { name, [`is-${name}`]: 'yes' }, image: name === 'a' ? '' : 'i' }),
    );
  }
  await containers.create(parseNamespace('default2'), container({ id: 'z' }));
  const list = (...filters: string[]): string[] => containers.list(ns, filters).map((found) => found.id);
  assert.deepEqual(list(), ['C', 'a', 'b', 'c-1', 'c.1']);
  assert.deepEqual(list('id==b'), ['b']);
  assert.deepEqual(list('id~=^c'), ['c-1', 'c.1']);
  assert.deepEqual(list('image'), ['C', 'b', 'c-1', 'c.1']);
  assert.deepEqual(list('runtime.name==io.containerd.runc.v2,labels.name==a'), ['a']);
  assert.deepEqual(list('labels."is-c.1"', 'labels.is-c.1'.replace('is-c.1', '"is-b"')), ['b', 'c.1']);
  assert.throws(
    () => list('id='),
    (error) => isCode(error, Code.InvalidArgument),
  );
});

for (const [what, change, message] of [
  [
    'an id that is none',
    { id: '../x' },
    /create container failed validation: container\.ID: identifier "\.\.\/x" must match/,
  ],
  [
    'an id that is too long',
    { id: 'x'.repeat(300) },
    /container\.ID: identifier "x+…" greater than maximum length \(76 characters\)/,
  ],
  ['no runtime', { runtime: undefined }, /container\.Runtime\.Name must be set: invalid argument$/],
  ['no spec', { spec: undefined }, /container\.Spec must be set/],
  [
    'a snapshot of no snapshotter',
    { snapshotKey: 'x' },
    /container\.Snapshotter must be set if container\.SnapshotKey is set/,
  ],
  [
    'labels that are too long',
    { labels: { key: 'x'.repeat(4094) } },
    /label key and value greater than maximum size \(4096 bytes\), key: key/,
  ],
  [
    'a nameless extension',
    { extensions: { '': { typeUrl: 'x' } } },
    /Extension keys must not be zero-length/,
  ],
] as const) {
  test(`a container with ${what} is refused`, async (t) => {
    const { containers, namespaces } = await openStore(t);
    await fails(async () => containers.create(ns, container(change)), Code.InvalidArgument, message);
    assert.deepEqual(namespaces.list(), []);
  });
}

test('an update changes the fields it names and no other', async (t) => {
  const { containers } = await openStore(t);
  const extension = (text: string): { typeUrl: string; value: Buffer } => ({
    typeUrl: 't',
    value: Buffer.from(text),
  });
  const made = await containers.create(
    ns,
    container({ labels: { a: '1', b: '2' }, extensions: { x: extension('1'), y: extension('2') } }),
  );
  const change = container({
    image: 'new',
    labels: { a: '9', c: '3' },
    extensions: { x: extension('9') },
    spec: { typeUrl: 'spec', value: Buffer.from('new') },
    runtime: { name: 'another' },
  });
  let updated = await containers.update(ns, change, ['labels.a', 'labels.b']);
  assert.deepEqual(updated.labels, { a: '9' });
  assert.deepEqual([updated.image, updated.spec], [made.image, made.spec]);
  updated = await containers.update(ns, change, ['extensions.x', 'extensions.y', 'image']);
  assert.deepEqual(updated.extensions, { x: extension('9') });
  assert.equal(updated.image, 'new');
  updated = await containers.update(ns, change, ['labels', 'spec', 'extensions', 'snapshotkey']);
  assert.deepEqual(updated.labels, { a: '9', c: '3' });
  assert.equal(updated.spec!.value.toString(), 'new');
  assert.deepEqual(updated.runtime, made.runtime);
  assert.deepEqual(updated.createdAt, made.createdAt);
  assert.deepEqual(containers.get(ns, id), updated);
  for (const path of ['runtime', 'id', 'snapshotter', 'created_at', 'label.a', '']) {
    await fails(
      containers.update(ns, change, ['image', path]),
      Code.InvalidArgument,
      new RegExp(`cannot update "${path}" field on "c1"`),
    );
  }
});

test('an update without fields replaces what can be replaced', async (t) => {
  const { containers } = await openStore(t);
  await containers.create(ns, container({ labels: { a: '1' }, snapshotter: 's', snapshotKey: 'k' }));
  const updated = await containers.update(ns, container({ image: 'new', snapshotter: 's' }), []);
  assert.deepEqual([updated.image, updated.labels, updated.snapshotKey], ['new', {}, '']);
  await fails(
    containers.update(ns, container({ snapshotter: 'x' }), []),
    Code.InvalidArgument,
    /Snapshotter field is immutable/,
  );
  await fails(
    containers.update(ns, container({ snapshotter: 's', runtime: { name: 'x' } }), []),
    Code.InvalidArgument,
    /Runtime\.Name field is immutable/,
  );
  await fails(
    containers.update(ns, container({ snapshotter: 's', spec: undefined }), []),
    Code.InvalidArgument,
    /Spec must be set/,
  );
  await fails(
    containers.update(ns, container({ id: 'nope' }), ['image']),
    Code.NotFound,
    /container "nope" in namespace "default"/,
  );
});

test('a namespace has labels, comes into being by them, and goes when it is empty', async (t) => {
  const { namespaces, containers, leases } = await openStore(t);
  assert.deepEqual(
    namespaces.get(ns),
    { name: 'default', labels: {} },
    'one that does not exist has no labels',
  );
  assert.deepEqual(await namespaces.create(ns, { a: '1', empty: '' }), {
    name: 'default',
    labels: { a: '1' },
  });
  await fails(namespaces.create(ns, {}), Code.AlreadyExists, /^namespace "default": already exists$/);
  await namespaces.update(ns, { a: '', b: '2', c: '3' }, ['labels.a', 'labels.b']);
  assert.deepEqual(namespaces.get(ns).labels, { b: '2' });
  await namespaces.update(ns, { c: '3' }, []);
  assert.deepEqual(namespaces.get(ns).labels, { c: '3' });
  await fails(
    async () => namespaces.update(ns, {}, ['name']),
    Code.InvalidArgument,
    /cannot update "name" field/,
  );
  await namespaces.update(other, { x: 'y' }, ['labels.x']);
  assert.deepEqual(namespaces.list(['labels.x==y']), [{ name: 'other', labels: { x: 'y' } }]);
  await containers.create(ns, container());
  await leases.create(ns, 'l', {});
  await fails(
    namespaces.delete(ns),
    Code.FailedPrecondition,
    /namespace "default" must be empty, but it still has containers/,
  );
  await containers.delete(ns, id);
  await namespaces.delete(ns);
  await fails(namespaces.delete(ns), Code.NotFound, /^namespace "default": not found$/);
  assert.deepEqual(leases.list(ns), [], 'leases go with their namespace');
});

test('a lease holds resources until it is deleted', async (t) => {
  const { leases } = await openStore(t);
  const sha = `sha256:${'a'.repeat(64)}`;
  const resources = [
    { type: 'content', id: sha },
    { type: 'ingests', id: 'layer-1' },
    { type: 'snapshots/overlayfs', id: 'default/1/key with / anything' },
  ];
  const lease = await leases.create(ns, 'l1', { 'containerd.io/gc.expire': '2030-01-01T00:00:00Z', x: '' });
  assert.deepEqual(lease.labels, { 'containerd.io/gc.expire': '2030-01-01T00:00:00Z' });
  for (const resource of resources.toReversed()) await leases.addResource(ns, 'l1', resource);
  await leases.addResource(ns, 'l1', resources[0]!);
  assert.deepEqual(leases.resources(ns, 'l1'), resources);
  await leases.deleteResource(ns, 'l1', resources[1]!);
  await leases.deleteResource(ns, 'l1', resources[1]!);
  assert.deepEqual(leases.resources(ns, 'l1'), [resources[0], resources[2]]);
  await fails(
    async () => leases.addResource(ns, 'l1', { type: 'content', id: 'sha256:xyz' }),
    Code.InvalidArgument,
    /not a digest/,
  );
  await fails(
    async () => leases.addResource(ns, 'l1', { type: 'snapshots', id: 'x' }),
    Code.InvalidArgument,
    /invalid resource type/,
  );
  await fails(
    async () => leases.addResource(ns, 'l1', { type: 'magic', id: 'x' }),
    Code.Unimplemented,
    /resource type magic not supported/,
  );
  await fails(leases.addResource(ns, 'l2', resources[1]!), Code.NotFound, /^lease "l2": not found$/);
  await leases.delete(ns, 'l1');
  await fails(() => leases.resources(ns, 'l1'), Code.NotFound, /lease "l1"/);
  await leases.create(ns, 'l1', {});
  assert.deepEqual(leases.resources(ns, 'l1'), []);
});

test('leases are named by their maker or by the store, and listed by filter', async (t) => {
  const { leases } = await openStore(t);
  const made = await leases.create(ns, '', { a: 'b' });
  assert.match(made.id, /^\d+-[\w-]{8}$/);
  await leases.create(ns, 'any name / is: fine', {});
  await fails(leases.create(ns, made.id, {}), Code.AlreadyExists, /already exists$/);
  await fails(
    async () => leases.create(ns, 'x'.repeat(1025), {}),
    Code.InvalidArgument,
    /longer than 1024 bytes/,
  );
  assert.deepEqual(leases.list(ns, ['labels.a==b']), [made]);
  assert.deepEqual(
    leases.list(ns, ['id~=fine$']).map((lease) => lease.id),
    ['any name / is: fine'],
  );
  assert.deepEqual(leases.list(other), []);
});

test('a transaction that throws changes nothing, and those beside it go on', async (t) => {
  const { containers } = await openStore(t);
  const results = await Promise.allSettled([
    containers.create(ns, container({ id: 'a' })),
    containers.create(ns, container({ id: 'a' })),
    containers.create(ns, container({ id: 'b' })),
    containers.delete(ns, 'a' as ContainerId),
    containers.delete(ns, 'nope' as ContainerId),
  ]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'rejected'],
  );
  assert.deepEqual(
    containers.list(ns).map((found) => found.id),
    ['b'],
  );
});
