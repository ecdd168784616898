/** What kubelet is told of the use of pods and containers, by real ones. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as after } from 'node:timers/promises';
import { ContainerState } from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import { Kubelet } from './harness/cri.ts';
import { eventually } from './harness/wait.ts';

test('stats and metrics say what a pod and its containers use', { timeout: 240_000 }, async () => {
  await using kubelet = await Kubelet.start();
  const { runtime } = kubelet;
  const pod = await kubelet.runPod('measured');
  const script = 'head -c 3000000 /dev/zero > /file; while true; do :; done';
  const busy = await kubelet.run(pod, 'busy', ['sh', '-c', script]);
  const idle = await kubelet.create(pod, 'idle', ['sleep', '1000']);

  // Two samples that are a second apart make a rate.
  let stats = (await runtime.containerStats({ containerId: busy })).stats!;
  while (
    (stats.cpu?.usageNanoCores?.value ?? 0n) === 0n ||
    stats.writableLayer!.usedBytes!.value < 3_000_000n
  ) {
    await after(100);
    stats = (await runtime.containerStats({ containerId: busy })).stats!;
  }
  const { attributes, cpu, memory, writableLayer } = stats;
  assert.equal(attributes!.id, busy);
  assert.equal(attributes!.metadata!.name, 'busy');
  assert.equal(attributes!.labels['io.kubernetes.container.name'], 'busy');
  assert.ok(cpu!.timestamp > 0n && cpu!.usageCoreNanoSeconds!.value > 0n);
  assert.ok(
    memory!.workingSetBytes!.value > 0n && memory!.usageBytes!.value >= memory!.workingSetBytes!.value,
  );
  assert.match(writableLayer!.fsId!.mountpoint, /overlayfs$/);

  const still = (await runtime.containerStats({ containerId: idle })).stats!;
  assert.equal(still.cpu, undefined, 'it does not run');
  const { stats: listed } = await runtime.listContainerStats({ filter: { podSandboxId: pod.id } });
  assert.deepEqual(
    listed.map(({ attributes }) => attributes!.id),
    [busy],
  );
  await assert.rejects(runtime.containerStats({ containerId: 'none' }), { code: Code.NotFound });

  const { linux } = (await runtime.podSandboxStats({ podSandboxId: pod.id })).stats!;
  assert.ok(linux!.cpu!.usageCoreNanoSeconds!.value >= cpu!.usageCoreNanoSeconds!.value);
  assert.equal(linux!.network!.defaultInterface!.name, 'eth0');
  assert.ok(linux!.process!.processCount!.value >= 2n, 'the pod itself and its container');
  assert.deepEqual(
    linux!.containers.map(({ attributes }) => attributes!.id),
    [busy],
  );
  assert.equal((await runtime.listPodSandboxStats({ filter: { id: pod.id } })).stats.length, 1);
  assert.equal(
    (await runtime.listPodSandboxStats({ filter: { labelSelector: { no: 'such' } } })).stats.length,
    0,
  );

  const { descriptors } = await runtime.listMetricDescriptors({});
  const known = new Map(descriptors.map(({ name, labelKeys }) => [name, labelKeys.length]));
  const { podMetrics } = await runtime.listPodSandboxMetrics({});
  const [own] = podMetrics;
  assert.equal(own!.podSandboxId, pod.id);
  const all = [...own!.metrics, ...own!.containerMetrics.flatMap(({ metrics }) => metrics)];
  for (const { name, labelValues, timestamp } of all) {
    assert.equal(labelValues.length, known.get(name), name);
    assert.ok(timestamp > 0n);
  }
  const names = new Set(all.map(({ name }) => name));
  for (const name of [
    'container_cpu_usage_seconds_total',
    'container_memory_working_set_bytes',
    'container_network_receive_bytes_total',
  ])
    assert.ok(names.has(name), name);

  // What has ended in the pod counts, which no container's own figures have any more.
  const spent = await kubelet.run(pod, 'spent', [
    'sh',
    '-c',
    'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done',
  ]);
  await eventually('the end of the one that has spent', async () => {
    const { state } = await kubelet.status(spent);
    return state === ContainerState.CONTAINER_EXITED;
  });
  await runtime.stopContainer({ containerId: busy, timeout: 0n });
  const parent = join('/sys/fs/cgroup/memory', pod.config.linux!.cgroupParent!);
  writeFileSync(join(parent, 'memory.limit_in_bytes'), String(512 << 20));
  const whole = (await runtime.podSandboxStats({ podSandboxId: pod.id })).stats!.linux!;
  assert.deepEqual(whole.containers, []);
  assert.ok(whole.cpu!.usageCoreNanoSeconds!.value >= linux!.cpu!.usageCoreNanoSeconds!.value);
  const { availableBytes, workingSetBytes } = whole.memory!;
  assert.equal(availableBytes!.value + workingSetBytes!.value, 512n << 20n, 'of the limit of the pod');

  await runtime.stopPodSandbox({ podSandboxId: pod.id });
  await assert.rejects(runtime.podSandboxStats({ podSandboxId: pod.id }), { code: Code.FailedPrecondition });
});
