/** kill -9 of the daemon at every step of a pod's life: what was half-made is undone, what was half-removed is removed. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { PodStep } from '../daemon/failpoint.ts';
import { PodSandboxState } from '../proto/gen/runtime/v1/api.ts';
import { Kubelet, PLUGINS, type RunningPod } from './harness/cri.ts';
import { eventually } from './harness/wait.ts';

const WAIT = { within: 60_000 };
const points = '/tmp/moor-points-' + String(process.pid);

const making: readonly PodStep[] = [
  'pod-recorded',
  'pod-files-made',
  'pod-netns-made',
  'pod-attached',
  'pod-registered',
  'pod-snapshot-made',
  'pod-task-created',
  'pod-task-started',
];
const stopping: readonly PodStep[] = [
  'pod-ended',
  'pod-task-deleted',
  'pod-detached',
  'pod-netns-removed',
  'pod-stopped',
];
const removing: readonly PodStep[] = ['pod-removing', 'pod-cleared'];

describe('pods and kill -9 of the daemon', { timeout: 300_000 }, () => {
  let kubelet: Kubelet;
  let calls: string;

  before(async () => {
    writeFileSync(points, '');
    kubelet = await Kubelet.start({ env: { MOOR_FAILPOINTS: points } });
    calls = join(kubelet.binaries, 'calls');
    mkdirSync(kubelet.binaries, { recursive: true });
    // Stands before Debian's, and notes what it is asked.
    const script = `#!/bin/sh\necho "$CNI_COMMAND $CNI_CONTAINERID" >> ${calls}\nexec ${PLUGINS}/bridge\n`;
    writeFileSync(join(kubelet.binaries, 'bridge'), script);
    chmodSync(join(kubelet.binaries, 'bridge'), 0o755);
    writeFileSync(calls, '');
  });
  after(async () => {
    rmSync(points, { force: true });
    await kubelet[Symbol.asyncDispose]();
  });

  /** Kills the daemon at a step of what is called, and starts it again. */
  const killedAt = async (step: PodStep, call: () => Promise<unknown>): Promise<void> => {
    writeFileSync(points, `${step}=kill`);
    await assert.rejects(call());
    await kubelet.daemon.ended();
    writeFileSync(points, '');
    await kubelet.restart();
  };

  /** Every ADD has had its DEL, and nothing else has had one. */
  const assertDetached = (): void => {
    const attached = new Set<string>();
    for (const line of readFileSync(calls, 'utf8').trim().split('\n')) {
      const [command, id] = line.split(' ') as [string, string];
      if (command === 'ADD') attached.add(id);
      if (command === 'DEL') assert.ok(attached.has(id), `DEL of ${id} without an ADD`);
    }
    const last = new Map(
      readFileSync(calls, 'utf8')
        .trim()
        .split('\n')
        .map((line) => line.split(' ').reverse() as [string, string]),
    );
    for (const id of attached) assert.equal(last.get(id), 'DEL', `${id} is still attached`);
  };

  const nothingLeft = async (): Promise<void> => {
    await eventually('nothing is left', () => assert.deepEqual(kubelet.left(), []) === undefined, WAIT);
    assertDetached();
  };

  for (const step of making)
    it(`while it is made, at ${step}`, async () => {
      let pod: RunningPod['config'] | undefined;
      await killedAt(step, async () => {
        pod = kubelet.pod('half');
        await kubelet.runtime.runPodSandbox({ config: pod });
      });
      assert.deepEqual((await kubelet.runtime.listPodSandbox({})).items, []);
      // Its name is free.
      const { podSandboxId } = await kubelet.runtime.runPodSandbox({ config: pod! });
      await kubelet.removePod(podSandboxId);
      await nothingLeft();
    });

  it('when it is ready, but the call has no answer', async () => {
    await killedAt('pod-ready', () => kubelet.runPod('ready'));
    const { items } = await kubelet.runtime.listPodSandbox({});
    assert.deepEqual(
      items.map(({ state }) => state),
      [PodSandboxState.SANDBOX_READY],
    );
    await kubelet.removePod(items[0]!.id);
    await nothingLeft();
  });

  for (const step of stopping)
    it(`while it is stopped, at ${step}`, async () => {
      const { id } = await kubelet.runPod('stopping');
      await killedAt(step, () => kubelet.runtime.stopPodSandbox({ podSandboxId: id }));
      assert.equal((await kubelet.podStatus(id)).state, PodSandboxState.SANDBOX_NOTREADY);
      await kubelet.removePod(id);
      await nothingLeft();
    });

  for (const step of removing)
    it(`while it is removed, at ${step}`, async () => {
      const pod = await kubelet.runPod('removing');
      await killedAt(step, () => kubelet.removePod(pod.id));
      await nothingLeft();
      const { podSandboxId } = await kubelet.runtime.runPodSandbox({ config: pod.config });
      await kubelet.removePod(podSandboxId);
    });
});
