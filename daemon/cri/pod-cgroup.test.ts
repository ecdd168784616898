import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Recording } from '../../cgroup/fixture.test.ts';
import { podUsage, sliceFolder } from './pod-cgroup.ts';

const recording = new Recording();

test('a slice is below those that its name begins with', () => {
  const above = '/kubepods.slice/kubepods-burstable.slice';
  assert.equal(sliceFolder('kubepods-burstable-pod1_2.slice'), `${above}/kubepods-burstable-pod1_2.slice`);
});

test('a pod’s cgroups of version 1', () => {
  recording.record({
    'cpuacct/pods/p1/cpuacct.usage': '7000000000\n',
    'cpuacct/pods/p1/cpuacct.stat': 'user 300\nsystem 50\n',
    'memory/pods/p1/memory.usage_in_bytes': '5000\n',
    'memory/pods/p1/memory.limit_in_bytes': '8192\n',
    'memory/pods/p1/memory.memsw.usage_in_bytes': '5600\n',
    'memory/pods/p1/memory.memsw.limit_in_bytes': '9223372036854771712\n',
    'memory/pods/p1/memory.stat': 'rss 1\ntotal_rss 900\ntotal_inactive_file 1000\ntotal_pgfault 4\n',
    'pids/pods/p1/pids.current': '12\n',
  });
  const { cpu, memory, swap, threads } = podUsage('/pods/p1', false, recording.folder)!;
  assert.deepEqual([cpu.total, cpu.user, cpu.system], [7_000_000_000n, 3_000_000_000n, 500_000_000n]);
  assert.deepEqual(
    [memory.workingSet, memory.limit, memory.rss, memory.pageFaults],
    [4000n, 8192n, 900n, 4n],
  );
  assert.deepEqual([swap.usage, swap.limit, threads], [600n, undefined, 12n]);
});

test('a pod’s cgroup of version 2, by a slice', () => {
  const folder = 'kubepods.slice/kubepods-pod1.slice';
  recording.record({
    'cgroup.controllers': 'cpu memory\n',
    [`${folder}/cpu.stat`]: 'usage_usec 2000\nuser_usec 1500\nsystem_usec 500\n',
    [`${folder}/cpu.pressure`]: 'some avg10=1.50 avg60=0.00 avg300=0.00 total=6\n',
    [`${folder}/memory.current`]: '5000\n',
    [`${folder}/memory.max`]: 'max\n',
    [`${folder}/memory.swap.current`]: '7\n',
    [`${folder}/memory.stat`]: 'anon 900\ninactive_file 1000\npgmajfault 3\n',
    [`${folder}/pids.current`]: '2\n',
  });
  const { cpu, memory, swap, pressure } = podUsage(
    '/kubepods.slice/kubepods-pod1.slice',
    true,
    recording.folder,
  )!;
  assert.deepEqual([cpu.total, cpu.user], [2_000_000n, 1_500_000n]);
  assert.deepEqual([memory.workingSet, memory.limit, memory.majorPageFaults], [4000n, undefined, 3n]);
  assert.equal(swap.usage, 7n);
  assert.deepEqual(pressure.cpu?.Some, { Total: 6000n, Avg10: 1.5, Avg60: 0, Avg300: 0 });
  assert.equal(pressure.cpu.Full, undefined);
});

test('without a cgroup of its own nothing is known of it', () => {
  for (const parent of ['', '/', '/gone']) assert.equal(podUsage(parent, false, recording.folder), undefined);
});
