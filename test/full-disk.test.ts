/** A disk that fills up under a running daemon: the error says so, what is there stays and runs, and with room it goes on by itself. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, after, afterEach, before, it } from 'node:test';
import { LoopFilesystem } from '../daemon/snapshots/testing/loop.ts';
import { TrickyRegistry } from '../daemon/distribution/testing/registries.ts';
import { mount } from '../native/native.ts';
import { ContentDefinition } from '../proto/gen/containerd/services/content.ts';
import { LeasesDefinition } from '../proto/gen/containerd/services/leases.ts';
import { Code } from '../ttrpc/errors.ts';
import { Daemon } from './harness/daemon.ts';
import type { Ctr } from './harness/ctr.ts';
import { describe } from './harness/program.ts';
import { busyboxImage, makeImage, ociArchive } from './harness/image.ts';
import { suite } from './harness/peers.ts';
import { failureOf } from './harness/rpc.ts';
import { expectNothingStored, expectWhole } from './harness/stored.ts';
import { pull } from './harness/transfer.ts';

const MEGABYTE = 1 << 20;
const full = /no space left on device/i;

/** Takes all that is left: first the blocks, then what smaller files still find; or the inodes. */
class Ballast {
  readonly #folder: string;
  #count = 0;

  constructor(disk: string) {
    this.#folder = join(disk, 'ballast');
  }

