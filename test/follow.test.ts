/** A subscription that goes on where another process ended, over the death of the daemon. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Connection } from '../client/connection.ts';
import { type FollowOptions, follow } from '../client/follow.ts';
import { AFTER } from '../grpc/resume.ts';
import { type Envelope, EventsDefinition } from '../proto/gen/containerd/services/events.ts';
import { Code, isCode } from '../ttrpc/errors.ts';
import { Daemon } from './harness/daemon.ts';

const NAMESPACE = 'follow';
const FILTERS = [`namespace==${NAMESPACE}`];

test('a subscriber goes on behind the last event that it has seen', async () => {
  await using daemon = await Daemon.start('moord');
  using connection = new Connection(daemon.address);
  const { publish, subscribe } = connection.service(EventsDefinition, [['containerd-namespace', NAMESPACE]]);
  const event = { typeUrl: 'x', value: Buffer.from('y') };
  const take = async (count: number, options?: FollowOptions): Promise<Envelope[]> => {
    const taken: Envelope[] = [];
    for await (const envelope of follow(connection, [], FILTERS, options)) {
      taken.push(envelope);
      if (taken.length === count) break;
    }
    return taken;
  };
  const topics = (envelopes: readonly Envelope[]) => envelopes.map(({ topic }) => topic);
  await publish({ topic: '/a', event });
  await publish({ topic: '/b', event });
  // Of a fingerprint that the daemon does not know it tells all that it keeps.
  const strange = { topic: '/never', namespace: NAMESPACE, timestamp: undefined, event: undefined };
  const [a, b] = await take(2, { after: strange });
  assert.deepEqual(topics([a!, b!]), ['/a', '/b']);
  await publish({ topic: '/c', event });
  await daemon.restart();
  await publish({ topic: '/d', event });
  assert.deepEqual(topics(await take(3, { after: a! })), ['/b', '/c', '/d']);
  assert.deepEqual(topics(await take(2, { after: b! })), ['/c', '/d']);
  const refused = subscribe({ filters: FILTERS }, { metadata: [[AFTER, 'b']] });
  await assert.rejects(
    refused[Symbol.asyncIterator]().next(),
    (error) =>
      isCode(error, Code.InvalidArgument) && /moor-events-after must be 64 hex digits/.test(error.message),
  );
});
