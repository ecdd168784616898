import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics as MetricsV1 } from '../../proto/gen/cgroups/v1.ts';
import { Metrics as MetricsV2 } from '../../proto/gen/cgroups/v2.ts';
import { parseDevices } from './network-usage.ts';
import { Rates } from './rates.ts';
import { fromV1, fromV2, sumOf } from './usage.ts';

const v1 = fromV1(
  MetricsV1.fromPartial({
    cpu: { usage: { total: 5_000_000_000n, kernel: 1n, user: 2n }, throttling: { throttledPeriods: 3n } },
    memory: {
      usage: { usage: 1000n, limit: 9_223_372_036_854_771_712n, max: 1500n, failcnt: 4n },
      swap: { usage: 1200n },
      totalInactiveFile: 300n,
      totalRss: 500n,
      totalPgFault: 7n,
    },
    pids: { current: 6n, limit: 9_223_372_036_854_775_807n },
    blkio: {
      ioServiceBytesRecursive: [
        { op: 'Read', major: 8n, minor: 1n, value: 10n },
        { op: 'Write', major: 8n, minor: 1n, value: 20n },
        { op: 'Total', major: 8n, minor: 1n, value: 30n },
        { op: 'Read', major: 8n, minor: 2n, value: 40n },
      ],
      ioServicedRecursive: [{ op: 'read', major: 8n, minor: 1n, value: 3n }],
    },
  }),
);
const v2 = fromV2(
  MetricsV2.fromPartial({
    cpu: { usageUsec: 2_000_000n, psi: { some: { total: 5n, avg10: 0.5 } } },
    memory: { usage: 100n, inactiveFile: 300n, anon: 50n, usageLimit: 1n << 20n, swapUsage: 9n },
    memoryEvents: { oomKill: 2n },
    pids: { current: 1n, limit: 100n },
    io: { usage: [{ major: 8n, minor: 1n, rbytes: 10n, wbytes: 20n, rios: 3n }] },
    hugetlb: [{ pagesize: '2MB', current: 1n, max: 2n }],
  }),
);

test('cgroups of both versions are told in the same measures', () => {
  assert.equal(v1.cpu.total, 5_000_000_000n);
  assert.equal(v1.memory.workingSet, 700n);
  assert.equal(v1.memory.limit, undefined, 'the largest number of pages is no limit');
  assert.equal(v1.swap.usage, 200n);
  assert.equal(v2.cpu.total, 2_000_000_000n);
  assert.equal(v2.memory.workingSet, 0n, 'never below zero');
  assert.deepEqual(
    [v2.memory.rss, v2.memory.limit, v2.memory.oomKills, v2.swap.usage],
    [50n, 1n << 20n, 2n, 9n],
  );
  assert.deepEqual(v2.pressure.cpu?.Some, { Total: 5000n, Avg10: 0.5, Avg60: 0, Avg300: 0 });
  const sum = sumOf([v1, undefined, v2])!;
  assert.deepEqual([sum.cpu.total, sum.memory.usage, sum.threads], [7_000_000_000n, 1100n, 7n]);
  assert.equal(sum.memory.limit, undefined);
  assert.equal(sumOf([v2, v2])?.memory.limit, 2n << 20n);
  assert.equal(sumOf([undefined]), undefined);
});

test('disks, huge pages and limits of threads are told alike', () => {
  const disk = { major: 8n, minor: 1n, readBytes: 10n, writtenBytes: 20n, reads: 3n, writes: 0n };
  assert.deepEqual(v1.disks, [
    disk,
    { major: 8n, minor: 2n, readBytes: 40n, writtenBytes: 0n, reads: 0n, writes: 0n },
  ]);
  assert.deepEqual(v2.disks, [disk]);
  assert.deepEqual([v1.threadsMax, v2.threadsMax], [0n, 100n]);
  assert.deepEqual(v2.hugePages, [{ pageSize: '2MB', usage: 1n, max: 2n }]);
});

test('a rate needs two samples that are a second apart, and begins again with its container', () => {
  let now = 0;
  const rates = new Rates(() => now);
  assert.equal(rates.of('a', 1000n), 0n);
  now = 500;
  assert.equal(rates.of('a', 9000n), 0n, 'too soon');
  now = 2000;
  assert.equal(rates.of('a', 5000n), 2000n);
  now = 2100;
  assert.equal(rates.of('a', 5100n), 2000n);
  now = 4000;
  assert.equal(rates.of('a', 10n), 0n, 'started anew');
  rates.forget('a');
  assert.equal(rates.of('a', 1n), 0n);
});

test('interfaces are read from what the kernel writes of them', () => {
  const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 1296       16    1    2    0     0          0         0      446       5    3    4    0     0       0          0
`;
  assert.deepEqual(parseDevices(text), [
    {
      name: 'eth0',
      rxBytes: 1296n,
      rxPackets: 16n,
      rxErrors: 1n,
      rxDropped: 2n,
      txBytes: 446n,
      txPackets: 5n,
      txErrors: 3n,
      txDropped: 4n,
    },
  ]);
});
