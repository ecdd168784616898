import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Duplex } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
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

test('forks are made line by line, a changed file is told of before the next, and no child stays a zombie', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'moor-fork-'));
  const watched = join(folder, 'watched');
  const script = `
    import { exitNow, forkForLines, getPid } from '${native}';
    import { writeSync } from 'node:fs';
    for (;;) {
      const outcome = forkForLines(3, ['${watched}', '/not/there']);
      if (outcome.kind === 'closed') exitNow(7);
      writeSync(3, JSON.stringify({ ...outcome, pid: getPid(), same: getPid() === process.pid }) + '\\n');
      if (outcome.kind === 'child') exitNow(0);
    }
  `;
  const parent = spawn(process.execPath, [...flags, '--input-type=module', '-e', script], {
    env: environment,
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
  });
  try {
    const ended = once(parent, 'exit');
    const peer = parent.stdio[3] as Duplex;
    const answers = createInterface({ input: peer })[Symbol.asyncIterator]();
    const answer = async () => JSON.parse((await answers.next()).value as string) as Record<string, unknown>;
    peer.write('one\ntwo\nthr');
    const both = [await answer(), await answer()];
    assert.deepEqual(new Set(both.map(({ line }) => line)), new Set(['one', 'two']));
    peer.write('ee\n');
    const third = await answer();
    assert.equal(third['line'], 'three');
    const children = [...both, third];
    for (const child of children) assert.deepEqual([child['kind'], child['same']], ['child', true]);
    assert.equal(new Set([parent.pid, ...children.map(({ pid }) => pid)]).size, 4);

    writeFileSync(watched, 'there now');
    peer.write('four\n');
    const change = await answer();
    assert.deepEqual([change['kind'], change['pid']], ['changed', parent.pid]);
    assert.deepEqual((await answer())['line'], 'four', 'the line is not lost');

    const offspring = () => readFileSync(`/proc/${parent.pid}/task/${parent.pid}/children`, 'latin1');
    for (let tries = 0; offspring() !== '' && tries < 600; tries++) await delay(50);
    assert.equal(offspring(), '');
    peer.end();
    peer.destroy();
    assert.deepEqual(await ended, [7, null]);
  } finally {
    parent.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  }
});
