/** Many clients at once, some of which leave in the middle: everybody gets right answers, and nothing is held afterwards. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { it } from 'node:test';
import { type Container, ContainersDefinition } from '../proto/gen/containerd/services/containers.ts';
import { ContentDefinition, WriteAction } from '../proto/gen/containerd/services/content.ts';
import { Connection } from '../client/connection.ts';
import type { Ctr } from './harness/ctr.ts';
import { digestOf, Journey } from './harness/journey.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { type Rig, suite } from './harness/peers.ts';
import { privateMemory } from './harness/processes.ts';
import { ingestsOf, leasesOf } from './harness/stored.ts';

const CLIENTS = 24;
const CALLS = 2000;

/**
 * Bytes by which the daemon may have grown, whose heap is not collected on demand: over fourteen such crowds it moves within some
 * 60 MB. A blob kept of each read that was left would be more.
 */
const GROWTH = 80 << 20;

/** A blob larger than every window on the way. */
const LARGE = randomBytes(8 << 20);

suite('many clients', { peers: ['moord'], timeout: 900_000 }, (rig) => {
  it(`${CLIENTS} clients make ${CALLS} calls, some of which they leave`, { timeout: 600_000 }, async () => {
    const homes = Array.from({ length: 4 }, () => rig.daemon.ctr());
    const template = await prepare(rig, homes);
    const digest = digestOf(LARGE);
    // What is opened once, and what the engine keeps of code that has run.
    await crowd(rig, homes, { clients: CLIENTS, calls: 1000, template, digest });
    const before = holdings(rig.daemon);
    const memory = privateMemory(rig.daemon.pid);
    const ctrs = commandLines(homes);
    const calls = await crowd(rig, homes, { clients: CLIENTS, calls: CALLS, template, digest });
    await ctrs;
    assert.ok(calls >= CALLS, `${calls} calls were made`);
    await expectNothingLeft(rig.daemon, before, { within: 30_000 });
    for (const home of homes) await expectOnlyPrepared(rig, home, digest);
    const growth = privateMemory(rig.daemon.pid) - memory;
    assert.ok(growth < GROWTH, `the daemon has grown by ${Math.round(growth / 1024)} KiB`);
    // A call that were still open would be waited for.
    const began = performance.now();
    await rig.daemon.terminate();
    assert.ok(performance.now() - began < 20_000, 'no call is open when the daemon stops');
    assert.doesNotMatch(rig.daemon.tail(0, 1000), /"level":(?:50|60)|unexpectedly/);
    await rig.daemon.start();
  });
});

interface Crowd {
  readonly clients: number;
  readonly calls: number;
  readonly template: Container;
  readonly digest: string;
}

/** Has clients go on until all have made their share of the calls. Returns how many that were. */
async function crowd(
  { daemon }: Rig,
  homes: readonly Ctr[],
  { clients, calls, template, digest }: Crowd,
): Promise<number> {
  const share = Math.ceil(calls / clients);
  const counts = await Promise.all(
    Array.from({ length: clients }, async (_, index) => {
      const { namespace } = homes[index % homes.length]!;
      using journey = new Journey(daemon.address, namespace, `${index}`.padStart(3, '0'));
      await journey.runsContainer(template);
      for (let round = index; journey.calls < share; round += 1) {
        await journey.asks();
        await journey.storesImage();
        await journey.makesSnapshots({ diff: round % 6 === 0 });
        if (round % 2 === 0) await journey.leavesWrite({ how: round % 4 === 0 ? 'connection' : 'reset' });
        else await journey.leavesReads(digest);
      }
      return journey.calls;
    }),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

/** In each namespace a container to be copied and a large blob. */
async function prepare({ daemon }: Rig, homes: readonly Ctr[]): Promise<Container> {
  let template: Container | undefined;
  for (const home of homes) {
    await home.create('template', ['/bin/sleep', '1000']);
    using connection = new Connection(daemon.address);
    const headers = [['containerd-namespace', home.namespace]] as const;
    const found = await connection.service(ContainersDefinition, headers).get({ id: 'template' });
    template = found.container;
    const [ref, total] = ['large', BigInt(LARGE.length)];
    const labels = { 'containerd.io/gc.root': 'now' };
    const commit = [{ action: WriteAction.COMMIT, ref, total, offset: 0n, data: LARGE, labels }];
    const content = connection.service(ContentDefinition, headers);
    await Array.fromAsync(content.write(messages(commit)));
  }
  assert.ok(template);
  return template;
}

async function* messages<T>(list: readonly T[]): AsyncGenerator<T> {
  yield* list;
}

/** ctr processes in the crowd: two that run containers, two that read and look, two that are killed in the middle. */
async function commandLines(homes: readonly Ctr[]): Promise<void> {
  const [first, second, third, fourth] = homes as [Ctr, Ctr, Ctr, Ctr];
  await Promise.all([
    ...[first, second].map(async (ctr) => {
      for (let round = 0; round < 3; round += 1) {
        const outcome = await ctr.run(`ctr-${round}`, ['/bin/echo', `hello ${round}`], ['--rm'], {});
        assert.equal(outcome.stdout, `hello ${round}\n`, outcome.stderr);
      }
    }),
    ...[third, fourth].map(async (ctr) => {
      for (let round = 0; round < 3; round += 1) {
        assert.deepEqual((await ctr.digests()).includes(digestOf(LARGE)), true);
        assert.match(await ctr.ok('containers', 'ls', '-q'), /template/);
      }
    }),
    ...[first, fourth].map(async (ctr) => {
      for (const args of [['events'], ['content', 'get', digestOf(LARGE)]]) {
        // Its output is not read, so it is in the middle whenever it is killed.
        const child = ctr.spawn(args);
        await delay(500);
        child.kill('SIGKILL');
      }
    }),
  ]);
}

/** The namespace has what was prepared, and nothing else. */
async function expectOnlyPrepared({ daemon }: Rig, ctr: Ctr, digest: string): Promise<void> {
  await ctr.ok('leases', 'create', '--id', 'last');
  await ctr.ok('leases', 'rm', '--sync', 'last');
  assert.deepEqual(await ctr.lines('containers', 'ls', '-q'), ['template']);
  assert.deepEqual([...(await ctr.tasks()).keys()], []);
  assert.deepEqual(await ctr.digests(), [digest]);
  assert.deepEqual(await ctr.images(), []);
  assert.deepEqual(await leasesOf(ctr), []);
  assert.equal(await ctr.snapshots(), 0);
  assert.deepEqual([...(await ingestsOf(daemon, ctr)).keys()], []);
}
