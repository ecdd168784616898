import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { EventsDefinition } from '../proto/gen/containerd/services/events_ttrpc.ts';
import { invalidArgument } from '../ttrpc/errors.ts';
import { TtrpcServer } from '../ttrpc/server.ts';
import { event } from './events.ts';
import { Log } from './log.ts';
import { MOST_QUEUED, Publisher } from './publisher.ts';

const NEVER = new AbortController().signal;

let folder: string;
let path: string;
let publisher: Publisher;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'moor-publisher-'));
  path = join(folder, 's');
  publisher = new Publisher(path, 'n', new Log(-1, 'error'));
});

afterEach(() => {
  publisher.close();
  rmSync(folder, { recursive: true });
});

async function daemon(forward: (topic: string) => Promise<void> | void): Promise<TtrpcServer> {
  const server = new TtrpcServer();
  server.add(EventsDefinition, {
    forward: async ({ envelope }) => {
      assert.equal(envelope?.namespace, 'n');
      await forward(envelope.topic);
      return {};
    },
  });
  await server.listen(path);
  return server;
}

test('events are acknowledged in the order they were queued', async () => {
  const topics: string[] = [];
  await using _server = await daemon((topic) => void topics.push(topic));
  await Promise.all([
    publisher.publish(event.started('c', 1)),
    publisher.publish(event.paused('c')),
    publisher.publish(event.resumed('c')),
  ]);
  assert.deepEqual(topics, ['/tasks/start', '/tasks/paused', '/tasks/resumed']);
  assert.equal(publisher.pending, 0);
});

test('it is told when events wait for a daemon that is away, and when the last of them is gone', async () => {
  const seen: boolean[] = [];
  const held = Promise.withResolvers<void>();
  publisher.watchHolding((holding) => {
    seen.push(holding);
    if (holding) held.resolve();
  });
  const acknowledged = Promise.all([
    publisher.publish(event.started('c', 1)),
    publisher.publish(event.oom('c')),
  ]);
  await held.promise;
  await using _server = await daemon(() => {});
  publisher.poke();
  await acknowledged;
  assert.deepEqual(seen, [false, true, false]);
});

test('an event whose daemon dies before it has answered goes to the next one', async () => {
  const reached = Promise.withResolvers<void>();
  const first = await daemon(async () => {
    reached.resolve();
    await new Promise(() => {});
  });
  const acknowledged = publisher.publish(event.started('c', 1));
  await reached.promise;
  await first.close({ graceMs: 0 });
  const topics: string[] = [];
  await using _second = await daemon((topic) => void topics.push(topic));
  publisher.poke();
  await acknowledged;
  assert.deepEqual(topics, ['/tasks/start']);
});

test('a daemon that is back is tried at once when somebody pokes', async ({ mock }) => {
  mock.timers.enable({ apis: ['setTimeout'] }); // so that the pause has no end of its own
  const held = Promise.withResolvers<void>();
  publisher.watchHolding(() => held.resolve());
  void publisher.publish(event.started('c', 1));
  await held.promise;
  await using _server = await daemon(() => {});
  await publisher.flush(NEVER);
  assert.equal(publisher.pending, 0);
});

test('an event that the daemon refuses does not hold up the others for ever', async () => {
  const topics: string[] = [];
  await using _server = await daemon((topic) => {
    if (topic === '/tasks/paused') throw invalidArgument('no');
    topics.push(topic);
  });
  void publisher.publish(event.paused('c'));
  await publisher.publish(event.resumed('c'));
  assert.deepEqual(topics, ['/tasks/resumed']);
});

test('too many events push out the oldest of execs, and never the life of the init', async () => {
  const exit = { pid: 1, status: 0, at: { seconds: 1n, nanos: 0 } };
  void publisher.publish(event.started('c', 1));
  for (let index = 0; index < MOST_QUEUED; index++)
    void publisher.publish(event.exited('c', `e${index}`, exit));
  void publisher.publish(event.exited('c', 'c', exit));
  assert.equal(publisher.pending, MOST_QUEUED);
  const topics: string[] = [];
  await using _server = await daemon((topic) => void topics.push(topic));
  await publisher.flush(NEVER);
  assert.equal(topics.length, MOST_QUEUED);
  assert.equal(topics[0], '/tasks/start');
});

test('a wait for the acknowledgements can be given up', async () => {
  void publisher.publish(event.started('c', 1));
  await assert.rejects(publisher.flush(AbortSignal.timeout(20)), { name: 'TimeoutError' });
});
