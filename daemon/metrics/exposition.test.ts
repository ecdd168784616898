import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code } from '../../ttrpc/errors.ts';
import { Metrics as MetricsV1 } from '../../proto/gen/cgroups/v1.ts';
import { Metrics as MetricsV2 } from '../../proto/gen/cgroups/v2.ts';
import { parseConfig } from '../config.ts';
import { openLog } from '../log.ts';
import { CallCounts } from './calls.ts';
import { type Measurable, measureContainers } from './containers.ts';
import { expose, formatFamily } from './exposition.ts';
import { parseAddress } from './settings.ts';

const log = openLog('panic');

async function textOf(families: Parameters<typeof expose>[0]): Promise<string> {
  return (await Array.fromAsync(expose(families))).join('');
}

test('labels and help are escaped, large counts keep their digits, and families without samples are left out', async () => {
  const family = {
    name: 'x_total',
    help: 'back\\slash\nline',
    type: 'counter',
    samples: [
      { labels: { a: 'q"u\\o\nte', b: '' }, value: 18_446_744_073_709_551_615n },
      { value: 0.5 },
      { value: Infinity },
    ],
  } as const;
  const text = await textOf([family, { ...family, name: 'none', samples: [] }]);
  assert.equal(
    text,
    `# HELP x_total back\\\\slash\\nline
# TYPE x_total counter
x_total{a="q\\"u\\\\o\\nte",b=""} 18446744073709551615
x_total 0.5
x_total +Inf
`,
  );
});

function container(id: string, stats: Measurable['stats']): Measurable {
  return { id, namespace: 'n', runtime: 'r', stats };
}

const v1 = (metrics: Parameters<typeof MetricsV1.fromPartial>[0]) => () =>
  Promise.resolve({
    typeUrl: 'types.googleapis.com/io.containerd.cgroups.v1.Metrics',
    value: Buffer.from(MetricsV1.encode(MetricsV1.fromPartial(metrics)).finish()),
  });

