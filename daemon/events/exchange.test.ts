import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { fingerprintOf } from '../../grpc/resume.ts';
import { ContainerCreate, ContainerUpdate } from '../../proto/gen/containerd/events/container.ts';
import { TaskExit } from '../../proto/gen/containerd/events/task.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Code, type RpcError, cancelled, isCode, unavailable } from '../../ttrpc/errors.ts';
import { Envelope } from '../../proto/gen/containerd/types/event.ts';
import { Exchange } from './exchange.ts';
import { peerOf } from './followers.ts';
import { pack } from './pack.ts';
import type { Subscription } from './subscription.ts';

const silent = pino({ level: 'silent' });
const forever = new AbortController().signal;
const created = (id: string): Any =>
  pack('ContainerCreate', ContainerCreate, { id, runtime: { name: 'runc' } });

const take = async (events: AsyncIterable<Envelope>, count: number): Promise<Envelope[]> => {
  const taken: Envelope[] = [];
  const iterator = events[Symbol.asyncIterator]();
  while (taken.length < count) {
    const result = await iterator.next();
    if (result.done === true) break;
    taken.push(result.value);
  }
  return taken;
};

const names = (envelopes: Envelope[]): string[] =>
  envelopes.map(({ event }) => ContainerCreate.decode(event!.value).id);

test('every subscriber gets every event, in order', async () => {
  const exchange = new Exchange(silent);
  const [one, two] = [exchange.subscribe([], forever), exchange.subscribe([], forever)];
  const early = take(one, 3);
  for (const id of ['a', 'b', 'c']) exchange.publish('ns', '/containers/create', created(id));
  assert.deepEqual(names(await early), ['a', 'b', 'c']);
  assert.deepEqual(names(await take(two, 3)), ['a', 'b', 'c']);
});

test('a published event has its namespace, topic and time', async () => {
  const exchange = new Exchange(silent);
  const events = exchange.subscribe([], forever);
  const before = Date.now();
  exchange.publish('ns', '/containers/create', created('a'));
  const [{ namespace, topic, timestamp, event }] = (await take(events, 1)) as [Envelope];
  assert.deepEqual(
    [namespace, topic, event!.typeUrl],
    ['ns', '/containers/create', 'containerd.events.ContainerCreate'],
  );
  const millis = Number(timestamp!.seconds) * 1000 + timestamp!.nanos / 1e6;
  assert.ok(Math.abs(millis - before) < 1000);
});

test('a forwarded event is sent on as it is', async () => {
  const exchange = new Exchange(silent);
  const events = exchange.subscribe([], forever);
  const envelope = {
    timestamp: { seconds: 5n, nanos: 7 },
    namespace: 'ns',
    topic: '/tasks/exit',
    event: created('a'),
  };
  exchange.forward(envelope);
  assert.deepEqual(await take(events, 1), [envelope]);
});

for (const [what, change, message] of [
  ['without a namespace', { namespace: '' }, /invalid namespace: identifier must not be empty/],
  ['of a namespace that is none', { namespace: 'a/b' }, /invalid namespace: identifier "a\/b" must match/],
  ['without a topic', { topic: '' }, /topic "": must not be empty/],
  ['with a topic that is not absolute', { topic: 'tasks/exit' }, /must start with '\/'/],
  ['with an empty topic', { topic: '/' }, /must have at least one component/],
  [
    'with a strange topic',
    { topic: '/tasks//exit' },
    /failed validation on component "": identifier must not be empty/,
  ],
  ['without a time', { timestamp: undefined }, /timestamp must be set/],
] as const) {
  test(`an event ${what} is not sent on`, () => {
    const envelope = {
      timestamp: { seconds: 1n, nanos: 0 },
      namespace: 'ns',
      topic: '/x',
      event: created('a'),
    };
    assert.throws(
      () => new Exchange(silent).forward({ ...envelope, ...change }),
      (error) => isCode(error, Code.InvalidArgument) && message.test(error.message),
    );
  });
}

