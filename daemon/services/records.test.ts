import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { ContainerCreate, ContainerUpdate } from '../../proto/gen/containerd/events/container.ts';
import { NamespaceUpdate } from '../../proto/gen/containerd/events/namespace.ts';
import { Container, ContainersDefinition } from '../../proto/gen/containerd/services/containers.ts';
import { EventsDefinition } from '../../proto/gen/containerd/services/events.ts';
import { LeasesDefinition } from '../../proto/gen/containerd/services/leases.ts';
import { NamespacesDefinition } from '../../proto/gen/containerd/services/namespaces.ts';
import {
  HealthCheckResponse_ServingStatus as Status,
  HealthDefinition,
} from '../../proto/gen/grpc/health/v1.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import type { CallContext, ServiceDefinition, ServiceImplementation } from '../../ttrpc/service.ts';
import type { Envelope } from '../events/envelope.ts';
import { Exchange } from '../events/exchange.ts';
import type { Service } from '../grpc/server.ts';
import { Health } from '../health.ts';
import { MetadataStore } from '../metadata/store.ts';
import { containersService } from './containers.ts';
import { eventsService } from './events.ts';
import { healthService } from './health.ts';
import { readIdentity } from './introspection.ts';
import { leasesService } from './leases.ts';
import { namespacesService } from './namespaces.ts';

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'moor-services-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

interface World {
  readonly metadata: MetadataStore;
  readonly exchange: Exchange;
  /** Events so far. */
  readonly events: Envelope[];
}

async function world(t: TestContext): Promise<World> {
  const metadata = await MetadataStore.open(directory(t));
  const exchange = new Exchange(pino({ level: 'silent' }));
  const events: Envelope[] = [];
  const reading = (async () => {
    for await (const event of exchange.subscribe([], new AbortController().signal)) events.push(event);
  })();
  t.after(async () => {
    exchange.close();
    await Promise.all([reading, metadata.close()]);
  });
  return { metadata, exchange, events };
}

/** The implementation with its types, which a `Service` has forgotten. */
const of = <S extends ServiceDefinition>(_: S, service: Service): ServiceImplementation<S> =>
  service.implementation as unknown as ServiceImplementation<S>;

const inNamespace = (namespace?: string): CallContext => ({
  signal: new AbortController().signal,
  metadata: new Map(namespace === undefined ? [] : [['containerd-namespace', [namespace]]]),
});

const here = inNamespace('default');
const refusedWith = (code: Code) => (error: unknown) => isCode(error, code);

const container = Container.fromPartial({
  id: 'c1',
  image: 'busybox',
  labels: { a: 'b' },
  runtime: { name: 'io.containerd.runc.v2', options: { typeUrl: 'o', value: Buffer.from('x') } },
  spec: { typeUrl: 's', value: Buffer.from('{}') },
});

test("a container's life is told by events", async (t) => {
  const { metadata, exchange, events } = await world(t);
  const containers = of(ContainersDefinition, containersService(metadata.containers, exchange));
  await containers.create({ container }, here);
  await containers.update({ container: { ...container, image: 'new' }, updateMask: ['image'] }, here);
  await containers.delete({ id: 'c1' }, here);
  assert.deepEqual(
    events.map(({ namespace, topic, event }) => [namespace, topic, event!.typeUrl]),
    [
      ['default', '/containers/create', 'containerd.events.ContainerCreate'],
      ['default', '/containers/update', 'containerd.events.ContainerUpdate'],
      ['default', '/containers/delete', 'containerd.events.ContainerDelete'],
    ],
  );
  const { id, image, runtime } = container;
  assert.deepEqual(ContainerCreate.decode(events[0]!.event!.value), { id, image, runtime });
  assert.deepEqual(ContainerUpdate.decode(events[1]!.event!.value), {
    id,
    image: 'new',
    labels: { a: 'b' },
    snapshotKey: '',
  });
});

test('what fails is told by no event', async (t) => {
  const { metadata, exchange, events } = await world(t);
  const containers = of(ContainersDefinition, containersService(metadata.containers, exchange));
  await assert.rejects(containers.create({}, here), refusedWith(Code.InvalidArgument));
  await assert.rejects(containers.delete({ id: 'c1' }, here), refusedWith(Code.NotFound));
  await assert.rejects(containers.get({ id: '../c1' }, here), refusedWith(Code.InvalidArgument));
  await assert.rejects(containers.create({ container }, inNamespace()), refusedWith(Code.FailedPrecondition));
  assert.deepEqual(events, []);
});

test('containers are listed whole, or one by one', async (t) => {
  const { metadata, exchange } = await world(t);
  const containers = of(ContainersDefinition, containersService(metadata.containers, exchange));
  for (const id of ['a', 'b', 'c']) await containers.create({ container: { ...container, id } }, here);
  const { containers: listed } = await containers.list({ filters: ['id!=b'] }, here);
  assert.deepEqual(
    listed!.map(({ id }) => id),
    ['a', 'c'],
  );
  const streamed = await Array.fromAsync(containers.listStream({ filters: [] }, here));
  assert.deepEqual(
    streamed.map((message) => message.container!.id),
    ['a', 'b', 'c'],
  );
});

