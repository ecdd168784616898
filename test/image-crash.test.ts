/**
 * The daemon is killed with -9 in the middle of pulls, imports, commits and collections. Afterwards nothing is there in part, the
 * same can be done again, what was fetched is not fetched again, and in the end nothing is left.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { TrickyRegistry } from '../daemon/distribution/testing/registries.ts';
import type { ImageStep } from '../daemon/failpoint.ts';
import { describe } from './harness/program.ts';
import { type MadeImage, busyboxImage, ociArchive } from './harness/image.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { seeded } from './harness/seed.ts';
import { digestsOf, expectNothingStored, expectWhole, ingestsOf, leasesOf } from './harness/stored.ts';
import { pull } from './harness/transfer.ts';
import { soon } from './harness/wait.ts';

const rounds = Number(process.env['TEST_ROUNDS'] ?? 6);
const failpoints = join(tmpdir(), `moor-failpoints-${process.pid}`);

const arm = (text: string) => writeFileSync(failpoints, text);

suite(
  'a daemon killed at work on images',
  { peers: ['moord'], env: { MOOR_FAILPOINTS: failpoints } },
  (rig) => {
    let registry: TrickyRegistry;
    let image: MadeImage;
    let archive: string;
    const sum = randomBytes(8).toString('hex');
    const name = () => `${registry.host}/harbour/ship:1`;

    // Before the suite's own, which starts the daemon.
    arm('');
    before(async () => {
      registry = await TrickyRegistry.start();
      const above = [
        { 'cargo/noise': randomBytes(3_000_000), 'cargo/list': 'rum\n' },
        Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`deck/${index}`, `${sum} ${index}`])),
      ];
      image = await busyboxImage({ above });
      registry.put('harbour/ship', '1', image);
      archive = ociArchive(join(rig.daemon.directory, 'ship.tar'), [[name()], image]);
    });
    after(async () => {
      await registry[Symbol.asyncDispose]();
      rmSync(failpoints, { force: true });
    });

    const jobs = {
      pull: () => pull(rig.daemon, rig.ctr.namespace, name()),
      'ctr pull': async () => void (await rig.ctr.ok('images', 'pull', '--plain-http', name())),
      'ctr import': async () => void (await rig.ctr.ok('images', 'import', archive)),
    };

    /** Does it until the daemon dies of it, and starts the daemon again. ctr waits for that at times, and goes on. */
    const dieOf = async (step: ImageStep, count: number, job: () => Promise<void>): Promise<void> => {
      arm(`${step}=kill@${count}`);
      const ended = rig.daemon.ended();
      const running = job().then(
        () => 'done',
        () => 'cut off',
      );
      const first = await Promise.race([ended.then(() => 'died'), running]);
      arm('');
      if (first === 'done') throw new Error(`${step} was not reached ${count} times`);
      await soon('the daemon dies at the fail point', ended);
      await rig.daemon.start();
      await running;
    };

    /** The client's leases, which the client that was cut off would remove if it still could. */
    const dropLeases = async (): Promise<void> => {
      for (const lease of await leasesOf(rig.ctr)) await rig.ctr.ok('leases', 'rm', lease);
    };

    /** Once more, to the end: no byte is fetched again that was there. */
    const repeat = async (job: keyof typeof jobs): Promise<void> => {
      const whole = new Set(await digestsOf(rig.ctr));
      const parts = await ingestsOf(rig.daemon, rig.ctr);
      registry.requests.length = 0;
      registry.headers.length = 0;
      await jobs[job]();
      for (const [index, request] of registry.requests.entries()) {
        const digest = /^GET .*\/(sha256:.*)$/.exec(request)?.[1];
        if (digest === undefined) continue;
        assert.ok(!whole.has(digest), `${request} although it is there`);
        const offset = Number(/^bytes=(\d+)-/.exec(registry.headers[index]?.range ?? '')?.[1] ?? 0);
        const kept = [...parts].find(([ref]) => ref.endsWith(digest))?.[1];
        assert.equal(offset, kept ?? 0, `${request} goes on where it was`);
      }
      await expectWhole(rig.daemon, rig.ctr);
      const listed = await digestsOf(rig.ctr);
      for (const { digest } of [image.manifest, image.config, ...image.layers])
        assert.ok(listed.includes(digest));
      const look = 'cat /cargo/list /deck/299; wc -c </cargo/noise; ls /deck | wc -l';
      const seen = await rig.ctr.call([
        'run',
        '--rm',
        '--fifo-dir',
        rig.ctr.fifos,
        name(),
        'look',
        'sh',
        '-c',
        look,
      ]);
      assert.equal(seen.stdout, `rum\n${sum} 2993000000\n300\n`, describe(seen));
    };

    const points: readonly (readonly [keyof typeof jobs, ImageStep, number?])[] = [
      ['pull', 'lease-created'],
      ['pull', 'ingest-recorded', 3],
      ['pull', 'ingest-written', 6],
      ['pull', 'blob-renamed', 4],
      ['pull', 'blob-recorded', 4],
      ['pull', 'snapshot-prepared', 2],
      ['pull', 'snapshot-committed'],
      ['pull', 'image-unpacked'],
      ['pull', 'image-recorded'],
      ['ctr pull', 'ingest-written', 3],
      ['ctr pull', 'blob-renamed', 4],
      ['ctr pull', 'image-recorded'],
      ['ctr pull', 'layer-applied'],
      ['ctr pull', 'snapshot-committed', 2],
      ['ctr import', 'ingest-written', 3],
      ['ctr import', 'layer-applied', 3],
    ];
    for (const [job, step, count = 1] of points) {
      it(`during a ${job}, at ${step} number ${count}`, async () => {
        const before = holdings(rig.daemon);
        await dieOf(step, count, jobs[job]);
        await expectWhole(rig.daemon, rig.ctr);
        await repeat(job);
        if (job === 'pull')
          assert.deepEqual(await leasesOf(rig.ctr), [], 'the daemon leaves no lease of its own');
        await dropLeases();
        await expectNothingStored(rig.daemon, rig.ctr);
        await expectNothingLeft(rig.daemon, before, {
          except: /^descriptor|^fifo .*\/fifo\/|process .*differ/,
        });
      });
    }

    for (const [step, count] of [
      ['garbage-marked', 1],
      ['garbage-forgotten', 1],
      ['blob-removed', 2],
      ['snapshot-removed', 2],
    ] as const) {
      it(`during a collection, at ${step} number ${count}: what is garbage goes, what is not stays`, async () => {
        await jobs.pull();
        await rig.ctr.ok('images', 'import', '--no-unpack', archive);
        // Blobs that another namespace has are not removed.
        const other = step === 'blob-removed' ? undefined : rig.daemon.ctr();
        await other?.ok('images', 'import', archive);
        await dieOf(step, count, async () => void (await rig.ctr.ok('images', 'rm', '--sync', name())));
        await expectWhole(rig.daemon, rig.ctr);
        if (other !== undefined) {
          await expectWhole(rig.daemon, other);
          const command = ['run', '--rm', '--fifo-dir', other.fifos, name(), 'look', 'cat', '/cargo/list'];
          assert.equal(await other.ok(...command), 'rum\n');
          await other.ok('images', 'rm', '--sync', name());
        }
        await expectNothingStored(rig.daemon, rig.ctr);
      });
    }

    it('during a commit: the snapshot is one thing or the other', async () => {
      const { ctr, daemon } = rig;
      for (const step of ['snapshot-made', 'snapshot-prepared', 'snapshot-committed'] as const) {
        const call = async (...args: string[]) => void (await ctr.ok('snapshots', ...args));
        if (step === 'snapshot-committed') await call('prepare', 'work');
        await dieOf(step, 1, () =>
          step === 'snapshot-committed' ? call('commit', 'done', 'work') : call('prepare', 'work'),
        );
        const lines = (await ctr.ok('snapshots', 'ls')).trimEnd().split('\n').slice(1);
        assert.ok(lines.length <= 1, lines.join('\n'));
        if (step !== 'snapshot-committed') {
          const again = await ctr.call(['snapshots', 'prepare', 'work']);
          assert.ok(again.code === 0 || /already exists/.test(again.stderr), describe(again));
        }
        for (const line of (await ctr.ok('snapshots', 'ls')).trimEnd().split('\n').slice(1))
          await ctr.ok('snapshots', 'rm', line.split(/\s+/)[0] as string);
        await expectNothingStored(daemon, ctr);
      }
    });

    it('at random moments', { timeout: 120_000 }, async (context) => {
      const seed = seeded(context);
      const before = holdings(rig.daemon);
      for (let round = 0; round < rounds; round += 1) {
        const job = seed.pick(Object.keys(jobs) as (keyof typeof jobs)[]);
        const moment = seed.next(600);
        const running = jobs[job]().catch(() => undefined);
        await delay(moment);
        await rig.daemon.restart();
        await running;
        try {
          await expectWhole(rig.daemon, rig.ctr);
          await repeat(job);
        } catch (error) {
          throw new Error(`${job}, killed after ${moment.toFixed(0)} ms: ${(error as Error).message}`, {
            cause: error,
          });
        }
        await dropLeases();
        await expectNothingStored(rig.daemon, rig.ctr);
      }
      await expectNothingLeft(rig.daemon, before, {
        except: /^descriptor|^fifo .*\/fifo\/|process .*differ/,
      });
    });
  },
);
