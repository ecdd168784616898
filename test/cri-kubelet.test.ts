/** What a kubelet does with an ordinary pod, from its sandbox to its removal; and again with kill -9 of the daemon between any two calls. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, after, afterEach, before, describe, it } from 'node:test';
import { ContainerState, PodSandboxState, Protocol } from '../proto/gen/runtime/v1/api.ts';
import { cgroupsOf } from './harness/cgroups.ts';
import { BUSYBOX, Kubelet } from './harness/cri.ts';
import { eventually } from './harness/wait.ts';

const WAIT = { within: 60_000 };
const MEMORY = 64 << 20;

/** A page from the host's port. */
function page(host: string, port: number, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    request({ host, port, path, timeout: 10_000, agent: false }, (response) => resolve(text(response)))
      .once('error', reject)
      .end();
  });
}

describe('a kubelet’s pod', { timeout: 300_000 }, () => {
  let kubelet: Kubelet;
  before(async () => {
    kubelet = await Kubelet.start();
  });
  after(() => kubelet[Symbol.asyncDispose]());
  afterEach((context) => {
    const test = context as TestContext;
    if (!test.passed) test.diagnostic(`log of moord:\n${kubelet.daemon.tail()}`);
  });

  /** @param between is done between any two calls */
  async function journey(name: string, hostPort: number, between: () => Promise<void>): Promise<void> {
    const step = async <T>(call: () => Promise<T>): Promise<T> => {
      await between();
      return call();
    };
    const volume = join(kubelet.daemon.directory, `volume-${name}`);
    mkdirSync(volume, { recursive: true });
    const mounts = [{ containerPath: '/data', hostPath: volume }];

    await step(async () => {
      const { status } = await kubelet.runtime.status({});
      assert.ok(status!.conditions.every((condition) => condition.status));
    });
    const { image } = await step(() => kubelet.images.imageStatus({ image: { image: BUSYBOX } }));
    assert.match(image!.id, /^sha256:/);
    const pod = await step(() =>
      kubelet.runPod(name, { portMappings: [{ protocol: Protocol.TCP, containerPort: 8080, hostPort }] }),
    );
    const { network } = await step(() => kubelet.podStatus(pod.id));

    const init = await step(() =>
      kubelet.create(pod, 'init', ['sh', '-c', 'echo made by init > /data/page; echo ready; exit 3'], {
        mounts,
        image: { image: image!.id, userSpecifiedImage: BUSYBOX },
      }),
    );
    await step(() => kubelet.runtime.startContainer({ containerId: init }));
    await between();
    const ended = await eventually(
      'the init container has ended',
      async () => {
        const status = await kubelet.status(init);
        return status.state === ContainerState.CONTAINER_EXITED && status;
      },
      WAIT,
    );
    assert.deepEqual([ended.exitCode, ended.reason, ended.imageId], [3, 'Error', image!.id]);
    assert.ok(ended.finishedAt >= ended.startedAt && ended.startedAt >= ended.createdAt);

    const resources = { memoryLimitInBytes: BigInt(MEMORY), cpuShares: 102n };
    const web = await step(() =>
      kubelet.create(pod, 'web', ['httpd', '-f', '-p', '8080', '-h', '/data'], {
        mounts,
        linux: { resources },
      }),
    );
    await step(() => kubelet.runtime.startContainer({ containerId: web }));
    const side = await step(() =>
      kubelet.create(pod, 'side', ['sh', '-c', 'trap "exit 0" TERM; echo begun; while :; do sleep 1; done']),
    );
    await step(() => kubelet.runtime.startContainer({ containerId: side }));

    const probe = (containerId: string, ...cmd: string[]) =>
      step(() => kubelet.runtime.execSync({ containerId, cmd, timeout: 60n }));
    const good = await probe(web, 'cat', '/data/page');
    assert.deepEqual([good.exitCode, good.stdout.toString()], [0, 'made by init\n']);
    assert.equal((await probe(side, 'sh', '-c', 'exit 7')).exitCode, 7);
    // They share the pod's network, not their processes.
    const shared = await probe(side, 'wget', '-q', '-O', '-', 'http://127.0.0.1:8080/page');
    assert.equal(shared.stdout.toString(), 'made by init\n');
    await between();
    const outside = `${kubelet.network.prefix}.1`;
    assert.equal(
      await eventually('the port answers', () => page(outside, hostPort, '/page'), WAIT),
      'made by init\n',
    );
    const limits = cgroupsOf(kubelet.cgroup)
      .filter((path) => path.includes('/memory/') && path.endsWith(`/${web}`))
      .map((path) => readFileSync(join(path, 'memory.limit_in_bytes'), 'utf8').trim());
    assert.deepEqual(limits, [String(MEMORY)]);

    const filter = { podSandboxId: pod.id, state: { state: ContainerState.CONTAINER_RUNNING } };
    const { containers } = await step(() => kubelet.runtime.listContainers({ filter }));
    assert.deepEqual(containers.map(({ metadata }) => metadata!.name).sort(), ['side', 'web']);
    await step(() => kubelet.runtime.stopContainer({ containerId: side, timeout: 30n }));
    const stopped = await step(() => kubelet.status(side));
    assert.deepEqual([stopped.state, stopped.exitCode], [ContainerState.CONTAINER_EXITED, 0]);
    await step(() => kubelet.runtime.stopContainer({ containerId: web, timeout: 1n }));
    await step(() => kubelet.runtime.stopPodSandbox({ podSandboxId: pod.id }));
    const status = await step(() => kubelet.podStatus(pod.id));
    assert.deepEqual([status.state, status.network], [PodSandboxState.SANDBOX_NOTREADY, network]);
    const log = (container: string): string =>
      readFileSync(join(pod.config.logDirectory!, `${container}/0.log`), 'utf8');
    assert.match(log('init'), /^\S+ stdout F ready\n$/);
    assert.match(log('side'), /^\S+ stdout F begun\n$/);
    for (const containerId of [init, web, side])
      await step(() => kubelet.runtime.removeContainer({ containerId }));
    await step(() => kubelet.runtime.removePodSandbox({ podSandboxId: pod.id }));
    assert.deepEqual((await step(() => kubelet.runtime.listPodSandbox({}))).items, []);
    assert.deepEqual((await kubelet.runtime.listContainers({})).containers, []);
    assert.deepEqual(kubelet.left(), []);
    assert.deepEqual(
      cgroupsOf(kubelet.cgroup).filter((path) => /[0-9a-f]{64}$/.test(path)),
      [],
    );
  }

  const port = 20_000 + Math.floor(Math.random() * 10_000);

  it('goes from its sandbox to its removal', () => journey('calm', port, async () => undefined));

  it('goes the same way when the daemon is killed between any two calls', () =>
    journey('stormy', port + 1, () => kubelet.restart()));

  it('is removed with running containers in it', async () => {
    const pod = await kubelet.runPod('whole');
    const containerId = await kubelet.run(pod, 'main', ['sleep', '1000']);
    await kubelet.runtime.stopPodSandbox({ podSandboxId: pod.id });
    assert.equal((await kubelet.status(containerId)).state, ContainerState.CONTAINER_EXITED);
    await kubelet.runtime.removePodSandbox({ podSandboxId: pod.id });
    const running = await kubelet.runPod('running');
    await kubelet.run(running, 'main', ['sleep', '1000']);
    await kubelet.runtime.removePodSandbox({ podSandboxId: running.id });
    assert.deepEqual((await kubelet.runtime.listContainers({})).containers, []);
    assert.deepEqual(kubelet.left(), []);
  });
});
