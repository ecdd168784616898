/** Where the CRI is served, and what the runtime says of itself. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { VersionDefinition } from '../proto/gen/containerd/services/version.ts';
import {
  CgroupDriver,
  ContainerState,
  ImageServiceDefinition,
  RuntimeServiceDefinition,
} from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import { BUSYBOX, Kubelet } from './harness/cri.ts';
import { Daemon } from './harness/daemon.ts';
import { Connection, failureOf } from './harness/rpc.ts';

it('kubelet can have a socket of its own, with the CRI alone; the common one has it too', async () => {
  const address = `/tmp/moor-cri-${process.pid}.sock`;
  await using kubelet = await Kubelet.start({
    cri: `address = "${address}"\n[cri.runtimes.other]\nruntime_type = "io.containerd.runc.v2"`,
  });
  using own = new Connection(address);
  for (const runtime of [own.service(RuntimeServiceDefinition), kubelet.runtime]) {
    const version = await runtime.version({ version: '0.1.0' });
    assert.deepEqual([version.version, version.runtimeApiVersion], ['0.1.0', 'v1']);
    assert.match(version.runtimeVersion, /^\d+\.\d+\.\d+/);
  }
  assert.equal((await failureOf(own.service(VersionDefinition).version({}))).code, Code.Unimplemented);

  const { linux } = await kubelet.runtime.runtimeConfig({});
  assert.equal(linux!.cgroupDriver, CgroupDriver.CGROUPFS);
  await kubelet.runtime.updateRuntimeConfig({ runtimeConfig: { networkConfig: { podCidr: '10.0.0.0/24' } } });
  const { runtimeHandlers, info, features } = await kubelet.runtime.status({ verbose: true });
  assert.deepEqual(runtimeHandlers.map(({ name }) => name).sort(), ['', 'other', 'runc']);
  assert.equal(features!.supplementalGroupsPolicy, true);
  assert.equal(info['lastCNILoadStatus'], 'OK');
  assert.deepEqual((await kubelet.runtime.status({})).info, {});
  const pod = await kubelet.runPod('handled', {}, 'other');
  assert.equal((await kubelet.podStatus(pod.id)).runtimeHandler, 'other');
});

it('cgroups by systemd are told to kubelet, and a daemon without the CRI serves none of it', async () => {
  await using systemd = await Daemon.start('moord', { config: '[cri]\nsystemd_cgroup = true\n' });
  using one = systemd.connect();
  const { linux } = await one.service(RuntimeServiceDefinition).runtimeConfig({});
  assert.equal(linux!.cgroupDriver, CgroupDriver.SYSTEMD);
  await using without = await Daemon.start('moord', {
    config: `disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[cri.cni]\nconf_dir = "${join(systemd.directory, 'net.d')}"\n`,
  });
  using other = without.connect();
  const failure = await failureOf(other.service(RuntimeServiceDefinition).version({}));
  assert.equal(failure.code, Code.Unimplemented);
});

it('kubelets that know the CRI by its former name drive the same pods', async () => {
  const address = `/tmp/moor-cri-${process.pid}.sock`;
  await using kubelet = await Kubelet.start({ cri: `address = "${address}"` });
  const alpha = 'runtime.v1alpha2';
  for (const at of [address, kubelet.daemon.address]) {
    using connection = new Connection(at);
    const runtime = connection.service({
      ...RuntimeServiceDefinition,
      fullName: `${alpha}.RuntimeService`,
    });
    const images = connection.service({ ...ImageServiceDefinition, fullName: `${alpha}.ImageService` });
    const version = await runtime.version({ version: '0.1.0' });
    assert.deepEqual([version.version, version.runtimeApiVersion], ['0.1.0', 'v1alpha2']);
    assert.notEqual((await images.imageStatus({ image: { image: BUSYBOX } })).image, undefined);

    const config = kubelet.pod('alpha');
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    const containerId = await kubelet.create({ id: podSandboxId, config }, 'sh', ['sleep', '1000']);
    await runtime.startContainer({ containerId });
    assert.equal((await kubelet.status(containerId)).state, ContainerState.CONTAINER_RUNNING);
    const { stdout } = await runtime.execSync({ containerId, cmd: ['hostname'], timeout: 30n });
    assert.equal(stdout.toString(), 'alpha\n');
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
    assert.deepEqual((await kubelet.runtime.listPodSandbox({})).items, []);
  }
});