test('filters choose by topic, namespace and fields of the event', async () => {
  const exchange = new Exchange(silent);
  const exit = { containerId: 'a', id: 'exec', pid: 7, exitStatus: 137 };
  const labels = { 'com.example/x': 'y' };
  const chosen = async (...filters: string[]): Promise<string[]> => {
    const stop = new AbortController();
    const events = exchange.subscribe(filters, stop.signal);
    const iterator = events[Symbol.asyncIterator]();
    exchange.publish('one', '/tasks/exit', pack('TaskExit', TaskExit, exit));
    exchange.publish('two', '/containers/create', created('a'));
    exchange.publish(
      'two',
      '/containers/update',
      pack('ContainerUpdate', ContainerUpdate, { id: 'b', labels }),
    );
    exchange.publish('two', '/other', { typeUrl: 'of.another.kind', value: Buffer.from('\xff') });
    exchange.publish('two', '/broken', {
      typeUrl: 'containerd.events.TaskExit',
      value: Buffer.from([0x0a, 0xff]),
    });
    exchange.publish('last', '/last', created('last'));
    const topics: string[] = [];
    for (;;) {
      const { value } = await iterator.next();
      if (value?.topic === '/last') break;
      topics.push(value!.topic);
    }
    stop.abort();
    return topics;
  };
  const last = 'topic=="/last"';
  assert.deepEqual(await chosen('topic=="/tasks/exit"', last), ['/tasks/exit']);
  assert.deepEqual(await chosen('topic~=|^/containers/|', last), [
    '/containers/create',
    '/containers/update',
  ]);
  assert.deepEqual(await chosen('namespace==one', last), ['/tasks/exit']);
  assert.deepEqual(await chosen('event.container_id==a', last), ['/tasks/exit']);
  assert.deepEqual(await chosen('event.exit_status==137,event.id==exec', last), ['/tasks/exit']);
  assert.deepEqual(await chosen('event.runtime.name==runc,topic!="/last"', last), ['/containers/create']);
  assert.deepEqual(await chosen('event.labels."com.example/x"==y', last), ['/containers/update']);
  assert.deepEqual(await chosen('event.__proto__', last), []);
  assert.throws(
    () => exchange.subscribe(['topic='], forever),
    /failed parsing subscription filters: .*unsupported operator/,
  );
});

/** This process, and what is not the same one: filters make two subscribers of it. */
const SELF = peerOf(process.pid)!;

