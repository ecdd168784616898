/** What a pod's containers may use, as the kernel has it: files of cgroups, set at the start and changed afterwards. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { LinuxContainerResources } from '../proto/gen/runtime/v1/api.ts';
import type { PartialMessage } from '../ttrpc/service.ts';
import { cgroupsOf } from './harness/cgroups.ts';
import { Kubelet, type RunningPod } from './harness/cri.ts';

const FOREVER = ['sleep', '1000000'];
const MiB = 1n << 20n;
const isUnified = existsSync('/sys/fs/cgroup/cgroup.controllers');

describe('resources of containers', { timeout: 240_000, skip: isUnified }, () => {
  let kubelet: Kubelet;
  let pod: RunningPod;
  before(async () => {
    kubelet = await Kubelet.start();
    pod = await kubelet.runPod('limited');
  });
  after(() => kubelet[Symbol.asyncDispose]());

  const create = (name: string, resources: PartialMessage<LinuxContainerResources>): Promise<string> =>
    kubelet.create(pod, name, FOREVER, { linux: { resources } });
  /** A file of the container's cgroup, below its pod's. */
  const file = (id: string, controller: string, name: string): string => {
    const folder = join('/sys/fs/cgroup', controller, pod.config.linux!.cgroupParent!, id);
    return readFileSync(join(folder, `${controller}.${name}`), 'utf8').trim();
  };
  const seen = (id: string) => ({
    shares: file(id, 'cpu', 'shares'),
    quota: file(id, 'cpu', 'cfs_quota_us'),
    period: file(id, 'cpu', 'cfs_period_us'),
    cpus: file(id, 'cpuset', 'cpus'),
    memory: file(id, 'memory', 'limit_in_bytes'),
    swap: file(id, 'memory', 'memsw.limit_in_bytes'),
  });

  it('limits are in the container’s cgroups, below the pod’s', async () => {
    const containerId = await create('limits', {
      cpuShares: 256n,
      cpuQuota: 20_000n,
      cpuPeriod: 50_000n,
      cpusetCpus: '0',
      cpusetMems: '0',
      memoryLimitInBytes: 64n * MiB,
      memorySwapLimitInBytes: 96n * MiB,
      // Without a controller for them, as here, they are no reason to refuse the container.
      hugepageLimits: [{ pageSize: '2MB', limit: 1n << 30n }],
    });
    await kubelet.runtime.startContainer({ containerId });
    const limits = {
      shares: '256',
      quota: '20000',
      period: '50000',
      cpus: '0',
      memory: String(64n * MiB),
      swap: String(96n * MiB),
    };
    assert.deepEqual(seen(containerId), limits);
    const { resources } = await kubelet.status(containerId);
    assert.equal(resources?.linux?.memorySwapLimitInBytes, 96n * MiB);
    const parents = cgroupsOf(pod.config.linux!.cgroupParent!).map((path) => basename(path));
    assert.ok(parents.includes(containerId) && parents.includes(pod.id));
    assert.match(
      await kubelet.exec(containerId, 'cat', '/proc/self/cgroup'),
      new RegExp(`memory:.*/${containerId}`),
    );
    await kubelet.runtime.removeContainer({ containerId });
    assert.ok(!cgroupsOf(pod.config.linux!.cgroupParent!).some((path) => basename(path) === containerId));
  });

  it('memory without a word on swap is a limit of both', async () => {
    const containerId = await create('swapless', { memoryLimitInBytes: 32n * MiB });
    await kubelet.runtime.startContainer({ containerId });
    assert.deepEqual(
      [seen(containerId).memory, seen(containerId).swap],
      [String(32n * MiB), String(32n * MiB)],
    );
    await kubelet.runtime.removeContainer({ containerId });
  });

  it('what is changed is changed in the cgroups, and nothing else', async () => {
    const containerId = await create('changed', {
      cpuShares: 256n,
      cpuQuota: 20_000n,
      cpuPeriod: 50_000n,
      memoryLimitInBytes: 64n * MiB,
    });
    await kubelet.runtime.startContainer({ containerId });
    const before = seen(containerId);
    const update = (linux: PartialMessage<LinuxContainerResources>) =>
      kubelet.runtime.updateContainerResources({ containerId, linux });
    await update({ memoryLimitInBytes: 128n * MiB });
    const larger = { ...before, memory: String(128n * MiB), swap: String(128n * MiB) };
    assert.deepEqual(seen(containerId), larger);
    await update({ memoryLimitInBytes: 48n * MiB, cpuShares: 512n, cpuQuota: 30_000n, cpusetCpus: '0' });
    const smaller = { memory: String(48n * MiB), swap: String(48n * MiB) };
    assert.deepEqual(seen(containerId), { ...before, ...smaller, shares: '512', quota: '30000', cpus: '0' });
    // A quota of -1 is none.
    await update({ cpuQuota: -1n });
    assert.equal(seen(containerId).quota, '-1');
    await assert.rejects(update({ cpusetCpus: '0-9999' }), /cpuset/);
    assert.equal(
      (await kubelet.status(containerId)).resources?.linux?.cpusetCpus,
      '0',
      'what failed is not kept',
    );
    await kubelet.restart();
    assert.equal((await kubelet.status(containerId)).resources?.linux?.cpuShares, 512n);
    assert.equal(seen(containerId).shares, '512');
    await kubelet.runtime.removeContainer({ containerId });
  });

  it('files of cgroup version 2 are refused where there is none, and named', async () => {
    const containerId = await create('unified', { unified: { 'memory.high': '1000000' } });
    await assert.rejects(kubelet.runtime.startContainer({ containerId }), /unified/);
    await kubelet.runtime.removeContainer({ containerId });
  });

  it('a cgroup of a pod that nobody made is made, and its containers’ go with them', async () => {
    const cgroupParent = `/${kubelet.cgroup}/deep/er/pod`;
    const deep = await kubelet.runPod('deep', { linux: { cgroupParent } });
    const id = await kubelet.run(deep, 'deep', FOREVER);
    assert.ok(existsSync(join('/sys/fs/cgroup/memory', cgroupParent, id)));
    await kubelet.removePod(deep.id);
    const left = join('/sys/fs/cgroup/memory', cgroupParent);
    const folders = existsSync(left) ? readdirSync(left, { withFileTypes: true }) : [];
    assert.deepEqual(
      folders.filter((entry) => entry.isDirectory()).map(({ name }) => name),
      [],
      'its containers’; the pod’s own is kubelet’s',
    );
  });
});
