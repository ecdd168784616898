/** Many subscribers, and one that does not read. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Connection } from '../../client/connection.ts';
import { ContainerCreate } from '../../proto/gen/containerd/events/container.ts';
import { type Envelope, EventsDefinition } from '../../proto/gen/containerd/services/events.ts';
import { Code, type RpcError } from '../../ttrpc/errors.ts';
import { type Rig, suite } from '../harness/peers.ts';
import { privateMemory } from '../harness/processes.ts';
import { eventually } from '../harness/wait.ts';

const SUBSCRIBERS = 20;
const PUBLISHERS = 4;
/** Of each publisher. */
const ORDERED = 100;

/** As many as wait for one reader, what is on the way to it, and more. */
const FLOOD = 10_400;
const WEIGHT = 2048;
/** Calls that are under way at once. */
const WIDTH = 64;

/** What may wait for one reader, and what the engine has not collected yet. */
const GROWTH = (64 + 128) << 20;

const PROBE = '/storm/begin';
const LAST = '/storm/last';

suite('subscribers', { peers: ['moord'] }, (rig) => {
  it(`${SUBSCRIBERS} see the same events in the same order`, { timeout: 120_000 }, async () => {
    const { ctr } = rig;
    const over = new AbortController();
    const readers = Array.from({ length: SUBSCRIBERS }, (_, n) => new Reader(rig, n, over.signal));
    for (const reader of readers) await reader.stands();
    const publishers = Array.from({ length: PUBLISHERS }, async (_, n) => {
      for (let count = 0; count < ORDERED; count += 1) await publish(rig, `/storm/p${n}`, `${count}`);
    });
    const containers = ['a', 'b', 'c'].map((id) => ctr.run(id, ['/bin/true'], ['--rm']));
    for (const outcome of await Promise.all(containers)) assert.equal(outcome.code, 0);
    await Promise.all(publishers);
    await publish(rig, LAST, 'last');
    await eventually('all are told of the last', () => readers.every(({ seen }) => seen.includes(LAST)));
    over.abort();
    const [first, ...others] = readers.map(({ seen }) => seen.filter((line) => line !== PROBE));
    for (const other of others) assert.deepEqual(other, first);
    for (let n = 0; n < PUBLISHERS; n += 1) {
      const mine = first!.filter((line) => line.startsWith(`/storm/p${n} `));
      assert.deepEqual(
        mine,
        Array.from({ length: ORDERED }, (_, count) => `/storm/p${n} ${count}`),
      );
    }
    for (const topic of ['/tasks/create', '/tasks/start', '/tasks/exit', '/tasks/delete'])
      assert.equal(first!.filter((line) => line === topic).length, 3, topic);
  });

  it('one that does not read costs little, and holds up nobody', { timeout: 180_000 }, async (t) => {
    const over = new AbortController();
    using connection = new Connection(rig.daemon.address);
    const reader = new Reader(rig, SUBSCRIBERS, over.signal);
    await reader.stands();
    // What an engine that is busy takes, whoever reads.
    const without = await flood(rig, reader);
    const filters = [`namespace==${rig.ctr.namespace}`, 'topic=="/idle"'];
    const { subscribe } = connection.service(EventsDefinition);
    const idle = subscribe({ filters }, { signal: over.signal })[Symbol.asyncIterator]();
    let stands = false;
    const first = idle.next().then(() => (stands = true));
    await eventually('the subscription stands', async () => {
      await publish(rig, PROBE, '');
      return stands;
    });
    await first;
    const beside = await flood(rig, reader);
    const growth = beside.memory - without.memory;
    t.diagnostic(
      `${FLOOD} events in ${without.milliseconds} ms, beside it ${beside.milliseconds} ms and ${growth >> 20} MiB more`,
    );
    assert.ok(growth < GROWTH, `the daemon has grown by ${growth >> 20} MiB`);
    // What was on its way is told, then why no more is.
    await assert.rejects(
      async () => {
        while ((await idle.next()).done !== true);
      },
      (error: RpcError) => error.code === Code.ResourceExhausted,
    );
    over.abort();
  });
});

/** Publishes many events, all of which the reader sees. Returns what that took: time, and the most memory that the daemon had. */
async function flood(rig: Rig, reader: Reader): Promise<{ milliseconds: number; memory: number }> {
  const began = performance.now();
  const cargo = 'x'.repeat(WEIGHT);
  let sent = 0;
  let memory = 0;
  reader.seen.length = 0;
  const lanes = Array.from({ length: WIDTH }, async () => {
    while (sent < FLOOD) {
      sent += 1;
      if (sent % 1000 === 0) memory = Math.max(memory, privateMemory(rig.daemon.pid));
      await publish(rig, '/flood', cargo);
    }
  });
  await Promise.all(lanes);
  await publish(rig, LAST, 'last');
  await eventually('the last is told', () => reader.seen.includes(LAST), { within: 60_000 });
  assert.equal(reader.seen.filter((line) => line === '/flood').length, FLOOD);
  memory = Math.max(memory, privateMemory(rig.daemon.pid));
  return { milliseconds: Math.round(performance.now() - began), memory };
}

async function publish(rig: Rig, topic: string, id: string): Promise<void> {
  const event = {
    typeUrl: 'containerd.events.ContainerCreate',
    value: Buffer.from(ContainerCreate.encode(ContainerCreate.fromPartial({ id })).finish()),
  };
  await publishers(rig).publish({ topic, event });
}

let connection: Connection | undefined;
function publishers({ daemon, ctr }: Rig) {
  connection ??= new Connection(daemon.address);
  return connection.service(EventsDefinition, [['containerd-namespace', ctr.namespace]]);
}

/** A subscriber that reads. */
class Reader {
  /** Topics, those of published events with what they bear. */
  readonly seen: string[] = [];
  readonly #rig: Rig;

  /** @param number no other has it: by its filters a subscriber is known when it comes back */
  constructor(rig: Rig, number: number, signal: AbortSignal) {
    this.#rig = rig;
    void this.#reads(number, signal);
  }

  /** A subscription is not answered before there is an event. */
  async stands(): Promise<void> {
    await eventually('the subscription stands', async () => {
      await publish(this.#rig, PROBE, '');
      return this.seen.includes(PROBE);
    });
  }

  async #reads(number: number, signal: AbortSignal): Promise<void> {
    using connection = new Connection(this.#rig.daemon.address);
    const filters = [`namespace==${this.#rig.ctr.namespace}`, `topic=="/reader/${number}"`];
    try {
      for await (const envelope of connection.service(EventsDefinition).subscribe({ filters }, { signal }))
        this.seen.push(lineOf(envelope));
    } catch (error) {
      if (!signal.aborted) this.seen.push(String(error));
    }
  }
}

function lineOf({ topic, event }: Envelope): string {
  if (!topic.startsWith('/storm/p')) return topic;
  return `${topic} ${ContainerCreate.decode(event?.value ?? Buffer.alloc(0)).id}`;
}
