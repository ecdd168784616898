/** Pods on nodes whose network is not there yet, fails, or hangs. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { NamespaceMode, PodSandboxState } from '../proto/gen/runtime/v1/api.ts';
import { Kubelet, PLUGINS } from './harness/cri.ts';
import { failureOf } from './harness/rpc.ts';
import { eventually } from './harness/wait.ts';

const WAIT = { within: 60_000 };
const onNode = { linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } } };

describe('networks of pods', { timeout: 240_000 }, () => {
  let kubelet: Kubelet;
  before(async () => {
    kubelet = await Kubelet.start({ bare: true, cni: 'timeout = "3s"' });
    mkdirSync(kubelet.binaries, { recursive: true });
  });
  after(() => kubelet[Symbol.asyncDispose]());
  afterEach(() => rmSync(join(kubelet.binaries, 'bridge'), { force: true }));

  /** Puts a program before Debian's plugin for bridges. */
  const standIn = (script: string): void => {
    const path = join(kubelet.binaries, 'bridge');
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
  };

  const networkReady = async () => {
    const { status } = await kubelet.runtime.status({});
    return status!.conditions.find(({ type }) => type === 'NetworkReady')!;
  };

  it('without a configuration the network is not ready, and says why; pods of the node’s network run', async () => {
    const { status } = await kubelet.runtime.status({});
    const runtime = status!.conditions.find(({ type }) => type === 'RuntimeReady')!;
    assert.equal(runtime.status, true);
    const { status: isReady, reason, message } = await networkReady();
    assert.deepEqual([isReady, reason], [false, 'NetworkPluginNotReady']);
    assert.ok(message.includes(`no network config found in ${kubelet.configurations}`), message);
    const failure = await failureOf(kubelet.runPod('early'));
    assert.match(failure.message, /no network config found/);
    assert.deepEqual((await kubelet.runtime.listPodSandbox({})).items, []);
    const pod = await kubelet.runPod('host', onNode);
    await kubelet.removePod(pod.id);
    assert.deepEqual(kubelet.left(), []);
  });

  it('a configuration is read when it comes, and one that cannot be read is named', async () => {
    writeFileSync(join(kubelet.configurations, '05-broken.conflist'), '{');
    await eventually(
      'the broken one is named',
      async () => (await networkReady()).message.includes('05-broken'),
      WAIT,
    );
    rmSync(join(kubelet.configurations, '05-broken.conflist'));
    kubelet.configure('10-pods.conflist');
    await eventually('the network is ready', async () => (await networkReady()).status, WAIT);
    const pod = await kubelet.runPod('later');
    assert.equal((await kubelet.podStatus(pod.id)).state, PodSandboxState.SANDBOX_READY);
    await kubelet.removePod(pod.id);
    assert.deepEqual(kubelet.left(), []);
  });

  it('a plugin that fails fails its pod alone, in its own words, and leaves nothing', async () => {
    standIn(`[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion":"1.0.0","code":11,"msg":"the cable is not plugged in"}'; exit 1`);
    const failure = await failureOf(kubelet.runPod('unplugged'));
    assert.match(failure.message, /the cable is not plugged in/);
    assert.deepEqual((await kubelet.runtime.listPodSandbox({})).items, []);
    assert.deepEqual(kubelet.left(), []);
    const pod = await kubelet.runPod('host', onNode);
    await kubelet.removePod(pod.id);
  });

  it('a plugin that hangs is ended, and holds up no other pod', async () => {
    standIn('[ "$CNI_COMMAND" = ADD ] || exit 0\nexec sleep 1000');
    const stuck = failureOf(kubelet.runPod('stuck'));
    const pod = await kubelet.runPod('host', onNode);
    await kubelet.removePod(pod.id);
    assert.match((await stuck).message, /has not ended after 3 s/);
    assert.deepEqual(kubelet.left(), []);
  });

  it('a pod that cannot be detached is not ready, and is stopped when it can be', async () => {
    const pod = await kubelet.runPod('clinging');
    standIn(`[ "$CNI_COMMAND" = DEL ] && exit 1\nexec ${PLUGINS}/bridge`);
    await failureOf(kubelet.runtime.stopPodSandbox({ podSandboxId: pod.id }));
    await failureOf(kubelet.runtime.removePodSandbox({ podSandboxId: pod.id }));
    assert.equal((await kubelet.podStatus(pod.id)).state, PodSandboxState.SANDBOX_NOTREADY);
    rmSync(join(kubelet.binaries, 'bridge'));
    await kubelet.removePod(pod.id);
    assert.deepEqual(kubelet.left(), []);
  });

  it('how fast a pod may be is told to a plugin that can see to it, and only to that', async () => {
    // Stands in for the plugin `bandwidth`, which needs a kernel with traffic control.
    const told = join(kubelet.daemon.directory, 'told');
    const path = join(kubelet.binaries, 'recorder');
    const script = `const text = require('node:fs').readFileSync(0, 'utf8');
const { prevResult, runtimeConfig = null } = JSON.parse(text);
if (process.env.CNI_COMMAND !== 'ADD') process.exit();
require('node:fs').writeFileSync(${JSON.stringify(told)}, JSON.stringify(runtimeConfig));
console.log(JSON.stringify(prevResult));`;
    writeFileSync(path, `#!${process.execPath}\n${script}\n`);
    chmodSync(path, 0o755);
    const asked = async (capabilities: object, annotations: { [key: string]: string }): Promise<unknown> => {
      kubelet.configure('10-pods.conflist', [...kubelet.plugins(), { type: 'recorder', capabilities }]);
      rmSync(told, { force: true });
      const probe = async () => {
        const pod = await kubelet.runPod('limited', { annotations });
        await kubelet.removePod(pod.id);
        return existsSync(told);
      };
      await eventually('the configuration is read', probe, WAIT);
      return JSON.parse(readFileSync(told, 'utf8'));
    };
    const limits = { 'kubernetes.io/ingress-bandwidth': '10M', 'kubernetes.io/egress-bandwidth': '512Ki' };
    const burst = 2 ** 31 - 1;
    assert.deepEqual(await asked({ bandwidth: true }, limits), {
      bandwidth: { ingressRate: 10_000_000, ingressBurst: burst, egressRate: 524_288, egressBurst: burst },
    });
    assert.equal(await asked({ bandwidth: true }, {}), null);
    const wrong = { 'kubernetes.io/ingress-bandwidth': 'fast' };
    assert.match(
      (await failureOf(kubelet.runPod('wrong', { annotations: wrong }))).message,
      /"fast" is no quantity/,
    );
    kubelet.configure('10-pods.conflist');
    assert.deepEqual(kubelet.left(), []);
  });

  it('a pod is detached after a reboot too, when its network namespace is gone', async () => {
    const pod = await kubelet.runPod('rebooted');
    const pid = await kubelet.pidOf(pod.id);
    await kubelet.daemon.kill9();
    for (const shim of kubelet.daemon.shims()) process.kill(shim, 'SIGKILL');
    process.kill(pid, 'SIGKILL');
    kubelet.loseState();
    await kubelet.restart();
    assert.equal((await kubelet.podStatus(pod.id)).state, PodSandboxState.SANDBOX_NOTREADY);
    await kubelet.removePod(pod.id);
    assert.deepEqual(kubelet.left(), []);
    assert.ok(existsSync(kubelet.network.leases));
  });
});
