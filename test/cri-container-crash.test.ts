/** kill -9 of the daemon at every step of a container's life, and steps that fail: nothing is half-there, and nothing is left. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { PodContainerStep, TaskStep } from '../daemon/failpoint.ts';
import { ContainerState } from '../proto/gen/runtime/v1/api.ts';
import { BUSYBOX, Kubelet, type RunningPod } from './harness/cri.ts';
import { eventually } from './harness/wait.ts';

const WAIT = { within: 60_000 };
const points = `/tmp/moor-container-points-${process.pid}`;
const FOREVER = ['sleep', '1000000'];
/** With a volume of an image, so that there is something mounted. */
const VOLUME = { mounts: [{ image: { image: BUSYBOX }, containerPath: '/image', readonly: true }] };

const making: readonly PodContainerStep[] = [
  'pod-container-recorded',
  'pod-container-snapshot-made',
  'pod-container-made',
];
const starting: readonly (PodContainerStep | TaskStep)[] = [
  'bundle-made',
  'shim-started',
  'container-created',
  'pod-container-task-made',
];
const removing: readonly PodContainerStep[] = [
  'pod-container-doomed',
  'pod-container-unmounted',
  'pod-container-cleared',
];

describe('containers of pods and kill -9 of the daemon', { timeout: 300_000 }, () => {
  let kubelet: Kubelet;
  let pod: RunningPod;

  before(async () => {
    writeFileSync(points, '');
    kubelet = await Kubelet.start({ env: { MOOR_FAILPOINTS: points } });
    pod = await kubelet.runPod('crash');
  });
  after(async () => {
    rmSync(points, { force: true });
    await kubelet[Symbol.asyncDispose]();
  });

  /** Kills the daemon at a step of what is called, and starts it again. */
  const killedAt = async (step: string, call: () => Promise<unknown>): Promise<void> => {
    writeFileSync(points, `${step}=kill`);
    await assert.rejects(call());
    await kubelet.daemon.ended();
    writeFileSync(points, '');
    await kubelet.restart();
  };
  const create = (name = 'half') => kubelet.create(pod, name, FOREVER, VOLUME);
  const listed = async () => (await kubelet.runtime.listContainers({})).containers;
  const start = (containerId: string) => kubelet.runtime.startContainer({ containerId });
  const remove = (containerId: string) => kubelet.runtime.removeContainer({ containerId });
  const nothingLeft = () =>
    eventually(
      'nothing is left of containers',
      async () => {
        const { left } = await leftOver();
        assert.deepEqual(left, []);
        return true;
      },
      WAIT,
    );
  const leftOver = async () => {
    const state = join(kubelet.daemon.directory, 'state');
    const names = (path: string) => {
      try {
        return readdirSync(path);
      } catch {
        return [];
      }
    };
    const active = (await kubelet.ctr().ok('snapshots', 'ls'))
      .split('\n')
      .filter((line) => / (Active|View)\s*$/.test(line));
    return {
      left: [
        ...(await listed()).map(({ id }) => `container ${id}`),
        ...names(join(state, 'cri/volumes')).map((name) => `volumes ${name}`),
        ...names(join(state, 'cri/execs')).map((name) => `exec ${name}`),
        ...names(join(state, 'tasks/k8s.io'))
          .filter((name) => name !== pod.id)
          .map((name) => `task ${name}`),
        ...active.filter((line) => !line.startsWith(pod.id)).map((line) => `snapshot ${line}`),
      ],
    };
  };

  for (const step of making) {
    it(`while it is made, at ${step}: it never was`, async () => {
      await killedAt(step, create);
      assert.deepEqual(await listed(), []);
      const id = await create();
      await start(id);
      await remove(id);
      await nothingLeft();
    });
    it(`${step} fails: it never was`, async () => {
      writeFileSync(points, `${step}=fail`);
      await assert.rejects(create(), /failed at/);
      writeFileSync(points, '');
      await nothingLeft();
    });
  }

  it('one that was half-made is not seen when it cannot be undone yet either', async () => {
    writeFileSync(points, 'pod-container-made=kill');
    await assert.rejects(create());
    await kubelet.daemon.ended();
    writeFileSync(points, 'pod-container-unmounted=fail');
    await kubelet.restart();
    const log = () => readFileSync(kubelet.daemon.log, 'utf8');
    await eventually(
      'it is tried',
      () => log().includes('what was begun with a pod cannot be finished yet'),
      WAIT,
    );
    assert.deepEqual(await listed(), []);
    writeFileSync(points, '');
    await kubelet.restart();
    await nothingLeft();
  });

  for (const step of starting)
    it(`while it is started, at ${step}: it can be started`, async () => {
      const id = await create();
      await killedAt(step, () => start(id));
      const { state } = await kubelet.status(id);
      assert.equal(state, ContainerState.CONTAINER_CREATED);
      await start(id);
      assert.equal((await kubelet.status(id)).state, ContainerState.CONTAINER_RUNNING);
      await remove(id);
      await nothingLeft();
    });

  it('when it runs, but nobody has been told', async () => {
    const id = await create();
    await killedAt('pod-container-started', () => start(id));
    const running = async () => (await kubelet.status(id)).state === ContainerState.CONTAINER_RUNNING;
    await eventually('it is known to run', running, WAIT);
    await kubelet.runtime.execSync({ containerId: id, cmd: ['true'], timeout: 30n });
    await kubelet.runtime.stopContainer({ containerId: id, timeout: 0n });
    assert.equal((await kubelet.status(id)).exitCode, 137);
    await remove(id);
    await nothingLeft();
  });

  it('when it has ended: with the code it ended with', async () => {
    const id = await kubelet.create(pod, 'ended', ['sh', '-c', 'read x; exit 5'], { stdin: true });
    await start(id);
    await killedAt('pod-container-ended', () =>
      kubelet.runtime.stopContainer({ containerId: id, timeout: 0n }),
    );
    const { state, exitCode } = await kubelet.status(id);
    assert.deepEqual([state, exitCode], [ContainerState.CONTAINER_EXITED, 137]);
    await remove(id);
    await nothingLeft();
  });

  it('while a program runs in it: the program is ended', async () => {
    const id = await create();
    await start(id);
    const cmd = ['sleep', '54321'];
    await killedAt('process-started', () => kubelet.runtime.execSync({ containerId: id, cmd, timeout: 0n }));
    const look = ['sh', '-c', 'ps | grep -v grep | grep -c "sleep 54321" || true'];
    const gone = async () => {
      const { stdout } = await kubelet.runtime.execSync({ containerId: id, cmd: look, timeout: 30n });
      return stdout.toString().trim() === '0';
    };
    await eventually('the program is gone', gone, WAIT);
    await remove(id);
    await nothingLeft();
  });

  for (const step of removing)
    it(`while it is removed, at ${step}: it is`, async () => {
      const id = await create('removing');
      await start(id);
      await killedAt(step, () => remove(id));
      await nothingLeft();
      await remove(await create('removing'));
    });
});