test("a namespace's events are in that namespace, whichever the caller works in", async (t) => {
  const { metadata, exchange, events } = await world(t);
  const namespaces = of(NamespacesDefinition, namespacesService(metadata.namespaces, exchange));
  await namespaces.create({ namespace: { name: 'one', labels: { a: 'b' } } }, inNamespace());
  await namespaces.update(
    { namespace: { name: 'one', labels: { c: 'd' } }, updateMask: ['labels.c'] },
    inNamespace(),
  );
  await namespaces.delete({ name: 'one' }, here);
  assert.deepEqual(
    events.map(({ namespace, topic }) => [namespace, topic]),
    [
      ['one', '/namespaces/create'],
      ['one', '/namespaces/update'],
      ['one', '/namespaces/delete'],
    ],
  );
  assert.deepEqual(NamespaceUpdate.decode(events[1]!.event!.value), {
    name: 'one',
    labels: { a: 'b', c: 'd' },
  });
  await assert.rejects(
    namespaces.create({ namespace: { name: '../x', labels: {} } }, here),
    refusedWith(Code.InvalidArgument),
  );
});

test('leases are made, hold and go', async (t) => {
  const { metadata } = await world(t);
  let collections = 0;
  const collect = async (): Promise<void> => void (collections += 1);
  const leases = of(LeasesDefinition, leasesService(metadata.leases, { collect }));
  const { lease } = await leases.create({ id: '', labels: {} }, here);
  const resource = { type: 'snapshots/overlayfs', id: 'key' };
  await leases.addResource({ id: lease!.id!, resource }, here);
  assert.deepEqual(await leases.listResources({ id: lease!.id! }, here), { resources: [resource] });
  await leases.deleteResource({ id: lease!.id!, resource }, here);
  assert.deepEqual(await leases.list({ filters: [] }, here), { leases: [lease] });
  assert.equal(collections, 0);
  await leases.delete({ id: lease!.id!, sync: true }, here);
  assert.equal(collections, 1, 'a synchronous deletion waits for the collection');
  assert.deepEqual(await leases.list({ filters: [] }, here), { leases: [] });
  await assert.rejects(leases.addResource({ id: 'x' }, here), refusedWith(Code.InvalidArgument));
});

test('clients publish events in their namespace, and subscribe to those of all', async (t) => {
  const { exchange, events } = await world(t);
  const service = of(EventsDefinition, eventsService(exchange));
  const event = { typeUrl: 'x', value: Buffer.from('y') };
  const stop = new AbortController();
  const subscription = service.subscribe({ filters: ['topic~=^.a'] }, { ...here, signal: stop.signal });
  const received = Array.fromAsync(subscription);
  await service.publish({ topic: '/a', event }, inNamespace('one'));
  await service.publish({ topic: '/b', event }, inNamespace('one'));
  const timestamp = { seconds: 1n, nanos: 2 };
  await service.forward(
    { envelope: { timestamp, namespace: 'two', topic: '/a', event } },
    inNamespace('one'),
  );
  stop.abort();
  assert.deepEqual(
    (await received).map(({ namespace, topic }) => [namespace, topic]),
    [
      ['one', '/a'],
      ['two', '/a'],
    ],
  );
  assert.equal(events.length, 3);
  for (const bad of [{ topic: 'a', event }, { topic: '/a' }]) {
    await assert.rejects(service.publish(bad, here), refusedWith(Code.InvalidArgument));
  }
  await assert.rejects(
    service.publish({ topic: '/a', event }, inNamespace()),
    refusedWith(Code.FailedPrecondition),
  );
  await assert.rejects(service.forward({}, here), refusedWith(Code.InvalidArgument));
});

test('health is told of the daemon, of services it has, and of none it has not', async () => {
  const health = new Health();
  const service = of(
    HealthDefinition,
    healthService(health, (name) => name === 'known.Service'),
  );
  assert.deepEqual(await service.check({ service: '' }, here), { status: Status.SERVING });
  assert.deepEqual(await service.check({ service: 'known.Service' }, here), { status: Status.SERVING });
  await assert.rejects(service.check({ service: 'unknown.Service' }, here), refusedWith(Code.NotFound));
  const stop = new AbortController();
  const context = { ...here, signal: stop.signal };
  const watched = service.watch({ service: '' }, context)[Symbol.asyncIterator]();
  const unknown = service.watch({ service: 'unknown.Service' }, context)[Symbol.asyncIterator]();
  assert.deepEqual((await watched.next()).value, { status: Status.SERVING });
  assert.deepEqual((await unknown.next()).value, { status: Status.SERVICE_UNKNOWN });
  const next = watched.next();
  health.stop();
  assert.deepEqual((await next).value, { status: Status.NOT_SERVING });
  const ends = [watched.next(), unknown.next()];
  stop.abort();
  for (const end of ends) assert.equal((await end).done, true);
});

test('a root keeps its identity, and gets a new one when it has been damaged', (t) => {
  const root = directory(t);
  const first = readIdentity(root);
  assert.match(first.uuid, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.deepEqual(readIdentity(root), first);
  assert.equal(first.pid, process.pid);
  assert.equal(first.pidns, BigInt(statSync('/proc/self/ns/pid').ino));
  writeFileSync(join(root, 'uuid'), '');
  const second = readIdentity(root);
  assert.notEqual(second.uuid, first.uuid);
  assert.deepEqual(readIdentity(root), second);
});
