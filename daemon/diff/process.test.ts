/** Processes that are cancelled, die or go mad, and a daemon that is killed: the others notice, and nothing stays mounted. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, test, type TestContext } from 'node:test';
import { childPids, pidfdOpen, Poll } from '../../native/native.ts';
import { Code } from '../../ttrpc/errors.ts';
import { Differ, type DifferOptions } from './differ.ts';
import { archiveOf, entryOf, folderFor, mountsBelow, openBlob, Snapshot } from './fixture.test.ts';

const TAR = 'application/vnd.oci.image.layer.v1.tar';

function differFor(context: TestContext, options: Partial<DifferOptions> = {}): Differ {
  const folder = join(folderFor(context), 'mounts');
  mkdirSync(folder);
  const differ = new Differ({ folder, ...options });
  context.after(() => differ.close());
  return differ;
}

/** A tree whose layer does not fit into the pipe. */
function largeTree(context: TestContext): Snapshot {
  const snapshot = new Snapshot(folderFor(context));
  writeFileSync(join(snapshot.upper, 'large'), Buffer.alloc(4 * 2 ** 20));
  return snapshot;
}

/** Begins to make a layer whose bytes nobody takes until `release`; resolves when the process is at work. */
async function begin(context: TestContext, differ: Differ, tree: Snapshot, signal?: AbortSignal) {
  const [started, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  context.after(() => released.resolve());
  const write = () => {
    started.resolve();
    return released.promise;
  };
  const comparing = differ.compare([], tree.mounts, { mediaType: TAR, write, signal });
  const failure = comparing.then(
    () => undefined,
    (error: { code: Code; message: string }) => error,
  );
  await Promise.race([started.promise, failure]);
  return { failure, release: released.resolve };
}

/** A differ's processes know each other by the folder they are given. */
function workers(folder: string): number[] {
  return childPids().filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(folder));
}

async function ended(pidfd: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  using poll = new Poll(pidfd, 'readable', () => resolve());
  await promise;
  poll.close();
}

async function apply(
  differ: Differ,
  snapshot: Snapshot,
  archive: Buffer,
  signal?: AbortSignal,
): Promise<void> {
  const path = join(snapshot.folder, 'blob');
  writeFileSync(path, archive);
  const layer = { mediaType: TAR, digest: '', size: 0n, annotations: {} };
  await differ.apply(layer, snapshot.mounts, { openBlob: () => Promise.resolve(openBlob(path)), signal });
}

test('a job that is cancelled ends at once, and the next one is done', async (context) => {
  const differ = differFor(context);
  const tree = largeTree(context);
  const controller = new AbortController();
  const { failure, release } = await begin(context, differ, tree, controller.signal);
  controller.abort();
  release();
  assert.equal((await failure)?.code, Code.Cancelled);
  await apply(differ, tree, archiveOf(entryOf('after')));
  assert.deepEqual(readdirSync(tree.upper).sort(), ['after', 'large']);
});

test('a call that is cancelled already does nothing', async (context) => {
  const snapshot = new Snapshot(folderFor(context));
  const applying = apply(differFor(context), snapshot, archiveOf(entryOf('f')), AbortSignal.abort());
  await assert.rejects(applying, { code: Code.Cancelled });
  assert.deepEqual(readdirSync(snapshot.upper), []);
});

test('a layer that cannot be stored fails with the reason, and the process is stopped', async (context) => {
  const write = () => Promise.reject(new Error('the disk is full'));
  const comparing = differFor(context).compare([], largeTree(context).mounts, { mediaType: TAR, write });
  await assert.rejects(comparing, { message: 'the disk is full' });
});

test('a process that is killed is named in the error, and the next job gets a new one', async (context) => {
  const folder = join(folderFor(context), 'mounts');
  mkdirSync(folder);
  const differ = new Differ({ folder });
  context.after(() => differ.close());
  const tree = largeTree(context);
  const { failure, release } = await begin(context, differ, tree);
  const [pid] = workers(folder);
  process.kill(pid!, 'SIGKILL');
  release();
  const error = await failure;
  assert.equal(error?.message, 'the differ process was ended by SIGKILL during compare');
  assert.equal(error?.code, Code.Internal);
  await apply(differ, tree, archiveOf(entryOf('after')));
});

