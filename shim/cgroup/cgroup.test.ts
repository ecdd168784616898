import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { parseMembership } from './cgroup.ts';
import { watchOomV2 } from './oom.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'moor-cgroup-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

/** Files as a kernel has them. */
function record(files: Record<string, string>): void {
  for (const [name, text] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}

test('a process is in one cgroup of each hierarchy, also where controllers share one', () => {
  const paths = parseMembership('9:name=systemd:/s\n4:memory:/m:x\n2:cpu,cpuacct:/c\n0::/u\n');
  assert.deepEqual(Object.fromEntries(paths), {
    systemd: '/s',
    memory: '/m:x',
    cpu: '/c',
    cpuacct: '/c',
    '': '/u',
  });
});

test('a watch of version 2 tells of each rise of the count, at the latest when it is checked', () => {
  record({ 'memory.events': 'oom 1\noom_kill 1\n' });
  let told = 0;
  const watch = watchOomV2(folder, () => told++)!;
  watch.check();
  assert.equal(told, 0);
  record({ 'memory.events': 'oom 2\noom_kill 2\n' });
  watch.check();
  watch.check();
  assert.equal(told, 1);
  watch.close();
  assert.equal(
    watchOomV2(join(folder, 'nope'), () => told++),
    undefined,
  );
});
