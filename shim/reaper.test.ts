import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { childPids } from '../native/native.ts';
import { Reaper } from './reaper.ts';
import { openScratch, readScratch } from './scratch.ts';

const PATIENCE_MS = 60_000;

let reaper: Reaper;

beforeEach(() => {
  reaper = new Reaper();
  reaper.start();
});

afterEach(() => {
  reaper.stop();
  assert.deepEqual(childPids(), []);
});

const shell = (
  script: string,
  stdin: number | 'ignore' = 'ignore',
  stdout: number | 'ignore' = 'ignore',
) => ({
  file: 'sh',
  args: ['-c', script],
  environment: process.env,
  cwd: '/',
  descriptors: [stdin, stdout, 2],
});

test('programs are run to their end, many at once', async () => {
  const codes = Array.from({ length: 20 }, (_, index) => index);
  const ends = await Promise.all(codes.map((code) => reaper.run(shell(`exit ${code}`), PATIENCE_MS)));
  assert.deepEqual(
    ends.map(({ exit }) => exit.status),
    codes,
  );
  assert.ok(ends.every(({ hasTimedOut }) => !hasTimedOut));
});

test('a program that takes too long is killed', async () => {
  const { exit, hasTimedOut } = await reaper.run(shell('exec sleep 1003'), 20);
  assert.deepEqual([exit.status, hasTimedOut], [128 + 9, true]);
});

test('a program that has ended is not signalled', async () => {
  const subprocess = reaper.spawn(shell('exit 3'));
  assert.equal((await subprocess.ended).status, 3);
  subprocess.kill('SIGKILL');
});

test('one that cannot be started has no end to wait for, and its descriptors are not taken', async () => {
  let isSpawned = false;
  const missing = { ...shell(''), file: '/nope' };
  const running = reaper.run(missing, PATIENCE_MS, () => (isSpawned = true));
  await assert.rejects(running, { code: 'ENOENT' });
  assert.equal(isSpawned, false);
});

test('a program reads and prints through files that have no name, without a wait for what it leaves behind', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'moor-scratch-'));
  try {
    const long = 'ä'.repeat(100_000);
    using input = openScratch(folder, long);
    using output = openScratch(folder);
    assert.deepEqual(readdirSync(folder), []);
    const heir = reaper.expect();
    const { exit } = await reaper.run(
      shell('cat; sleep 1004 >&1 & echo " $!"', input.fd, output.fd),
      PATIENCE_MS,
    );
    assert.equal(exit.status, 0);
    const [text, pid] = readScratch(output).trim().split(' ');
    assert.equal(text, long);
    process.kill(Number(pid), 'SIGKILL');
    assert.equal((await heir.exitOf(Number(pid))).status, 128 + 9);
    heir[Symbol.dispose]();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