test('two jobs are done at once, others wait and can be cancelled while they do', async (context) => {
  const differ = differFor(context);
  const tree = largeTree(context);
  const [first, third] = [new AbortController(), new AbortController()];
  const one = await begin(context, differ, tree, first.signal);
  const two = await begin(context, differ, tree);
  const waiting = new Snapshot(folderFor(context));
  const cancelled = apply(differ, waiting, archiveOf(entryOf('f')), third.signal);
  const queued = apply(differ, waiting, archiveOf(entryOf('g')));
  third.abort();
  await assert.rejects(cancelled, { code: Code.Cancelled });
  assert.deepEqual(readdirSync(waiting.upper), []);
  first.abort();
  one.release();
  await Promise.all([one.failure, queued]);
  assert.deepEqual(readdirSync(waiting.upper), ['g']);
  two.release();
  assert.equal(await two.failure, undefined);
});

test('closing ends what is being done and refuses what is not yet', async (context) => {
  const differ = differFor(context);
  const tree = largeTree(context);
  const { failure, release } = await begin(context, differ, tree);
  await differ.close();
  release();
  assert.equal((await failure)?.code, Code.Internal);
  await assert.rejects(apply(differ, tree, archiveOf()), { code: Code.Unavailable });
});

void describe('a process that does not do what it should', () => {
  const node = (script: string): Partial<DifferOptions> => ({ command: [process.execPath, '-e', script] });
  for (const [what, options, message] of [
    [
      'cannot be started',
      { command: ['/no/such/program'] },
      /the differ process ended with .* during apply: spawn \/no\/such/,
    ],
    [
      'dies at its start',
      node("console.error('no luck'); process.exit(3)"),
      /ended with 3 during apply: no luck$/,
    ],
    [
      'closes its output',
      node("require('fs').closeSync(1); process.stdin.resume()"),
      /the differ process .* during apply/,
    ],
    [
      'talks nonsense',
      node("console.log('{}'); setInterval(() => {}, 1e6)"),
      /says what is not an answer: {}/,
    ],
    ['says no JSON', node("console.log('hello'); setInterval(() => {}, 1e6)"), /says what is .*JSON/],
  ] as const satisfies readonly (readonly [string, Partial<DifferOptions>, RegExp])[]) {
    test(`and ${what} is an error that says so`, async (context) => {
      const applying = apply(differFor(context, options), new Snapshot(folderFor(context)), archiveOf());
      await assert.rejects(applying, { code: Code.Internal, message });
    });
  }

  test('has its own reason in the error when the folder is missing', async (context) => {
    const applying = apply(
      differFor(context, { folder: '/no/such/folder' }),
      new Snapshot(folderFor(context)),
      archiveOf(),
    );
    await assert.rejects(applying, {
      message: /ended with 1 during apply: differ: mount \/no\/such\/folder: ENOENT/,
    });
  });
});

test('processes end with their daemon, however it ends, and nothing stays mounted', async (context) => {
  const folder = join(folderFor(context), 'mounts');
  mkdirSync(folder);
  const tree = largeTree(context);
  const script = `
    import { childPids } from '${join(import.meta.dirname, '../../native/native.ts')}';
    import { Differ } from '${join(import.meta.dirname, 'differ.ts')}';
    const differ = new Differ({ folder: '${folder}' });
    void differ.compare([], ${JSON.stringify(tree.mounts)}, {
      mediaType: '${TAR}',
      write: () => {
        console.log(childPids().join(' '));
        return new Promise(() => setInterval(() => undefined, 1e6));
      },
    });
  `;
  const daemon = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  context.after(() => daemon.kill('SIGKILL'));
  const [line] = (await once(createInterface({ input: daemon.stdout }), 'line')) as [string];
  const pidfds = line.split(' ').map((pid) => pidfdOpen(Number(pid)));
  assert.equal(pidfds.length, 1);
  daemon.kill('SIGKILL');
  await Promise.all(pidfds.map(ended));
  assert.deepEqual([...mountsBelow(folder), ...mountsBelow(tree.folder)], []);
  assert.deepEqual(readdirSync(folder), []);
});