  /** @param spare bytes to leave */
  fill(spare = 0): void {
    mkdirSync(this.#folder, { recursive: true });
    const { bavail, bsize } = statfsSync(this.#folder);
    const large = bavail * bsize - spare;
    if (large > MEGABYTE) this.#write(large - MEGABYTE);
    for (const size of spare > 0 ? [] : [MEGABYTE, 65_536, 4096]) {
      try {
        for (;;) this.#write(size);
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      }
    }
  }

  /** @param spare inodes to leave */
  fillInodes(spare: number): void {
    mkdirSync(this.#folder, { recursive: true });
    try {
      for (;;) this.#write(0);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    }
    for (let left = spare; left > 0; left -= 1) rmSync(join(this.#folder, String(this.#count - left)));
  }

  release(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #write(size: number): void {
    this.#count += 1;
    writeFileSync(join(this.#folder, String(this.#count)), Buffer.alloc(size, 1));
  }
}

suite('a full disk', { peers: ['moord'] }, (rig) => {
  let registry: TrickyRegistry;
  let disk: LoopFilesystem;
  let small: Daemon;
  let ctr: Ctr;
  let ballast: Ballast;
  const name = (repository: string) => `${registry.host}/${repository}:1`;

  before(async () => {
    registry = await TrickyRegistry.start();
    // 4,000 inodes, to be used up quickly.
    disk = new LoopFilesystem('ext4', 96, '-m', '0', '-N', '4000');
    small = await Daemon.start(rig.peer, { root: join(disk.path, 'root') });
    ctr = small.ctr();
    ballast = new Ballast(disk.path);
    registry.put('small', '1', await busyboxImage({ above: [{ 'cargo/list': 'rum\n' }] }));
    registry.put('large', '1', await makeImage([{ noise: randomBytes(12 * MEGABYTE) }]));
    const many = Object.fromEntries(Array.from({ length: 1000 }, (_, index) => [`many/${index}`, 'x']));
    registry.put('many', '1', await makeImage([many]));
    const zeros = await makeImage([{ zeros: Buffer.alloc(20 * MEGABYTE) }]);
    registry.put('zeros', '1', zeros);
    await pull(small, ctr.namespace, name('small'));
    await ctr.ok('run', '-d', '--null-io', '--fifo-dir', ctr.fifos, name('small'), 'keeper', 'sleep', '1000');
  });
  after(async () => {
    await registry[Symbol.asyncDispose]();
    await small.stop();
    disk[Symbol.dispose]();
  });

  afterEach((context) => {
    ballast.release();
    const test = context as TestContext;
    if (!test.passed) test.diagnostic(`log of the daemon on the small disk:\n${small.tail()}`);
  });

  /** What was there before is there, can be read and can be run. */
  const isWell = async (): Promise<void> => {
    await expectWhole(small, ctr);
    assert.equal((await ctr.task('keeper'))?.status, 'RUNNING');
    const seen = await ctr.exec('keeper', ['/bin/cat', '/cargo/list']);
    assert.equal(seen.stdout, 'rum\n', describe(seen));
  };

  const isFull = async (repository: string): Promise<void> => {
    const failure = await failureOf(pull(small, ctr.namespace, name(repository)));
    assert.match(failure.message, full);
    assert.equal(failure.code, Code.ResourceExhausted, failure.message);
    await isWell();
  };

  const goesOn = async (repository: string): Promise<void> => {
    ballast.release();
    await pull(small, ctr.namespace, name(repository));
    await isWell();
    await ctr.ok('images', 'rm', '--sync', name(repository));
  };

  it('in a pull, while a blob comes', async () => {
    ballast.fill(6 * MEGABYTE);
    await isFull('large');
    await goesOn('large');
  });

  it('in a pull, while a layer is unpacked', async () => {
    ballast.fill(10 * MEGABYTE);
    await isFull('zeros');
    await goesOn('zeros');
  });

  it('in a pull, when there are no inodes left', async () => {
    ballast.fillInodes(100);
    await isFull('many');
    await goesOn('many');
  });

  it('in what ctr does: import, ingest, label, run', async () => {
    const archive = ociArchive(join(small.directory, 'large.tar'), [
      ['d.test/large:1'],
      await makeImage([{ noise: randomBytes(12 * MEGABYTE) }]),
    ]);
    ballast.fill();
    const refused = async (...args: string[]): Promise<void> => {
      const outcome = await ctr.call(args);
      assert.equal(outcome.code, 1, describe(outcome));
      assert.match(outcome.stderr, full);
    };
    await refused('images', 'import', archive);
    const ingest = await ctr.call(['content', 'ingest', 'x'], { input: randomBytes(4 * MEGABYTE) });
    assert.match(ingest.stderr, full, describe(ingest));
    using connection = small.connect();
    const leases = connection.service(LeasesDefinition, ctr.namespace);
    // The database has pages of its own that are free.
    const made: string[] = [];
    const failure = await failureOf(
      (async () => {
        for (; made.length < 1000; made.push(`l${made.length}`))
          await leases.create({ id: `l${made.length}`, labels: { a: 'v'.repeat(3000) } });
      })(),
    );
    assert.match(failure.message, full);
    assert.equal(failure.code, Code.ResourceExhausted);
    await refused('run', '--rm', '--fifo-dir', ctr.fifos, name('small'), 'another', 'true');
    await isWell();
    ballast.release();
    const again = await ctr.call([
      'run',
      '--rm',
      '--fifo-dir',
      ctr.fifos,
      name('small'),
      'another',
      'cat',
      '/cargo/list',
    ]);
    assert.equal(again.stdout, 'rum\n', describe(again));
    await ctr.ok('images', 'import', archive);
    await isWell();
    await ctr.ok('images', 'rm', '--sync', 'd.test/large:1');
    for (const id of made) await leases.delete({ id });
    // There if its record was written.
    await connection
      .service(ContentDefinition, ctr.namespace)
      .abort({ ref: 'x' })
      .catch(() => undefined);
  });

  it('removing works on a disk without a byte, and frees it', async () => {
    await pull(small, ctr.namespace, name('large'));
    ballast.fill();
    await ctr.ok('images', 'rm', '--sync', name('large'));
    await pull(small, ctr.namespace, name('many'));
    await isWell();
    await ctr.ok('images', 'rm', '--sync', name('many'));
    ballast.release();
  });

  it('a state without room refuses new containers, and the others run on', async () => {
    const state = join(small.directory, 'state-of-its-own');
    mkdirSync(state);
    mount('moor-test', state, 'tmpfs', 0, 'size=2m');
    await using tight = await Daemon.start(rig.peer, { state: join(state, 'state') });
    const other = tight.ctr();
    await other.runDetached('first', ['/bin/sleep', '1000']);
    const filler = new Ballast(state);
    filler.fill();
    const outcome = await other.run('second', ['/bin/true']);
    assert.equal(outcome.code, 1, describe(outcome));
    assert.match(outcome.stderr, full);
    await other.remove('second');
    assert.equal((await other.task('first'))?.status, 'RUNNING');
    filler.release();
    const again = await other.run('second', ['/bin/echo', 'again'], ['--rm']);
    assert.equal(again.stdout, 'again\n', describe(again));
    await other.remove('first');
  });

  it('in the end nothing is left', async () => {
    await ctr.remove('keeper');
    await expectNothingStored(small, ctr);
  });
});