test('containers are told by containerd’s names, one family each', async () => {
  const entry = { op: 'Read', device: '/dev/sda', major: 8n, minor: 0n, value: 12n };
  const { families, failures } = await measureContainers(
    [
      container('a', v1({ cpu: { usage: { total: 5n, perCpu: [2n, 3n] } }, pids: { current: 1n } })),
      container('b', v1({ pids: { current: 2n }, blkio: { ioServiceBytesRecursive: [entry] } })),
      container('gone', () => Promise.resolve(undefined)),
    ],
    log,
  );
  assert.equal(failures, 0);
  const text = await textOf(families);
  const lines = text.split('\n').filter((line) => !line.startsWith('#'));
  assert.ok(lines.includes('container_cpu_total_nanoseconds{container_id="a",namespace="n",runtime="r"} 5'));
  assert.ok(
    lines.includes('container_per_cpu_nanoseconds{container_id="a",namespace="n",runtime="r",cpu="1"} 3'),
  );
  assert.ok(
    lines.includes(
      'container_blkio_io_service_bytes_recursive_bytes{container_id="b",namespace="n",runtime="r",device="/dev/sda",major="8",minor="0",op="Read"} 12',
    ),
  );
  assert.equal(text.match(/^# TYPE container_pids_current /gm)?.length, 1);
  assert.equal(text.match(/^container_pids_current\{/gm)?.length, 2);
  assert.doesNotMatch(text, /container_id="gone"|undefined|NaN/);
});

test('cgroups of version 2 are told by containerd’s names for those, with pressure', async () => {
  const metrics = MetricsV2.fromPartial({
    cpu: { usageUsec: 7n, psi: { some: { total: 1_500_000n } } },
    memory: { usage: 4096n, usageLimit: 2n ** 64n - 1n },
    memoryEvents: { oom: 3n },
    io: { usage: [{ major: 254n, minor: 1n, rbytes: 9n }] },
  });
  const value = Buffer.from(MetricsV2.encode(metrics).finish());
  const stats = () => Promise.resolve({ typeUrl: 'io.containerd.cgroups.v2.Metrics', value });
  const text = await textOf((await measureContainers([container('c', stats)], log)).families);
  const labels = 'container_id="c",namespace="n",runtime="r"';
  for (const line of [
    `container_cpu_usage_usec_microseconds{${labels}} 7`,
    `container_memory_usage_bytes{${labels}} 4096`,
    `container_memory_usage_limit_bytes{${labels}} 18446744073709551615`,
    `container_memory_oom_total{${labels}} 3`,
    `container_io_rbytes_bytes{${labels},major="254",minor="1"} 9`,
    `container_pressure_cpu_waiting_seconds_total{${labels}} 1.5`,
  ]) {
    assert.ok(text.includes(`\n${line}\n`), line);
  }
  assert.doesNotMatch(text, /pressure_io|cpu_stalled|undefined/);
});

test('a shim that hangs, fails or answers nonsense is counted, and keeps nobody from being measured', async () => {
  const began = performance.now();
  const hangs: Measurable['stats'] = (signal) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
    });
  const { families, failures } = await measureContainers(
    [
      ...Array.from({ length: 20 }, (_, index) => container(`stuck-${index}`, hangs)),
      container('failing', () => Promise.reject(new Error('no'))),
      container('odd', () => Promise.resolve({ typeUrl: 'x', value: Buffer.alloc(0) })),
      container('fine', v1({ pids: { current: 1n } })),
    ],
    log,
  );
  assert.equal(failures, 22);
  assert.match(await textOf(families), /container_pids_current\{container_id="fine"/);
  assert.ok(performance.now() - began < 10_000);
});

test('calls are counted by method, code and time', async () => {
  const counts = new CallCounts(true);
  const method = { path: '/a.b.Things/Get', requestStream: false, responseStream: false };
  for (const code of [Code.Ok, Code.NotFound, Code.Ok]) {
    const call = counts.started(method);
    call.received();
    if (code === Code.Ok) call.sent();
    call.handled(code);
  }
  counts.started({ path: '/a.b.Things/List', requestStream: false, responseStream: true });
  const text = await textOf(counts.families());
  const labels = 'grpc_method="Get",grpc_service="a.b.Things",grpc_type="unary"';
  for (const line of [
    `grpc_server_started_total{${labels}} 3`,
    `grpc_server_handled_total{grpc_code="OK",${labels}} 2`,
    `grpc_server_handled_total{grpc_code="NotFound",${labels}} 1`,
    `grpc_server_msg_sent_total{${labels}} 2`,
    `grpc_server_handling_seconds_bucket{${labels},le="+Inf"} 3`,
    `grpc_server_handling_seconds_count{${labels}} 3`,
    'grpc_server_started_total{grpc_method="List",grpc_service="a.b.Things",grpc_type="server_stream"} 1',
  ]) {
    assert.ok(text.includes(`\n${line}\n`), line);
  }
  assert.equal(new CallCounts(false).families().at(-1)?.samples.length, 0);
});

test('an address has a port; what is none is refused with its line and key', () => {
  assert.deepEqual(parseAddress('127.0.0.1:1338'), { host: '127.0.0.1', port: 1338 });
  assert.deepEqual(parseAddress('[::1]:80'), { host: '::1', port: 80 });
  assert.deepEqual(parseAddress(':1338'), { host: undefined, port: 1338 });
  assert.deepEqual(parseAddress('localhost:0'), { host: 'localhost', port: 0 });
  for (const none of ['127.0.0.1', 'x:', ':70000', '::1:80', 'a b:1', 'http://x:1'])
    assert.equal(parseAddress(none), undefined, none);
  assert.throws(() => parseConfig('oom_score = 0\n[metrics]\n  address = "1338"\n', 'moor.toml'), {
    message: 'moor.toml:3: metrics.address must be HOST:PORT, such as "127.0.0.1:1338", not "1338"',
  });
  assert.equal(
    parseConfig('[metrics]\naddress = ":9"\ngrpc_histogram = true', 'x').metrics.grpc_histogram,
    true,
  );
});

test('a family of nothing but a value has no braces', () => {
  const text = formatFamily({ name: 'n', help: 'h', type: 'gauge', samples: [{ value: 1 }] });
  assert.equal(text, '# HELP n h\n# TYPE n gauge\nn 1\n');
});
