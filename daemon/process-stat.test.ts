import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { symlinkSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { processStat } from './process-stat.ts';

test('a process is known by its start', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'moor-age-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const own = Number(processStat(process.pid)?.started);
  assert.ok(Number(processStat(1)?.started) < own);
  assert.equal(Number(processStat('self')?.started), own);
  // Its name looks like fields of its own.
  const named = join(folder, 'a) S 1 (b');
  symlinkSync('/bin/sleep', named);
  const child = spawn(named, ['1000']);
  assert.ok(Number(processStat(child.pid!)?.started) > own);
  child.kill('SIGKILL');
  await once(child, 'close');
  assert.equal(processStat(child.pid!), undefined);
});
