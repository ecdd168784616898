import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics as MetricsV1 } from '../proto/gen/cgroups/v1.ts';
import { Metrics as MetricsV2 } from '../proto/gen/cgroups/v2.ts';
import type { Metrics } from '../client/client.ts';
import { type Counters, countersOf, type Usage, usageOf } from './sample.ts';
import { frameOf } from './screen.ts';
import { bytes, screenLines, sorted, tableLines } from './top-table.ts';

const MiB = 1 << 20;

const counters = (id: string, changes: Partial<Counters> = {}): Counters => ({
  id,
  at: 1000,
  cpu: 0n,
  memory: BigInt(8 * MiB),
  memoryLimit: undefined,
  read: 0n,
  written: 0n,
  pids: 1n,
  pidsLimit: undefined,
  ...changes,
});

const usage = (id: string, changes: Partial<Usage> = {}): Usage => ({
  ...usageOf(counters(id), undefined),
  ...changes,
});

const at = new Date(5000);
const metric = { timestamp: undefined, id: 'x', data: undefined };

test('both versions of cgroups say the same', () => {
  const v1 = MetricsV1.fromPartial({
    cpu: { usage: { total: 5_000_000n } },
    memory: { usage: { usage: 100n, limit: 1000n }, totalInactiveFile: 30n },
    blkio: {
      ioServiceBytesRecursive: [
        { op: 'Read', value: 1n },
        { op: 'Read', value: 2n },
        { op: 'Write', value: 4n },
        { op: 'Sync', value: 7n },
      ],
    },
    pids: { current: 2n, limit: 10n },
  });
  const v2 = MetricsV2.fromPartial({
    cpu: { usageUsec: 5000n },
    memory: { usage: 100n, inactiveFile: 30n, usageLimit: 1000n },
    io: { usage: [{ rbytes: 1n }, { rbytes: 2n, wbytes: 4n }] },
    pids: { current: 2n, limit: 10n },
  });
  const readings: Metrics[] = [
    { id: 'x', timestamp: at, metric, version: 1, cgroup: v1 },
    { id: 'x', timestamp: at, metric, version: 2, cgroup: v2 },
  ];
  for (const reading of readings) {
    assert.deepEqual(countersOf(reading), {
      id: 'x',
      at: 5000,
      cpu: 5_000_000n,
      memory: 70n,
      memoryLimit: 1000n,
      read: 3n,
      written: 4n,
      pids: 2n,
      pidsLimit: 10n,
    });
  }
});

test('what is no limit is none, in either version', () => {
  const v1 = MetricsV1.fromPartial({ memory: { usage: { limit: 9_223_372_036_854_771_712n } } });
  const v2 = MetricsV2.fromPartial({ memory: { usageLimit: 2n ** 64n - 1n } });
  const one = countersOf({ id: 'x', timestamp: at, metric, version: 1, cgroup: v1 });
  const two = countersOf({ id: 'x', timestamp: at, metric, version: 2, cgroup: v2 });
  assert.deepEqual([one.memoryLimit, two.memoryLimit], [undefined, undefined]);
});

test('rates are of the time between two readings', () => {
  const before = counters('x', { cpu: 1_000_000_000n, read: 1000n });
  const now = counters('x', {
    at: 3000,
    cpu: 2_000_000_000n,
    read: 5000n,
    memory: 50n,
    memoryLimit: 200n,
  });
  const { cpuPercent, readRate, writeRate, memoryPercent } = usageOf(now, before);
  assert.deepEqual([cpuPercent, readRate, writeRate, memoryPercent], [50, 2000, 0, 25]);
  assert.equal(usageOf(now, undefined).cpuPercent, undefined);
  const another = counters('x', { at: 4000, cpu: 5n });
  assert.equal(usageOf(another, now).cpuPercent, undefined, 'a new container under an old name');
});

test('the greatest come first, and names decide between equals', () => {
  const all = [
    usage('b', { cpuPercent: 1, pids: 9n }),
    usage('c', { cpuPercent: 50, writeRate: 5 }),
    usage('a', { cpuPercent: 1, memory: 9n }),
  ];
  const ids = (by: Parameters<typeof sorted>[1]) => sorted(all, by).map(({ id }) => id);
  assert.deepEqual(ids('cpu'), ['c', 'a', 'b']);
  assert.deepEqual(ids('memory'), ['b', 'c', 'a']);
  assert.deepEqual(ids('io'), ['c', 'a', 'b']);
  assert.deepEqual(ids('pids'), ['b', 'a', 'c']);
  assert.deepEqual(ids('name'), ['a', 'b', 'c']);
});

test('numbers are to the right, and what is not known is a dash', () => {
  const full = usage('web', {
    cpuPercent: 123.45,
    memoryLimit: BigInt(64 * MiB),
    memoryPercent: 12.5,
    readRate: 0,
    writeRate: 1536,
  });
  assert.deepEqual(tableLines([full, usage('db')], Infinity), [
    'CONTAINER  CPU %  MEMORY    LIMIT  MEM %  READ/S  WRITE/S  PIDS',
    'web        123.5  8.0MiB  64.0MiB   12.5      0B   1.5KiB     1',
    'db             -  8.0MiB        -      -       -        -     1',
  ]);
});

test('lines fit the screen: names give way first, then the last columns', () => {
  const long = usage('a-container-with-a-rather-long-name', { cpuPercent: 1 });
  for (let columns = 1; columns < 120; columns += 1) {
    const lines = tableLines([long], columns);
    assert.ok(
      lines.every((line) => line.length <= columns),
      `${columns}`,
    );
  }
  assert.match(tableLines([long], 60)[1]!, /^a-con\S*…\s+1\.0 .*\s1$/);
  assert.match(tableLines([long], 20)[1]!, /^a-conta…\s+1\.0$/);
});

test('a screen is never overfull, and says what it hides', () => {
  const all = Array.from({ length: 30 }, (_, index) => usage(`c${index}`));
  const lines = screenLines(all, 'title', { columns: 80, rows: 10 });
  assert.equal(lines.length, 10);
  assert.deepEqual([lines[0], lines.at(-1)], ['title', '… and 23 more']);
  assert.equal(screenLines(all, 'title', { columns: 80, rows: 100 }).length, 32);
  for (let rows = 1; rows < 40; rows += 1)
    assert.ok(screenLines(all, 't', { columns: 5, rows }).length <= rows);
});

test('a frame is drawn over the one before, line by line, and scrolls nothing', () => {
  assert.equal(frameOf(['a', 'b']), '\x1b[?2026h\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J\x1b[?2026l');
});

test('bytes have three digits or four', () => {
  assert.deepEqual([0, 999, 1023, 1024, 1_048_000, 1_048_576, 150 * MiB, 2 ** 50].map(bytes), [
    '0B',
    '999B',
    '1023B',
    '1.0KiB',
    '1023KiB',
    '1.0MiB',
    '150MiB',
    '1.0PiB',
  ]);
});
