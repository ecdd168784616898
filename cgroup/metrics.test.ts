import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Recording } from './fixture.test.ts';
import { UNLIMITED } from './file.ts';
import { parseBlockIo, readMetricsV1 } from './v1.ts';
import { readMetricsV2 } from './v2.ts';

const recording = new Recording();

test('metrics of version 2 are read from a recorded cgroup', () => {
  recording.record({
    'pids.current': '3\n',
    'pids.max': 'max\n',
    'cpu.stat':
      'usage_usec 2034\nuser_usec 1017\nsystem_usec 1016\nnr_periods 5\nnr_throttled 2\nthrottled_usec 70\nnr_bursts 1\nburst_usec 9\n',
    'cpu.pressure':
      'some avg10=87.42 avg60=95.58 avg300=96.97 total=8441594091\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n',
    'memory.stat':
      'anon 225280\nfile 4096\nkernel_stack 16384\nworkingset_refault_anon 1\nworkingset_refault_file 2\npgfault 731\n',
    'memory.current': '966656\n',
    'memory.max': '67108864\n',
    'memory.peak': '1966656\n',
    'memory.swap.current': '0\n',
    'memory.swap.peak': '4096\n',
    'memory.pressure':
      'some avg10=0.00 avg60=0.12 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n',
    'io.pressure': 'some avg10=1.00 avg60=0.00 avg300=0.00 total=7\n',
    'memory.swap.max': 'max\n',
    'memory.events': 'low 0\nhigh 1\nmax 12\noom 2\noom_kill 1\n',
    'io.stat': '254:0 rbytes=1024 wbytes=4096 rios=1 wios=2 dbytes=0 dios=0\n8:0 \n',
    'rdma.current': 'mlx4_0 hca_handle=2 hca_object=2000\n',
    'rdma.max': 'mlx4_0 hca_handle=3 hca_object=max\n',
    'hugetlb.2MB.current': '2097152\n',
    'hugetlb.2MB.max': 'max\n',
  });
  const metrics = readMetricsV2(recording.folder)!;
  assert.deepEqual(metrics.pids, { current: 3n, limit: UNLIMITED });
  assert.equal(metrics.cpu?.usageUsec, 2034n);
  assert.equal(metrics.cpu?.throttledUsec, 70n);
  assert.deepEqual([metrics.cpu?.nrBursts, metrics.cpu?.burstUsec], [1n, 9n]);
  assert.deepEqual(metrics.cpu?.psi?.some, { avg10: 87.42, avg60: 95.58, avg300: 96.97, total: 8441594091n });
  assert.equal(metrics.cpu?.psi?.full?.total, 0n);
  assert.equal(metrics.memory?.anon, 225_280n);
  assert.equal(metrics.memory?.workingsetRefault, 3n);
  assert.deepEqual([metrics.memory?.usage, metrics.memory?.usageLimit], [966_656n, 67_108_864n]);
  assert.equal(metrics.memory?.swapLimit, UNLIMITED);
  assert.deepEqual([metrics.memory?.maxUsage, metrics.memory?.swapMaxUsage], [1_966_656n, 4096n]);
  assert.deepEqual(
    [metrics.memory?.psi?.some?.avg60, metrics.memory?.psi?.some?.total, metrics.memory?.psi?.full?.total],
    [0.12, 5n, 3n],
  );
  assert.deepEqual(metrics.io?.psi, { some: { avg10: 1, avg60: 0, avg300: 0, total: 7n }, full: undefined });
  assert.deepEqual(metrics.memoryEvents, { low: 0n, high: 1n, max: 12n, oom: 2n, oomKill: 1n });
  assert.deepEqual(metrics.io?.usage, [
    { major: 254n, minor: 0n, rbytes: 1024n, wbytes: 4096n, rios: 1n, wios: 2n },
  ]);
  assert.deepEqual(metrics.rdma?.limit, [{ device: 'mlx4_0', hcaHandles: 3, hcaObjects: 4_294_967_295 }]);
  assert.deepEqual(metrics.hugetlb, [{ pagesize: '2MB', current: 2_097_152n, max: UNLIMITED }]);
});

test('metrics of version 1 are read from recorded cgroups, with what is missing left out', () => {
  recording.record({
    'memory/memory.stat': 'cache 135168\nrss 77824\nhierarchical_memory_limit 67108864\ntotal_rss 77824\n',
    'memory/memory.usage_in_bytes': '421888\n',
    'memory/memory.limit_in_bytes': '67108864\n',
    'memory/memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 4\n',
    'cpuacct/cpuacct.usage': '22612175\n',
    'cpuacct/cpuacct.stat': 'user 1\nsystem 2\n',
    'cpuacct/cpuacct.usage_percpu': '12612175 10000000 \n',
    'cpu/cpu.stat': 'nr_periods 9\nnr_throttled 1\nthrottled_time 33\n',
    'pids/pids.current': '1\n',
    'pids/pids.max': 'max\n',
    'hugetlb/hugetlb.2MB.usage_in_bytes': '0\n',
  });
  const names = ['memory', 'cpuacct', 'cpu', 'pids', 'hugetlb', 'blkio'];
  const metrics = readMetricsV1(new Map(names.map((name) => [name, join(recording.folder, name)])))!;
  assert.deepEqual(metrics.cpu?.usage, {
    total: 22_612_175n,
    user: 10_000_000n,
    kernel: 20_000_000n,
    perCpu: [12_612_175n, 10_000_000n],
  });
  assert.equal(metrics.cpu?.throttling?.throttledTime, 33n);
  assert.equal(metrics.memory?.rss, 77_824n);
  assert.deepEqual(metrics.memory?.usage, { usage: 421_888n, limit: 67_108_864n, max: 0n, failcnt: 0n });
  assert.equal(metrics.memoryOomControl?.oomKill, 4n);
  assert.deepEqual(metrics.pids, { current: 1n, limit: 0n });
  assert.equal(metrics.hugetlb[0]?.pagesize, '2MB');
  assert.equal(metrics.blkio, undefined);
});

test('a kernel without pressure, swap or peaks leaves them out, and the rest is read', () => {
  recording.record({ 'pids.current': '1\n', 'memory.current': '5\n' });
  const metrics = readMetricsV2(recording.folder)!;
  assert.equal(metrics.memory?.usage, 5n);
  assert.deepEqual(
    [metrics.cpu?.psi, metrics.memory?.psi, metrics.io?.psi],
    [undefined, undefined, undefined],
  );
  assert.equal(metrics.memoryEvents, undefined);
});

test('cgroups that are gone have no metrics', () => {
  assert.equal(readMetricsV1(new Map([['memory', join(recording.folder, 'memory')]])), undefined);
  assert.equal(readMetricsV2(join(recording.folder, 'nope')), undefined);
});

test('lines of block devices have an operation or none, and totals are left out', () => {
  const names = new Map([['8:0', '/dev/sda']]);
  assert.deepEqual(parseBlockIo('8:0 Read 12\n8:16 7\nTotal 12\n', names), [
    { op: 'Read', device: '/dev/sda', major: 8n, minor: 0n, value: 12n },
    { op: '', device: '', major: 8n, minor: 16n, value: 7n },
  ]);
});
