/** Calls of a kubelet that overlap, are cut off, and are repeated. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { ContainerState } from '../proto/gen/runtime/v1/api.ts';
import { Kubelet } from './harness/cri.ts';
import { eventually } from './harness/wait.ts';

const WAIT = { within: 60_000 };
const FOREVER = ['sleep', '1000000'];

describe('calls at once', { timeout: 240_000 }, () => {
  let kubelet: Kubelet;
  before(async () => {
    kubelet = await Kubelet.start();
  });
  after(() => kubelet?.[Symbol.asyncDispose]());
  afterEach(async () => {
    const { items } = await kubelet.runtime.listPodSandbox({});
    for (const { id } of items) await kubelet.removePod(id);
    assert.deepEqual(kubelet.left(), []);
  });

  it('of two pods with one name at once, one is made', async () => {
    const config = kubelet.pod('one');
    const outcomes = await Promise.allSettled([1, 2, 3].map(() => kubelet.runtime.runPodSandbox({ config })));
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected')
        assert.match(String(outcome.reason), /failed to reserve sandbox name "one_/);
    assert.equal((await kubelet.runtime.listPodSandbox({})).items.length, 1);
  });

  it('a pod whose client had no time for it leaves nothing, and its name is free', async () => {
    const config = kubelet.pod('late');
    for (const patience of [1, 20, 60])
      await kubelet.runtime
        .runPodSandbox({ config }, { signal: AbortSignal.timeout(patience) })
        .catch(() => undefined);
    // One that was done when its client left is there, and is what a kubelet then finds.
    const podSandboxId = await eventually(
      'the name is free',
      async () => {
        try {
          return (await kubelet.runtime.runPodSandbox({ config })).podSandboxId;
        } catch {
          const { items } = await kubelet.runtime.listPodSandbox({});
          for (const { id } of items) await kubelet.removePod(id);
          return undefined;
        }
      },
      WAIT,
    );
    const { items } = await kubelet.runtime.listPodSandbox({});
    assert.deepEqual(
      items.map(({ id }) => id),
      [podSandboxId],
    );
  });

  it('a container is stopped while it is started, and removed while a program runs in it', async () => {
    const pod = await kubelet.runPod('busy');
    const started = await kubelet.create(pod, 'started', FOREVER);
    await Promise.all([
      kubelet.runtime.startContainer({ containerId: started }),
      kubelet.runtime.stopContainer({ containerId: started, timeout: 0n }),
    ]);
    await kubelet.runtime.stopContainer({ containerId: started, timeout: 0n });
    assert.equal((await kubelet.status(started)).state, ContainerState.CONTAINER_EXITED);
    const containerId = await kubelet.run(pod, 'main', FOREVER);
    const cmd = ['sleep', '4321'];
    const program = kubelet.runtime.execSync({ containerId, cmd, timeout: 100n }).catch(() => undefined);
    await kubelet.runtime.removeContainer({ containerId });
    await program;
    const { containers } = await kubelet.runtime.listContainers({ filter: { podSandboxId: pod.id } });
    assert.deepEqual(
      containers.map(({ id }) => id),
      [started],
    );
  });
});
