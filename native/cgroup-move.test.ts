import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { announceMove, childPids } from './native.ts';

const WAIT_MS = 30_000;

async function eventually(check: () => boolean): Promise<void> {
  for (const deadline = performance.now() + WAIT_MS; !check(); await sleep(5))
    assert.ok(performance.now() < deadline, 'in time');
}

test('a move is made with a process that is over, and nothing of it is left', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'moor-move-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const procs = join(folder, 'procs');
  const written = (): string => readFileSync(procs, 'latin1');
  writeFileSync(procs, '');
  announceMove(procs);
  await eventually(() => written() !== '' && childPids().length === 0);
  assert.match(written(), /^\d+$/);
  assert.equal(existsSync(`/proc/${written()}`), false);
});

test('where it cannot be made, nothing is', async () => {
  for (const nowhere of ['/nope', '/dev', '/proc/self/status']) {
    announceMove(nowhere);
    await eventually(() => childPids().length === 0);
  }
});

test('the real thing, many times at once, moves nothing', async () => {
  const before = readFileSync('/proc/self/cgroup', 'latin1');
  const unified = '/sys/fs/cgroup/cgroup.procs';
  const procs = existsSync(unified) ? unified : '/sys/fs/cgroup/pids/cgroup.procs';
  for (let round = 0; round < 100; round += 1) {
    announceMove(procs);
    if (round % 10 === 0) await sleep(1);
  }
  await eventually(() => childPids().length === 0);
  assert.equal(readFileSync('/proc/self/cgroup', 'latin1'), before);
});