/** A directory that several daemons have, one after the other. */
const shared = (t: TestContext): string => {
  const directory = mkdtempSync(join(tmpdir(), 'moor-events-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
};

/** The journal's last segment. */
const newestIn = (journal: string): string => {
  const numbers = readdirSync(journal).map(Number);
  return join(journal, String(Math.max(...numbers)));
};

/** Takes events as a call does that has them sent. */
const told = async (events: Subscription, count: number): Promise<string[]> => {
  const taken = await take(events, count);
  for (const _ of taken) events.passedOn();
  return names(taken);
};

test('a subscriber that is back goes on where it was, also over several daemons', async (t) => {
  const directory = shared(t);
  const first = new Exchange(silent, directory);
  const [one, two] = [first.subscribe([], forever, SELF), first.subscribe(['topic=="/y"'], forever, SELF)];
  for (const id of ['a', 'b', 'c']) first.publish('ns', '/x', created(id));
  first.publish('ns', '/y', created('d'));
  assert.deepEqual(await told(one, 2), ['a', 'b']);
  assert.deepEqual(await told(two, 1), ['d']);
  // The first is never closed: it is killed.
  const second = new Exchange(silent, directory);
  second.publish('ns', '/x', created('e'));
  const third = new Exchange(silent, directory);
  const back = third.subscribe([], forever, SELF);
  const again = third.subscribe(['topic=="/y"'], forever, SELF);
  third.publish('ns', '/y', created('f'));
  assert.deepEqual(await told(back, 4), ['c', 'd', 'e', 'f']);
  assert.deepEqual(await told(again, 1), ['f']);
});

test('what a subscriber has been handed, and the kernel has not, is told again', async (t) => {
  const directory = shared(t);
  const first = new Exchange(silent, directory);
  const events = first.subscribe([], forever, SELF);
  for (const id of ['a', 'b']) first.publish('ns', '/x', created(id));
  await take(events, 2);
  events.passedOn();
  const second = new Exchange(silent, directory);
  assert.deepEqual(await told(second.subscribe([], forever, SELF), 1), ['b']);
});

test('a new subscriber is told what happens from then on, and so is one that had left, or comes late', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const directory = shared(t);
  const first = new Exchange(silent, directory);
  const left = new AbortController();
  for (const filters of [['late'], []]) first.subscribe(filters, forever, SELF);
  first.subscribe(['topic=="/x"'], left.signal, SELF);
  left.abort(cancelled('it has left'));
  first.publish('ns', '/x', created('before'));
  const second = new Exchange(silent, directory);
  second.serve();
  t.mock.timers.tick(29_999);
  const back = second.subscribe([], forever, SELF);
  const other = second.subscribe(['topic~="^/"'], forever, SELF);
  const gone = second.subscribe(['topic=="/x"'], forever, SELF);
  const twin = second.subscribe([], forever, SELF);
  t.mock.timers.tick(1);
  const late = second.subscribe(['late'], forever, SELF);
  second.publish('ns', '/x', created('live'));
  assert.deepEqual(await told(back, 2), ['before', 'live']);
  for (const events of [other, gone, twin]) assert.deepEqual(await told(events, 1), ['live']);
  second.publish('ns', '/late', created('late'));
  assert.equal(late.over, false);
  assert.deepEqual(readdirSync(join(directory, 'subscribers')).length, 5, 'those who are gone are forgotten');
});

test('one whom the daemon leaves goes on with the next', async (t) => {
  const directory = shared(t);
  const first = new Exchange(silent, directory);
  const stopping = new AbortController();
  const events = first.subscribe([], stopping.signal, SELF);
  stopping.abort(unavailable('the daemon is shutting down'));
  assert.deepEqual(await take(events, 1), []);
  first.publish('ns', '/x', created('after'));
  first.close();
  const second = new Exchange(silent, directory);
  assert.deepEqual(await told(second.subscribe([], forever, SELF), 1), ['after']);
});

test('what a publisher sends once more is sent on once, by this daemon and the next', async (t) => {
  const directory = shared(t);
  const envelope = (nanos: number) => ({
    timestamp: { seconds: 5n, nanos },
    namespace: 'ns',
    topic: '/tasks/paused',
    event: created('a'),
  });
  const exitedAt = { seconds: 5n, nanos: 1 };
  const exit = pack('TaskExit', TaskExit, { containerId: 'a', id: 'a', pid: 7, exitStatus: 3, exitedAt });
  const first = new Exchange(silent, directory);
  const events = first.subscribe([], forever, SELF);
  for (const nanos of [1, 1, 2]) first.forward(envelope(nanos));
  first.forward({ ...envelope(3), topic: '/tasks/exit', event: exit });
  // In the place of a shim that is gone.
  first.publish('ns', '/tasks/exit', exit);
  const second = new Exchange(silent, directory);
  second.forward(envelope(2));
  second.publish('ns', '/tasks/exit', exit);
  second.publish('ns', '/x', created('last'));
  assert.equal(first.published, 3);
  assert.equal(second.published, 1);
  assert.equal((await take(events, 3)).length, 3);
  const topics = (await take(second.subscribe([], forever, SELF), 4)).map(({ topic }) => topic);
  assert.deepEqual(topics, ['/tasks/paused', '/tasks/paused', '/tasks/exit', '/x']);
});

test('many events are kept, but not all, and one that was cut off does no harm', async (t) => {
  const directory = shared(t);
  const first = new Exchange(silent, directory);
  first.subscribe([], forever, SELF);
  const event = { typeUrl: 'x', value: Buffer.alloc(1000) };
  for (let i = 0; i < 5000; i += 1) first.publish('ns', `/x${i}`, event);
  const files = join(directory, 'journal');
  const bytes = readdirSync(files).reduce((sum, name) => sum + statSync(join(files, name)).size, 0);
  assert.ok(bytes > 2 << 20 && bytes < 4 << 20, `${bytes} bytes`);
  truncateSync(newestIn(files), statSync(newestIn(files)).size - 1);
  const second = new Exchange(silent, directory);
  second.publish('ns', '/end', event);
  const back = second.subscribe([], forever, SELF);
  let previous = '';
  for (;;) {
    const [{ topic }] = (await take(back, 1)) as [Envelope];
    if (topic === '/end') break;
    if (previous !== '') assert.equal(Number(topic.slice(2)), Number(previous.slice(2)) + 1);
    previous = topic;
  }
  assert.equal(previous, '/x4998', 'the last one was cut off');
});

test('a subscriber who is late is told what many daemons have published that were killed one after the other', async (t) => {
  const directory = shared(t);
  new Exchange(silent, directory).subscribe([], forever, SELF);
  const published: string[] = [];
  const publish = (exchange: Exchange, id: string) => {
    exchange.publish('ns', '/x', created(id));
    published.push(id);
  };
  const files = join(directory, 'journal');
  for (let i = 0; i < 50; i += 1) {
    const daemon = new Exchange(silent, directory);
    for (const part of ['a', 'b']) publish(daemon, `${i}${part}`);
    // Every other one is killed while it writes.
    const newest = newestIn(files);
    if (i % 2 === 1) truncateSync(newest, statSync(newest).size - 1);
    if (i % 2 === 1) published.pop();
  }
  const last = new Exchange(silent, directory);
  publish(last, 'last');
  const back = last.subscribe([], forever, SELF);
  const seen: string[] = [];
  while (seen.at(-1) !== 'last') seen.push(...(await told(back, 1)));
  assert.deepEqual(seen, published);
  assert.equal(readdirSync(files).length, 1);
});

/** What a client says it has seen last. */
const seen = (envelope: Envelope): string => fingerprintOf(Envelope.encode(envelope).finish());

test('one who says what he has seen last goes on behind it, whatever was taken for told and however late', async (t) => {
  const directory = shared(t);
  const first = new Exchange(silent, directory);
  const events = first.subscribe([], forever, SELF);
  for (const id of ['a', 'b', 'c']) first.publish('ns', '/x', created(id));
  const [a] = (await take(events, 3)) as [Envelope];
  for (let i = 0; i < 3; i += 1) events.passedOn();
  const second = new Exchange(silent, directory);
  const back = second.subscribe([], forever, SELF, seen(a));
  const stranger = second.subscribe([], forever, undefined, seen(a));
  const known = second.subscribe(['topic=="/x"'], forever, SELF, seen({ ...a, topic: '/never' }));
  second.publish('ns', '/x', created('d'));
  for (const one of [back, stranger]) assert.deepEqual(await told(one, 3), ['b', 'c', 'd']);
  assert.deepEqual(await told(known, 4), ['a', 'b', 'c', 'd'], 'all that is kept');
  const third = new Exchange(silent, directory);
  const again = third.subscribe([], forever, SELF);
  third.publish('ns', '/x', created('e'));
  assert.deepEqual(await told(again, 1), ['e'], 'known by its process as well');
});

test('what was published before a subscription does not make it fall behind', async (t) => {
  const directory = shared(t);
  const exchange = new Exchange(silent, directory);
  const event = { typeUrl: 'x', value: Buffer.alloc(1) };
  const count = 10_500;
  for (let i = 0; i < count; i += 1) exchange.publish('ns', '/x', event);
  const back = exchange.subscribe([], forever, SELF, '0'.repeat(64));
  exchange.publish('ns', '/last', event);
  const topics = (await take(back, count + 1)).map(({ topic }) => topic);
  assert.deepEqual([topics.length, topics.at(-1)], [count + 1, '/last']);
});

test('what is published after others have removed the directory is kept in another one', async (t) => {
  const directory = shared(t);
  const first = new Exchange(silent, directory);
  first.publish('ns', '/x', created('before'));
  rmSync(directory, { recursive: true });
  first.renew();
  first.subscribe([], forever, SELF);
  for (const id of ['a', 'b']) first.publish('ns', '/x', created(id));
  const second = new Exchange(silent, directory);
  assert.deepEqual(await told(second.subscribe([], forever, SELF), 2), ['a', 'b']);
});

test('a subscription ends with its signal', async () => {
  const exchange = new Exchange(silent);
  const stop = new AbortController();
  const taken = take(exchange.subscribe([], stop.signal), 5);
  exchange.publish('ns', '/x', created('a'));
  stop.abort();
  exchange.publish('ns', '/x', created('b'));
  assert.deepEqual(names(await taken), ['a']);
  assert.deepEqual(await take(exchange.subscribe([], stop.signal), 1), []);
});

test('a subscription ends when its reader leaves, and when the exchange closes', async () => {
  const exchange = new Exchange(silent);
  const events = exchange.subscribe([], forever);
  exchange.publish('ns', '/x', created('a'));
  for await (const { topic } of events) {
    assert.equal(topic, '/x');
    break;
  }
  assert.deepEqual(await take(events, 1), []);
  const waiting = take(exchange.subscribe([], forever), 1);
  exchange.close();
  assert.deepEqual(await waiting, []);
});

for (const [what, size, count] of [
  ['by too many events', 1, 10_001],
  ['by too many bytes', 1 << 20, 65],
] as const) {
  test(`a reader that falls behind ${what} is cut off, and holds up nobody`, async () => {
    const exchange = new Exchange(silent);
    const slow = exchange.subscribe([], forever);
    const quick = take(exchange.subscribe([], forever), count);
    const event = { typeUrl: 'x', value: Buffer.alloc(size) };
    for (let i = 0; i < count; i += 1) {
      exchange.publish('ns', '/x', event);
      // The quick reader reads between any two.
      await Promise.resolve();
      await Promise.resolve();
    }
    assert.equal((await quick).length, count);
    await assert.rejects(take(slow, 1), (error: RpcError) => error.code === Code.ResourceExhausted);
    assert.deepEqual(await take(slow, 1), []);
  });
}
