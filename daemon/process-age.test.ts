import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { symlinkSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isOlder } from './process-age.ts';

test('a process is older when it was started before this one', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'moor-age-'));
  t.after(() => rmSync(folder, { recursive: true }));
  assert.ok(isOlder(1));
  assert.ok(!isOlder(process.pid));
  // Its name looks like fields of its own.
  const named = join(folder, 'a) S 1 (b');
  symlinkSync('/bin/sleep', named);
  const child = spawn(named, ['1000']);
  assert.ok(!isOlder(child.pid!));
  child.kill('SIGKILL');
  await once(child, 'close');
  assert.ok(!isOlder(child.pid!), 'it has gone');
});
