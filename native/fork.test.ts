import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import type { Outcome } from './fork.fixture.ts';
import { fork } from './native.ts';

const flags = [
  '--single-threaded',
  '--v8-pool-size=1',
  '--expose-gc',
  '--disable-warning=ExperimentalWarning',
];
const environment = { ...process.env, UV_USE_IO_URING: '0' };
const native = join(import.meta.dirname, 'native.ts');

/** Runs the template, which fails with the pids when a child hangs. */
function template(scenario: string, count = 1): Outcome & { stderr: string } {
  const run = spawnSync(
    process.execPath,
    [...flags, join(import.meta.dirname, 'fork.fixture.ts'), scenario, String(count)],
    {
      encoding: 'utf8',
      env: environment,
    },
  );
  assert.equal(run.status, 0, `${run.signal ?? ''} ${run.stderr}`);
  return { ...(JSON.parse(run.stdout) as Outcome), stderr: run.stderr };
}

test('twenty forked children run timers, files, processes, sockets and polls, and end with their own codes', (context) => {
  const { statuses, reports, forkMilliseconds, stderr } = template('work', 20);
  assert.equal(stderr, '');
  assert.deepEqual(
    statuses,
    Array.from({ length: 20 }, (_, code) => ({ code, signal: 0 })),
  );
  assert.equal(reports.length, 20);
  for (const { work } of reports) {
    const [timers, file, spawned, ...rest] = work;
    assert.deepEqual([timers, file, ...rest], ['timers', 'file true', 'exec hi', 'socket ping', 'poll']);
    assert.match(spawned ?? '', /^spawn through cat \d+$/);
  }
  assert.equal(new Set(reports.map(({ work }) => work[2])).size, 20);
  const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
  const atFork = median(reports.map((report) => report.privateAtFork));
  const afterWork = median(reports.map((report) => report.privateAfterWork));
  context.diagnostic(
    `fork ${median(forkMilliseconds).toFixed(2)} ms; private ${atFork} kB, after work ${afterWork} kB`,
  );
  // A Node process started afresh has more than 11 MB of its own before it does anything.
  assert.ok(atFork < 3_000, `${atFork} kB`);
  assert.ok(afterWork < 6_000, `${afterWork} kB`);
});

test('a forked child knows its pid, draws its own random bytes, and does not copy its heap for what it spawns', () => {
  const { reports } = template('work', 5);
  for (const report of reports) {
    assert.equal(report.pid, report.kernelPid);
    assert.ok(report.uncopied > 0);
  }
  assert.equal(new Set(reports.map((report) => report.pid)).size, 5);
  assert.equal(new Set(reports.map((report) => report.random)).size, 5);
});

test('a forked child collects garbage and optimizes without the threads it lacks', () => {
  assert.deepEqual(template('burn').statuses, [{ code: 0, signal: 0 }]);
});

test('a forked child ends, and does not hang, whichever way it leaves', () => {
  const status = (code: number) => [{ code, signal: 0 }];
  assert.deepEqual(template('exit').statuses, status(5));
  assert.deepEqual(template('drain').statuses, status(6));
  assert.deepEqual(template('catch').statuses, status(7));
  assert.deepEqual(template('grandchild').statuses, status(8));
  const thrown = template('throw');
  assert.deepEqual(thrown.statuses, status(1));
  assert.match(thrown.stderr, /Uncaught Error: thrown in the child/);
  const rejected = template('reject');
  assert.deepEqual(rejected.statuses, status(1));
  assert.match(rejected.stderr, /Uncaught Error: rejected in the child/);
});

test('a fork is refused while a file operation is under way', () => {
  const script = `
    import { fork } from '${native}';
    import { readFile } from 'node:fs/promises';
    const pending = readFile('/dev/null');
    let refused;
    try { fork(); } catch (error) { refused = error.message; }
    await pending;
    process.stdout.write(refused);
  `;
  const run = spawnSync(process.execPath, [...flags, '--input-type=module', '-e', script], {
    encoding: 'utf8',
    env: environment,
  });
  assert.equal(run.stdout, 'fork: EBUSY: Device or resource busy', run.stderr);
});

test('a fork is refused where the child would hang: without --single-threaded, and in a worker', async () => {
  assert.throws(() => fork(), /fork needs node --single-threaded/);
  const script = `
    process.execArgv.push('--single-threaded');
    import('${native}').then(({ fork }) => fork()).catch((error) => {
      require('node:worker_threads').parentPort.postMessage(error.message);
    });
  `;
  const worker = new Worker(script, { eval: true });
  const [[message]] = (await Promise.all([once(worker, 'message'), once(worker, 'exit')])) as [
    [string],
    unknown,
  ];
  assert.equal(message, 'fork: EINVAL: Invalid argument');
});
