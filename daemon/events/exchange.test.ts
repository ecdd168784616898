import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { ContainerCreate, ContainerUpdate } from '../../proto/gen/containerd/events/container.ts';
import { TaskExit } from '../../proto/gen/containerd/events/task.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Code, type RpcError, isCode } from '../../ttrpc/errors.ts';
import type { Envelope } from './envelope.ts';
import { Exchange } from './exchange.ts';
import { pack } from './pack.ts';

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

/** An exchange whose API has been served for long. */
const serving = (t: TestContext): Exchange => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const exchange = new Exchange(silent);
  exchange.serve();
  t.mock.timers.tick(30_000);
  return exchange;
};

test('every subscriber gets every event, in order', async (t) => {
  const exchange = serving(t);
  const [one, two] = [exchange.subscribe([], forever), exchange.subscribe([], forever)];
  const early = take(one, 3);
  for (const id of ['a', 'b', 'c']) exchange.publish('ns', '/containers/create', created(id));
  assert.deepEqual(names(await early), ['a', 'b', 'c']);
  assert.deepEqual(names(await take(two, 3)), ['a', 'b', 'c']);
});

test('a published event has its namespace, topic and time', async (t) => {
  const exchange = serving(t);
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

test('a forwarded event is sent on as it is', async (t) => {
  const exchange = serving(t);
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

test('filters choose by topic, namespace and fields of the event', async (t) => {
  const exchange = serving(t);
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

const OLD = 7;
const OTHER = 8;

test('what happened before the API was served is told first to clients that are back soon, once to each', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const exchange = new Exchange(silent);
  exchange.publish('ns', '/x', created('recovered'));
  exchange.serve();
  exchange.publish('ns', '/x', created('told live'));
  t.mock.timers.tick(29_999);
  const back = [
    exchange.subscribe([], forever, OLD),
    exchange.subscribe(['namespace==ns'], forever, OLD),
    exchange.subscribe([], forever, OTHER),
    exchange.subscribe([], forever, 0),
  ];
  const elsewhere = exchange.subscribe(['namespace==other'], forever, OTHER);
  const again = exchange.subscribe([], forever, OLD);
  t.mock.timers.tick(1);
  const late = exchange.subscribe(['late', 'namespace==ns'], forever, OLD);
  exchange.publish('ns', '/x', created('live'));
  exchange.publish('other', '/x', created('else'));
  for (const events of back) assert.deepEqual(names(await take(events, 2)), ['recovered', 'live']);
  assert.deepEqual(names(await take(elsewhere, 1)), ['else']);
  assert.deepEqual(names(await take(again, 2)), ['live', 'else']);
  assert.deepEqual(names(await take(late, 1)), ['live']);
});

test('an end that comes before a client is back is told once it is, for 30 s', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const exchange = new Exchange(silent);
  exchange.serve();
  exchange.publish('ns', '/tasks/start', created('start'));
  exchange.publish('ns', '/tasks/exit', created('exit'));
  exchange.publish('ns', '/tasks/oom', created('oom'));
  const back = exchange.subscribe([], forever, OLD);
  exchange.publish('ns', '/tasks/exit', created('live'));
  assert.deepEqual(names(await take(back, 3)), ['exit', 'oom', 'live']);
  t.mock.timers.tick(30_000);
  const later = exchange.subscribe([], forever, OTHER);
  exchange.publish('ns', '/tasks/start', created('live'));
  assert.deepEqual(names(await take(later, 1)), ['live']);
});

test('a client that was started after the daemon is told only what happens from then on', async () => {
  const exchange = new Exchange(silent);
  exchange.publish('ns', '/tasks/exit', created('recovered'));
  const early = exchange.subscribe([], forever);
  exchange.serve();
  exchange.publish('ns', '/tasks/exit', created('exit'));
  const started = exchange.subscribe([], forever);
  exchange.publish('ns', '/tasks/exit', created('live'));
  assert.deepEqual(names(await take(early, 2)), ['exit', 'live']);
  assert.deepEqual(names(await take(started, 1)), ['live']);
  const back = exchange.subscribe([], forever, OLD);
  assert.deepEqual(names(await take(back, 3)), ['recovered', 'exit', 'live'], 'kept for those who are back');
  exchange.close();
});

test('a subscription ends with its signal', async (t) => {
  const exchange = serving(t);
  const stop = new AbortController();
  const taken = take(exchange.subscribe([], stop.signal), 5);
  exchange.publish('ns', '/x', created('a'));
  stop.abort();
  exchange.publish('ns', '/x', created('b'));
  assert.deepEqual(names(await taken), ['a']);
  assert.deepEqual(await take(exchange.subscribe([], stop.signal), 1), []);
});

test('a subscription ends when its reader leaves, and when the exchange closes', async (t) => {
  const exchange = serving(t);
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
  test(`a reader that falls behind ${what} is cut off, and holds up nobody`, async (t) => {
    const exchange = serving(t);
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
