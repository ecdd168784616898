/** What the public conformance suite for the CRI (critest) asks of pods and containers, as far as no other suite here asks it. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, afterEach, before, describe, it } from 'node:test';
import { METRICS } from '../daemon/cri/metrics.ts';
import { SpdyClient } from '../daemon/cri/streaming/testing/spdy-client.ts';
import {
  CgroupDriver,
  ContainerState,
  NamespaceMode,
  PodSandboxState,
  Protocol,
} from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import { BUSYBOX, Kubelet, type RunningPod } from './harness/cri.ts';
import { eventually } from './harness/wait.ts';

const WAIT = { within: 60_000 };
const FOREVER = ['sleep', '1000000'];
const MiB = 1n << 20n;

/** Those that the suite lets a runtime go without. */
const OPTIONAL_METRICS =
  /_(?:hugetlb|pressure|blkio)_|_fs_(?:reads|writes)_|_spec_cpu_quota|_reservation_limit/;

describe('a runtime that keeps to the contract', { timeout: 300_000 }, () => {
  let kubelet: Kubelet;
  before(async () => {
    kubelet = await Kubelet.start();
  });
  after(() => kubelet[Symbol.asyncDispose]());
  afterEach(async () => {
    const { items } = await kubelet.runtime.listPodSandbox({});
    for (const { id } of items) await kubelet.removePod(id);
    assert.deepEqual(kubelet.left(), []);
  });

  const exec = async (containerId: string, ...cmd: string[]): Promise<string> => {
    const { stdout, stderr, exitCode } = await kubelet.runtime.execSync({ containerId, cmd, timeout: 60n });
    assert.deepEqual([exitCode, stderr.toString()], [0, ''], cmd.join(' '));
    return stdout.toString();
  };
  const exitOf = (id: string) =>
    eventually(
      `the end of ${id}`,
      async () => {
        const status = await kubelet.status(id);
        return status.state === ContainerState.CONTAINER_EXITED && status;
      },
      WAIT,
    );
  const logOf = (pod: RunningPod, name: string): string =>
    readFileSync(join(pod.config.logDirectory!, `${name}/0.log`), 'utf8');
  const page = (host: string, port: number): Promise<string> =>
    eventually(
      `${host}:${port} answers`,
      () =>
        new Promise<string>((resolve, reject) => {
          const get = { host, port, path: '/page', timeout: 10_000, agent: false };
          request(get, (answer) => resolve(text(answer)))
            .once('error', reject)
            .end();
        }).catch(() => ''),
      WAIT,
    );
  const serve = (port: string): string[] => [
    'sh',
    '-c',
    `mkdir /www; echo served > /www/page; exec httpd -f -p ${port} -h /www`,
  ];
  const freePort = (): number => 20_000 + Math.floor(Math.random() * 10_000);

  /** A page by port-forward, as kubectl fetches it. */
  async function forwarded(podSandboxId: string, port: number): Promise<string> {
    const { url } = await kubelet.runtime.portForward({ podSandboxId });
    const client = await SpdyClient.connect(url, 'portforward.k8s.io');
    const headers = { port: String(port), requestid: '0' };
    const error = await client.open({ ...headers, streamtype: 'error' });
    const data = await client.open({ ...headers, streamtype: 'data' });
    data.write('GET /page HTTP/1.0\r\n\r\n');
    const answer = await data.output;
    data.end();
    assert.equal(await error.output, '');
    client.socket.destroy();
    return answer;
  }

  it('a pod and a container of nothing but what must be said', async () => {
    const { runtime } = kubelet;
    const metadata = { name: 'barest', uid: 'uid-1', namespace: 'space', attempt: 2 };
    const config = { metadata, linux: { cgroupParent: `/${kubelet.cgroup}/barest` } };
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    const { items } = await runtime.listPodSandbox({ filter: { id: podSandboxId } });
    assert.deepEqual(
      items.map(({ metadata, state }) => [metadata, state]),
      [[metadata, PodSandboxState.SANDBOX_READY]],
    );
    const { containerId } = await runtime.createContainer({
      podSandboxId,
      config: {
        metadata: { name: 'main', attempt: 1 },
        image: { image: BUSYBOX },
        command: ['sh', '-c', 'echo nobody keeps this; exec sleep 1000000'],
      },
      sandboxConfig: config,
    });
    await runtime.startContainer({ containerId });
    const { state, logPath, mounts } = await kubelet.status(containerId);
    assert.deepEqual([state, logPath, mounts], [ContainerState.CONTAINER_RUNNING, '', []]);
    assert.equal(await exec(containerId, 'echo', '-n', 'hello'), 'hello');
    await runtime.stopContainer({ containerId, timeout: 1n });
    const { exitCode, reason } = await kubelet.status(containerId);
    // It shares the pod's processes, so that it is not the first, which would be deaf to SIGTERM.
    assert.deepEqual([exitCode, reason], [143, 'Error']);
  });

  it('status says what the node is and where it has its files', async () => {
    const { runtime } = kubelet;
    const { status, runtimeHandlers, features, info } = await runtime.status({ verbose: true });
    assert.deepEqual(
      status!.conditions.map(({ type, status: isMet }) => [type, isMet]),
      [
        ['RuntimeReady', true],
        ['NetworkReady', true],
      ],
    );
    assert.ok(runtimeHandlers.some(({ name, features: of }) => name === '' && of !== undefined));
    assert.equal(features?.supplementalGroupsPolicy, true);
    const { stateDir, rootDir } = JSON.parse(info['config']!) as { stateDir: string; rootDir: string };
    assert.deepEqual(
      [stateDir, rootDir],
      [join(kubelet.daemon.state, 'cri'), join(kubelet.daemon.root, 'cri')],
    );
    const { linux } = await runtime.runtimeConfig({});
    assert.equal(linux?.cgroupDriver, CgroupDriver.CGROUPFS);
    const version = await runtime.version({ version: '' });
    assert.deepEqual([version.runtimeApiVersion, version.runtimeName], ['v1', 'moor']);
  });

  it('a container with a link of the host as volume, and statistics by id, label and pod', async () => {
    const pod = await kubelet.runPod('listed');
    const volume = join(kubelet.daemon.directory, 'linked');
    mkdirSync(volume);
    writeFileSync(join(volume, 'flag'), '');
    symlinkSync(volume, `${volume}-link`);
    const one = await kubelet.run(pod, 'one', FOREVER, {
      labels: { foo: 'bar' },
      mounts: [{ hostPath: `${volume}-link`, containerPath: `${volume}-link` }],
    });
    assert.equal(await exec(one, 'ls', '-A', `${volume}-link`), 'flag\n');
    const [mount] = (await kubelet.status(one)).mounts;
    assert.deepEqual([mount!.hostPath, mount!.containerPath], [`${volume}-link`, `${volume}-link`]);
    const two = await kubelet.run(pod, 'two', FOREVER);
    const found = async (filter?: object) => {
      const { stats } = await kubelet.runtime.listContainerStats({ filter });
      for (const { cpu, memory } of stats) assert.ok(cpu!.timestamp > 0n && memory!.timestamp > 0n);
      return stats.map(({ attributes }) => attributes!.metadata!.name).sort();
    };
    assert.deepEqual(await found(), ['one', 'two']);
    assert.deepEqual(await found({ id: two }), ['two']);
    assert.deepEqual(await found({ labelSelector: { foo: 'bar' } }), ['one']);
    assert.deepEqual(await found({ labelSelector: { foo: 'baz' } }), []);
    assert.deepEqual(await found({ podSandboxId: pod.id }), ['one', 'two']);
  });

  it('lists come in streams as well', async () => {
    const pod = await kubelet.runPod('streamed', { labels: { stream: 'yes' } });
    const id = await kubelet.run(pod, 'main', FOREVER);
    const { runtime } = kubelet;
    const collected = async <M, T>(stream: AsyncIterable<M>, take: (message: M) => T[]): Promise<T[]> => {
      const all: T[] = [];
      for await (const message of stream) all.push(...take(message));
      return all;
    };
    const pods = (filter: object) =>
      collected(runtime.streamPodSandboxes({ filter }), ({ podSandboxes }) =>
        podSandboxes.map((each) => each.id),
      );
    assert.deepEqual(await pods({ id: pod.id }), [pod.id]);
    assert.deepEqual(await pods({ labelSelector: { stream: 'yes' } }), [pod.id]);
    assert.deepEqual(await pods({ labelSelector: { stream: 'no' } }), []);
    assert.deepEqual(await pods({ id: 'non-existent-id' }), []);
    const running = { state: { state: ContainerState.CONTAINER_RUNNING } };
    const containers = (filter: object) =>
      collected(runtime.streamContainers({ filter }), (message) => message.containers.map((each) => each.id));
    assert.deepEqual(await containers(running), [id]);
    assert.deepEqual(await containers({ podSandboxId: pod.id }), [id]);
    const stats = runtime.streamContainerStats({ filter: { id } });
    assert.deepEqual(
      await collected(stats, ({ containerStats }) => containerStats.map(({ attributes }) => attributes!.id)),
      [id],
    );
    const podStats = runtime.streamPodSandboxStats({ filter: { id: pod.id } });
    assert.deepEqual(
      await collected(podStats, ({ podSandboxStats }) =>
        podSandboxStats.map(({ attributes }) => attributes!.id),
      ),
      [pod.id],
    );
    const metrics = runtime.streamPodSandboxMetrics({});
    assert.deepEqual(
      await collected(metrics, ({ podSandboxMetrics }) => podSandboxMetrics.map((each) => each.podSandboxId)),
      [pod.id],
    );
  });

  it('every metric that is described is told of a container with limits', async () => {
    const { runtime } = kubelet;
    const pod = await kubelet.runPod('metered');
    const containerId = await kubelet.run(pod, 'main', FOREVER, {
      linux: {
        resources: {
          cpuPeriod: 100_000n,
          cpuQuota: 20_000n,
          cpuShares: 1024n,
          memoryLimitInBytes: 64n * MiB,
          memorySwapLimitInBytes: 64n * MiB,
        },
      },
    });
    await exec(containerId, 'sh', '-c', 'mkdir /d; for i in 1 2 3 4 5; do echo hi > /d/$i; done; sync');
    const { descriptors } = await runtime.listMetricDescriptors({});
    assert.deepEqual(descriptors.map(({ name }) => name).sort(), METRICS.map(({ name }) => name).sort());
    assert.equal(new Set(descriptors.map(({ name }) => name)).size, descriptors.length);
    const { podMetrics } = await runtime.listPodSandboxMetrics({});
    const own = podMetrics.find(({ podSandboxId }) => podSandboxId === pod.id)!;
    const told = [...own.metrics, ...own.containerMetrics.flatMap(({ metrics }) => metrics)];
    for (const { name, help, labelKeys } of descriptors) {
      assert.ok(help !== '' && labelKeys.length > 0, name);
      const readings = told.filter((each) => each.name === name);
      assert.ok(readings.length > 0 || OPTIONAL_METRICS.test(name), `${name} is told`);
      for (const { labelValues } of readings) assert.equal(labelValues.length, labelKeys.length, name);
    }
    const [of] = own.containerMetrics;
    const value = (name: string) =>
      of!.metrics.find((each) => each.name === `container_${name}`)?.value?.value;
    assert.deepEqual(
      ['spec_cpu_period', 'spec_cpu_quota', 'spec_cpu_shares', 'spec_memory_limit_bytes'].map(value),
      [100_000n, 20_000n, 1024n, 64n * MiB],
    );
    assert.equal(value('spec_memory_swap_limit_bytes'), 64n * MiB);
    assert.equal(value('processes'), 1n);
    const { stdout } = await runtime.execSync({ containerId, cmd: ['sh', '-c', 'ulimit -n'], timeout: 60n });
    assert.equal(String(value('ulimits_soft')), stdout.toString().trim());
    assert.ok(value('file_descriptors')! >= 3n);
    assert.ok(value('fs_limit_bytes')! > 0n && value('fs_inodes_total')! >= value('fs_inodes_free')!);
  });

  it('resolver, hostname and sysctls are what the container sees', async () => {
    const pod = await kubelet.runPod('named', {
      hostname: 'test-hostname',
      dnsConfig: { servers: ['10.10.10.10'], searches: ['example.com'], options: ['ndots:8'] },
      linux: { sysctls: { 'kernel.shm_rmid_forced': '1', 'fs.mqueue.msg_max': '100' } },
    });
    const id = await kubelet.run(pod, 'main', FOREVER);
    const resolver = await exec(id, 'cat', '/etc/resolv.conf');
    for (const line of ['nameserver 10.10.10.10', 'search example.com', 'options ndots:8'])
      assert.ok(resolver.includes(line), line);
    assert.equal(await exec(id, 'hostname'), 'test-hostname\n');
    assert.equal(await exec(id, 'cat', '/proc/sys/kernel/shm_rmid_forced'), '1\n');
    assert.equal(await exec(id, 'cat', '/proc/sys/fs/mqueue/msg_max'), '100\n');
  });

  it('a web server is reached at its pod’s address, at a port of the node, and by port-forward', async () => {
    const hostPort = freePort();
    const pod = await kubelet.runPod('web', {
      portMappings: [
        { protocol: Protocol.TCP, containerPort: 80, hostPort },
        { protocol: Protocol.TCP, containerPort: 81 },
      ],
    });
    await kubelet.run(pod, 'server', serve('80'));
    const { network } = await kubelet.podStatus(pod.id);
    assert.equal(await page(network!.ip, 80), 'served\n');
    assert.equal(await page('127.0.0.1', hostPort), 'served\n');
    assert.match(await forwarded(pod.id, 80), /200 OK.*\r\n\r\nserved\n$/s);
  });

  it('a web server in the node’s network is reached by port-forward', async () => {
    const port = freePort();
    const pod = await kubelet.runPod('node-web', {
      linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } },
      portMappings: [{ protocol: Protocol.TCP, containerPort: port }],
    });
    await kubelet.run(pod, 'server', serve(`127.0.0.1:${port}`));
    assert.equal(await page('127.0.0.1', port), 'served\n');
    assert.match(await forwarded(pod.id, port), /\r\n\r\nserved\n$/);
  });

  it('a command with a terminal ends although its client keeps the input open', async () => {
    const pod = await kubelet.runPod('terminal');
    const containerId = await kubelet.run(pod, 'main', FOREVER);
    const cmd = ['echo', '-n', 'hello'];
    const { url } = await kubelet.runtime.exec({ containerId, cmd, tty: true, stdin: true, stdout: true });
    const client = await SpdyClient.connect(url, 'v4.channel.k8s.io');
    const error = await client.open({ streamtype: 'error' });
    await client.open({ streamtype: 'stdin' });
    const stdout = await client.open({ streamtype: 'stdout' });
    await client.open({ streamtype: 'resize' });
    assert.equal(await stdout.output, 'hello');
    assert.match(await error.output, /Success/);
    client.socket.destroy();
  });

  it('a shell that is attached to ends with its input', async () => {
    const pod = await kubelet.runPod('attached');
    const containerId = await kubelet.run(pod, 'shell', ['/bin/sh'], { stdin: true, stdinOnce: true });
    const { url } = await kubelet.runtime.attach({ containerId, stdin: true, stdout: true, stderr: true });
    const client = await SpdyClient.connect(url, 'v4.channel.k8s.io');
    await client.open({ streamtype: 'error' });
    const stdin = await client.open({ streamtype: 'stdin' });
    const stdout = await client.open({ streamtype: 'stdout' });
    const stderr = await client.open({ streamtype: 'stderr' });
    stdin.write('echo -n hello\n');
    await stdout.received('hello');
    stdin.end();
    assert.deepEqual([await stdout.output, await stderr.output], ['hello', '']);
    assert.equal((await exitOf(containerId)).exitCode, 0);
    client.socket.destroy();
  });

  it('a user namespace is the pod’s or the node’s, with one mapping that has root', async () => {
    const ids = [{ hostId: 1000, containerId: 0, length: 100_000 }];
    const options = (mode: NamespaceMode, mappings: typeof ids = []) => ({
      usernsOptions: { mode, uids: mappings, gids: mappings },
    });
    const withOptions = (namespaceOptions: object) => ({ linux: { securityContext: { namespaceOptions } } });
    for (const [mode, mappings] of [
      [NamespaceMode.POD, [...ids, { ...ids[0]!, hostId: 2000 }]],
      [NamespaceMode.POD, [{ ...ids[0]!, containerId: 1 }]],
      [NamespaceMode.POD, []],
      [NamespaceMode.CONTAINER, []],
      [NamespaceMode.TARGET, []],
      [NamespaceMode.NODE, ids],
    ] as const)
      await assert.rejects(kubelet.runPod('wrong', withOptions(options(mode, [...mappings]))), {
        code: Code.InvalidArgument,
      });
    assert.deepEqual((await kubelet.runtime.listPodSandbox({})).items, []);
    const expected = [
      [NamespaceMode.POD, ids, /stdout F\s+0\s+1000\s+100000$/m],
      [NamespaceMode.NODE, [], /stdout F\s+0\s+0\s+4294967295$/m],
    ] as const;
    for (const [mode, mappings, map] of expected) {
      const namespaceOptions = options(mode, [...mappings]);
      const pod = await kubelet.runPod(`mapped-${mode}`, withOptions(namespaceOptions));
      const security = withOptions(namespaceOptions);
      const id = await kubelet.run(pod, 'main', ['cat', '/proc/self/uid_map'], security);
      assert.equal((await exitOf(id)).exitCode, 0);
      assert.match(logOf(pod, 'main'), map);
    }
  });
});
