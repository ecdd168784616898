/** Clients that ask and then never read an answer: they cost bounded memory, and hold up nobody. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { ContentDefinition } from '../../proto/gen/containerd/services/content.ts';
import { EventsDefinition } from '../../proto/gen/containerd/services/events.ts';
import { NamespaceMode, RuntimeServiceDefinition } from '../../proto/gen/runtime/v1/api.ts';
import type { PartialMessage, ServiceDefinition } from '../../ttrpc/service.ts';
import type { Daemon } from '../harness/daemon.ts';
import { KUBERNETES, Kubelet } from '../harness/cri.ts';
import { privateMemory } from '../harness/processes.ts';
import { eventually, soon } from '../harness/wait.ts';

const MEGABYTE = 1 << 20;
const BLOB = randomBytes(64 * MEGABYTE);
const CLIENTS = 30;
const EVENTS = 1200;
const EVENT_BYTES = 32 << 10;

/**
 * Bytes by which the daemon may have grown: pieces of the blob that wait for each reader, at most 64 MiB of events for all, and a heap that
 * is not collected on demand. What these clients have asked for is three times as much.
 */
const GROWTH = 600 * MEGABYTE;

/** A connection whose calls have no window: nothing of an answer can be sent. */
class Deaf implements Disposable {
  readonly #session: ClientHttp2Session;

  constructor(daemon: Daemon) {
    this.#session = connectHttp2('http://localhost', {
      createConnection: () => connect(daemon.address),
      settings: { initialWindowSize: 0 },
    });
    this.#session.on('error', () => undefined);
  }

  ask<S extends ServiceDefinition>(
    { fullName, methods }: S,
    method: keyof S['methods'] & string,
    request: PartialMessage<object>,
  ): void {
    const { name, requestType } = methods[method]!;
    const message = requestType.encode(requestType.fromPartial(request)).finish();
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    const stream = this.#session.request({
      ':method': 'POST',
      ':path': `/${fullName}/${name}`,
      'content-type': 'application/grpc',
      'containerd-namespace': KUBERNETES,
      te: 'trailers',
    });
    stream.on('error', () => undefined);
    stream.end(Buffer.concat([head, message]));
  }

  [Symbol.dispose](): void {
    this.#session.destroy();
  }
}

test('clients that read nothing of events, blobs and container events hold up nobody', async () => {
  await using kubelet = await Kubelet.start();
  const { daemon, runtime } = kubelet;
  const ctr = kubelet.ctr();
  const digest = `sha256:${createHash('sha256').update(BLOB).digest('hex')}`;
  const file = join(daemon.directory, 'blob');
  writeFileSync(file, BLOB);
  const stdin = openSync(file, 'r');
  const ingest = ctr.spawn(
    ['content', 'ingest', '--expected-digest', digest, '--expected-size', String(BLOB.length), 'blob'],
    [stdin, 'ignore', 'inherit'],
  );
  closeSync(stdin);
  assert.deepEqual(await soon('the blob is stored', once(ingest, 'close')), [0, null]);
  await ctr.ok('content', 'label', digest, 'containerd.io/gc.root=1');
  using connection = daemon.connect();
  const events = connection.service(EventsDefinition, KUBERNETES);
  const content = connection.service(ContentDefinition, KUBERNETES);
  const before = privateMemory(daemon.pid);

  using deaf = new Deaf(daemon);
  for (let index = 0; index < CLIENTS; index += 1) {
    deaf.ask(EventsDefinition, 'subscribe', { filters: [] });
    deaf.ask(ContentDefinition, 'read', { digest });
    deaf.ask(RuntimeServiceDefinition, 'getContainerEvents', {});
    // Answers that are no streams are not read either.
    deaf.ask(ContentDefinition, 'list', {});
  }
  // One that reads hears of everything meanwhile.
  const over = new AbortController();
  const topics: string[] = [];
  const listening = (async () => {
    for await (const { topic } of events.subscribe({ filters: ['topic~="/slow/"'] }, { signal: over.signal }))
      topics.push(topic);
  })().catch(() => undefined);
  await eventually('the subscription stands', async () => {
    await events.publish({ topic: '/slow/probe', event: { typeUrl: 'test.Event', value: Buffer.alloc(1) } });
    return topics.length > 0;
  });
  const value = Buffer.alloc(EVENT_BYTES, 'x');
  for (let index = 0; index < EVENTS; index += 1)
    await events.publish({ topic: `/slow/${index}`, event: { typeUrl: 'test.Event', value } });
  await eventually('the reader has heard everything', () => topics.includes(`/slow/${EVENTS - 1}`));
  assert.deepEqual(
    topics.filter((topic) => topic !== '/slow/probe'),
    Array.from({ length: EVENTS }, (_, index) => `/slow/${index}`),
  );
  // Whole pods come and go, and a blob is read.
  const onNode = { linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } } };
  const pod = await soon('a pod runs', kubelet.runPod('slow', onNode));
  await soon('a container runs', kubelet.run(pod, 'main', ['sleep', '1000']));
  await soon('the pod goes', kubelet.removePod(pod.id));
  let length = 0;
  for await (const { data } of content.read({ digest })) length += data.length;
  assert.equal(length, BLOB.length);
  assert.deepEqual((await runtime.listPodSandbox({})).items, []);
  const growth = privateMemory(daemon.pid) - before;
  assert.ok(growth < GROWTH, `the daemon has grown by ${Math.round(growth / MEGABYTE)} MiB`);
  over.abort();
  await listening;
  deaf[Symbol.dispose]();
});
