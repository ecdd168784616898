import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Recording } from '../../cgroup/fixture.test.ts';
import { parseMembership } from './cgroup.ts';
import { watchOomV2 } from './oom.ts';

const recording = new Recording();

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
  recording.record({ 'memory.events': 'oom 1\noom_kill 1\n' });
  let told = 0;
  const watch = watchOomV2(recording.folder, () => told++)!;
  watch.check();
  assert.equal(told, 0);
  recording.record({ 'memory.events': 'oom 2\noom_kill 2\n' });
  watch.check();
  watch.check();
  assert.equal(told, 1);
  watch.close();
  assert.equal(
    watchOomV2(join(recording.folder, 'nope'), () => told++),
    undefined,
  );
});
