/** What is measured: of containers through the API, and of everything by Prometheus. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { after, before, describe as group, it } from 'node:test';
import { freeze } from '../daemon/services/testing/freeze.ts';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { Metrics as MetricsV1 } from '../proto/gen/cgroups/v1.ts';
import type { Ctr } from './harness/ctr.ts';
import { Daemon, shimBinary } from './harness/daemon.ts';
import { EventStream } from './harness/events.ts';
import { suite } from './harness/peers.ts';
import { freePort } from './harness/port.ts';
import { processOf } from './harness/processes.ts';
import { eventually, soon } from './harness/wait.ts';

const PATIENT = { within: 60_000 };
const MEMORY_LIMIT = 64 << 20;

suite('task metrics', {}, (rig) => {
  const read = async (...filters: string[]) => {
    using connection = rig.daemon.connect();
    const tasks = connection.service(TasksDefinition, rig.ctr.namespace);
    const { metrics } = await tasks.metrics({ filters });
    return metrics.sort((a, b) => (a.id < b.id ? -1 : 1));
  };

  it('are those of all containers, or of the filtered ones', async () => {
    const limit = ['--memory-limit', String(MEMORY_LIMIT)];
    for (const id of ['a', 'b', 'c']) await rig.ctr.runDetached(id, ['/bin/sleep', '1000'], limit);
    assert.deepEqual(
      (await read()).map(({ id }) => id),
      ['a', 'b', 'c'],
    );
    assert.deepEqual(
      (await read('id==a', 'id==c')).map(({ id }) => id),
      ['a', 'c'],
    );
    assert.deepEqual(await read('id==nobody'), []);
    for (const id of ['a', 'b', 'c']) await rig.ctr.remove(id);
  });

  it('tell processor, memory, processes and devices of the container’s cgroups', async () => {
    const burn = 'dd if=/dev/zero of=/dev/null bs=1M count=200 2>/dev/null; sleep 1000 & sleep 1000 & wait';
    const flags = ['--memory-limit', String(MEMORY_LIMIT)];
    await rig.ctr.runDetached('busy', ['/bin/sh', '-c', burn], flags);
    const metrics = await eventually(
      'it has burnt',
      async () => {
        const [metric] = await read('id==busy');
        const now = MetricsV1.decode(metric?.data?.value ?? Buffer.alloc(0));
        return now.pids?.current === 3n ? now : undefined;
      },
      PATIENT,
    );
    assert.equal(metrics.pids?.current, 3n);
    assert.ok((metrics.cpu?.usage?.total ?? 0n) > 1_000_000n, String(metrics.cpu?.usage?.total));
    assert.ok((metrics.cpu?.usage?.perCpu.length ?? 0) > 0);
    assert.equal(metrics.memory?.usage?.limit, BigInt(MEMORY_LIMIT));
    assert.ok((metrics.memory?.usage?.max ?? 0n) > 0n);
    assert.ok((metrics.memory?.totalPgFault ?? 0n) > 0n);
    await rig.ctr.remove('busy');
  });

  it('a container that overruns its memory is seen by subscribers, and by its counters', async () => {
    using events = await EventStream.open(rig.ctr);
    const starve = 'tail /dev/zero; echo $?; exec sleep 1000';
    await rig.ctr.runDetached('starved', ['/bin/sh', '-c', starve], ['--memory-limit', '16777216']);
    await events.sees('starved', '/tasks/oom', PATIENT);
    if (rig.peer === 'moord') {
      const [metric] = await read('id==starved');
      assert.ok((MetricsV1.decode(metric!.data!.value).memoryOomControl?.oomKill ?? 0n) >= 1n);
    }
    assert.deepEqual(events.of('starved', '/tasks/exit'), []);
    await rig.ctr.remove('starved');
  });
});

group('the metrics endpoint', { timeout: 300_000 }, () => {
  let daemon: Daemon;
  let ctr: Ctr;
  let url: string;
  before(async () => {
    const address = `127.0.0.1:${await freePort()}`;
    daemon = await Daemon.start('moord', {
      config: `[metrics]\naddress = "${address}"\ngrpc_histogram = true\n`,
    });
    ctr = daemon.ctr();
    url = `http://${address}/v1/metrics`;
  });
  after(async () => {
    await daemon?.stop();
  });

  const scrape = async () => {
    const response = await fetch(url);
    assert.equal(response.status, 200);
    return { text: await response.text(), headers: response.headers };
  };

  it('tells of containers, calls and the daemon in Prometheus’ format', async () => {
    await ctr.runDetached('seen', ['/bin/sleep', '1000'], ['--memory-limit', String(MEMORY_LIMIT)]);
    const { text, headers } = await scrape();
    assert.match(headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
    const labels = `container_id="seen",namespace="${ctr.namespace}",runtime="io.containerd.runc.v2"`;
    for (const sample of [
      `container_pids_current{${labels}} 1`,
      `container_memory_usage_limit_bytes{${labels}} ${MEMORY_LIMIT}`,
      `container_memory_oom_total{${labels}} 0`,
      'moor_tasks 1',
      'moor_scrape_failures 0',
      'grpc_server_handled_total{grpc_code="OK",grpc_method="Create",grpc_service="containerd.services.tasks.v1.Tasks",grpc_type="unary"} 1',
    ]) {
      assert.ok(text.includes(`\n${sample}\n`), `${sample}\n${text.slice(0, 500)}`);
    }
    for (const name of [
      'container_cpu_total_nanoseconds',
      'container_per_cpu_nanoseconds',
      'container_memory_usage_usage_bytes',
      'container_memory_total_rss_bytes',
      'containerd_build_info_total',
      'grpc_server_handling_seconds_bucket',
      'process_cpu_seconds_total',
      'process_open_fds',
      'process_resident_memory_bytes',
      'moor_content_bytes',
      'moor_gc_runs_total',
      'moor_events_published_total',
      'moor_shims_started_total',
    ]) {
      assert.match(text, new RegExp(`^${name}(?:\\{.*\\})? [\\d.e+-]+$`, 'm'));
    }
    assert.ok(
      text.split('\n').every((line) => /^(#.*|[a-z_]+(\{[^}]*\})? (\+Inf|[\d.e+-]+)|)$/.test(line)),
      'every line is a comment or a sample',
    );
    const names = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
    assert.deepEqual(names, [...new Set(names)], 'no family comes twice');
    await ctr.remove('seen');
  });

  it('has nothing else, and nothing to be changed', async () => {
    assert.equal((await fetch(url.replace('/v1/metrics', '/'))).status, 404);
    const posted = await fetch(url, { method: 'POST', body: 'x' });
    assert.deepEqual([posted.status, posted.headers.get('allow')], [405, 'GET, HEAD']);
    const head = await fetch(url, { method: 'HEAD' });
    assert.deepEqual([head.status, await head.text()], [200, '']);
  });

  it('a stuck shim does not hold up a scrape, and is counted', async () => {
    await ctr.runDetached('stuck', ['/bin/sleep', '1000']);
    await ctr.runDetached('well', ['/bin/sleep', '1000']);
    const pid = (await ctr.task('stuck'))?.pid ?? 0;
    const shim = processOf(pid)?.parent ?? 0;
    await freeze(shim);
    try {
      const { text } = await soon('a scrape', scrape(), { within: 15_000 });
      assert.match(text, /^moor_scrape_failures 1$/m);
      assert.match(text, /^container_pids_current\{container_id="well"/m);
      assert.doesNotMatch(text, /container_id="stuck"/);
    } finally {
      process.kill(shim, 'SIGCONT');
    }
    process.kill(shim, 'SIGKILL');
    const { text } = await soon('another', scrape(), { within: 15_000 });
    assert.match(text, /^container_pids_current\{container_id="well"/m);
    for (const id of ['stuck', 'well']) await ctr.remove(id);
  });

  it('ten scrapers at once are answered, and one that leaves is not missed', async () => {
    const leaving = new AbortController();
    const left = fetch(url, { signal: leaving.signal }).catch(() => undefined);
    leaving.abort();
    await left;
    const texts = await Promise.all(Array.from({ length: 10 }, scrape));
    assert.ok(texts.every(({ text }) => text.includes('moor_scrape_seconds')));
  });

  it('a foreign runtime’s containers are told of by its name', async () => {
    await ctr.runDetached('foreign', ['/bin/sleep', '1000'], ['--runtime', shimBinary.containerd]);
    const { text } = await scrape();
    assert.match(
      text,
      new RegExp(
        `^container_pids_current\\{container_id="foreign",.*runtime="${shimBinary.containerd}"\\} 1$`,
        'm',
      ),
    );
    assert.match(text, /^moor_shims_started_total\{how="foreign"\} 1$/m);
    await ctr.remove('foreign');
  });

  it('is there again after the daemon was killed', async () => {
    await daemon.kill9();
    await daemon.start();
    assert.match((await scrape()).text, /^moor_tasks 0$/m);
  });
});

group('a port that is taken', { timeout: 120_000 }, () => {
  it('is reported, and the daemon goes on without; unless the plugin is required', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const address = `127.0.0.1:${(taken.address() as AddressInfo).port}`;
    const config = `[metrics]\naddress = "${address}"\n`;
    try {
      await using daemon = await Daemon.start('moord', { config });
      const ctr = daemon.ctr();
      assert.match(await ctr.ok('plugins', 'ls'), /^io\.containerd\.monitor\.v1\s+cgroups\s+\S+\s+error/m);
      const told = await ctr.ok('plugins', 'ls', '-d', 'id==cgroups');
      assert.ok(told.includes(`metrics cannot be served at ${address}`) && told.includes('EADDRINUSE'), told);
      assert.ok(readFileSync(daemon.log, 'utf8').includes('the daemon goes on without it'));
      assert.equal((await ctr.run('works', ['/bin/true'], ['--rm'])).code, 0);
      const required = `required_plugins = ["io.containerd.monitor.v1.cgroups"]\n${config}`;
      await assert.rejects(
        Daemon.start('moord', { config: required }),
        /required plugin io\.containerd\.monitor\.v1\.cgroups: metrics cannot be served/,
      );
    } finally {
      taken.close();
    }
  });
});
