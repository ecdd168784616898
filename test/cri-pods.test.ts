/** Pods over the CRI: their network, names, files, namespaces and ends, with Debian's CNI plugins. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { NamespaceMode, PodSandboxState, Protocol } from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import { cgroupsOf } from './harness/cgroups.ts';
import { Kubelet } from './harness/cri.ts';
import { processOf } from './harness/processes.ts';
import { sharedRootfs } from './harness/rootfs.ts';
import { failureOf } from './harness/rpc.ts';
import { eventually } from './harness/wait.ts';

const WAIT = { within: 60_000 };

describe('pods', { timeout: 240_000 }, () => {
  let kubelet: Kubelet;
  before(async () => {
    kubelet = await Kubelet.start();
  });
  after(() => kubelet[Symbol.asyncDispose]());

  const inPod = (pid: number, ...command: string[]): string =>
    execFileSync('nsenter', ['-t', String(pid), '-n', ...command], { encoding: 'utf8' });

  it('a pod has an address, a state, and what it was asked with', async () => {
    const pod = await kubelet.runPod('web', { annotations: { note: 'kept as it is' } });
    const status = await kubelet.podStatus(pod.id);
    assert.equal(status.state, PodSandboxState.SANDBOX_READY);
    assert.ok(status.createdAt > 0n);
    assert.deepEqual(status.metadata, pod.config.metadata);
    assert.deepEqual([status.labels, status.annotations], [pod.config.labels, { note: 'kept as it is' }]);
    const { ip } = status.network!;
    assert.ok(ip.startsWith(`${kubelet.network.prefix}.`), ip);
    const pid = await kubelet.pidOf(pod.id);
    assert.match(inPod(pid, 'ip', '-4', 'addr', 'show', 'eth0'), new RegExp(`inet ${ip}/24`));
    assert.match(inPod(pid, 'ip', '-4', 'addr', 'show', 'lo'), /inet 127\.0\.0\.1/);
    execFileSync(join(sharedRootfs(), 'bin/ping'), ['-c', '1', '-W', '20', ip]);
    const { items } = await kubelet.runtime.listPodSandbox({ filter: { id: pod.id.slice(0, 12) } });
    assert.deepEqual(
      items.map(({ id, state }) => [id, state]),
      [[pod.id, PodSandboxState.SANDBOX_READY]],
    );
    assert.match(await kubelet.ctr().ok('containers', 'ls'), new RegExp(`${pod.id}.*pause`));
    await kubelet.removePod(pod.id);
    assert.deepEqual(kubelet.left(), []);
    assert.equal((await failureOf(kubelet.podStatus(pod.id))).code, Code.NotFound);
  });

  it('whoever is in a pod may ping, without a capability', async () => {
    const pod = await kubelet.runPod('pinging');
    const { ip } = (await kubelet.podStatus(pod.id)).network!;
    // Debian's busybox knows no way but raw sockets. An echo request that the kernel completes, and its answer:
    const ping = [
      'import socket',
      's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)',
      's.settimeout(60)',
      `s.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]), ('${ip}', 0))`,
      'print(s.recv(100)[0])',
    ].join('\n');
    const asNobody = ['-S', '1000', '-G', '1000', 'python3', '-c', ping];
    assert.equal(inPod(await kubelet.pidOf(pod.id), ...asNobody), '0\n');
    await kubelet.removePod(pod.id);
  });

  it('stopping and removing can be repeated, also for pods that never were', async () => {
    const { id } = await kubelet.runPod('twice');
    for (let time = 0; time < 2; time += 1) await kubelet.runtime.stopPodSandbox({ podSandboxId: id });
    const { state } = await kubelet.podStatus(id);
    assert.equal(state, PodSandboxState.SANDBOX_NOTREADY);
    for (let time = 0; time < 2; time += 1) await kubelet.runtime.removePodSandbox({ podSandboxId: id });
    await kubelet.runtime.stopPodSandbox({ podSandboxId: 'f'.repeat(64) });
    await kubelet.runtime.removePodSandbox({ podSandboxId: 'f'.repeat(64) });
    const running = await kubelet.runPod('running');
    await kubelet.runtime.removePodSandbox({ podSandboxId: running.id });
    assert.deepEqual(kubelet.left(), []);
  });

  it('a name is one pod’s, until it is removed', async () => {
    const pod = await kubelet.runPod('only');
    const { name, uid } = pod.config.metadata!;
    const again = await failureOf(kubelet.runtime.runPodSandbox({ config: pod.config }));
    assert.match(again.message, new RegExp(`name "${name}_default_${uid}_0" is reserved for "${pod.id}"`));
    await kubelet.removePod(pod.id);
    const { podSandboxId } = await kubelet.runtime.runPodSandbox({ config: pod.config });
    await kubelet.removePod(podSandboxId);
  });

  it('resolver, hostname and sysctls are as asked', async () => {
    const pod = await kubelet.runPod('files', { linux: { sysctls: { 'net.core.somaxconn': '77' } } });
    const directory = join(kubelet.daemon.state, 'cri/pods', pod.id);
    assert.equal(
      readFileSync(join(directory, 'resolv.conf'), 'utf8'),
      'search default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n',
    );
    assert.equal(readFileSync(join(directory, 'hostname'), 'utf8'), 'files\n');
    const pid = await kubelet.pidOf(pod.id);
    const sysctl = (name: string) => inPod(pid, 'cat', `/proc/sys/net/${name}`).trim();
    assert.equal(sysctl('core/somaxconn'), '77');
    assert.equal(sysctl('ipv4/ip_unprivileged_port_start'), '0');
    assert.equal(sysctl('ipv4/ping_group_range').split(/\s+/).join(' '), '0 2147483647');
    assert.equal(
      execFileSync('nsenter', ['-t', String(pid), '-u', 'hostname'], { encoding: 'utf8' }),
      'files\n',
    );
    await kubelet.removePod(pod.id);
  });

  it('a pod of the node’s network, processes and IPC has no namespaces of its own for them', async () => {
    const namespaceOptions = {
      network: NamespaceMode.NODE,
      pid: NamespaceMode.NODE,
      ipc: NamespaceMode.NODE,
    };
    const pod = await kubelet.runPod('node', { linux: { securityContext: { namespaceOptions } } });
    const { network, linux } = await kubelet.podStatus(pod.id);
    assert.equal(network!.ip, '');
    assert.equal(linux!.namespaces!.options!.network, NamespaceMode.NODE);
    const pid = await kubelet.pidOf(pod.id);
    for (const kind of ['net', 'pid', 'ipc', 'uts'])
      assert.equal(readlinkSync(`/proc/${pid}/ns/${kind}`), readlinkSync(`/proc/self/ns/${kind}`), kind);
    await kubelet.removePod(pod.id);
  });

  it('a pod with a user namespace has its users mapped, and a network of that namespace', async () => {
    const ids = [{ hostId: 200_000, containerId: 0, length: 65_536 }];
    const usernsOptions = { mode: NamespaceMode.POD, uids: ids, gids: ids };
    const pod = await kubelet.runPod('mapped', {
      linux: { securityContext: { namespaceOptions: { usernsOptions } } },
    });
    const pid = await kubelet.pidOf(pod.id);
    assert.match(readFileSync(`/proc/${pid}/uid_map`, 'utf8'), /^\s*0\s+200000\s+65536\s*$/);
    const { ip } = (await kubelet.podStatus(pod.id)).network!;
    assert.match(inPod(pid, 'ip', '-4', 'addr', 'show', 'eth0'), new RegExp(`inet ${ip}/24`));
    await kubelet.removePod(pod.id);
    assert.deepEqual(kubelet.left(), []);
  });

  it('ports of the host are mapped, and let go', async () => {
    const hostPort = 20_000 + Math.floor(Math.random() * 10_000);
    const rules = (): string => execFileSync('iptables-save', ['-t', 'nat'], { encoding: 'utf8' });
    const pod = await kubelet.runPod('ports', {
      portMappings: [
        { protocol: Protocol.TCP, containerPort: 80, hostPort },
        { protocol: Protocol.TCP, containerPort: 81 },
      ],
    });
    assert.match(rules(), new RegExp(`--dport ${hostPort} `));
    await kubelet.removePod(pod.id);
    assert.doesNotMatch(rules(), new RegExp(`--dport ${hostPort} `));
    assert.doesNotMatch(rules(), new RegExp(pod.id));
  });

  it('a pod whose process has died is not ready, and can be stopped', async () => {
    const pod = await kubelet.runPod('dying');
    process.kill(await kubelet.pidOf(pod.id), 'SIGKILL');
    await eventually(
      'the pod is not ready',
      async () => (await kubelet.podStatus(pod.id)).state === PodSandboxState.SANDBOX_NOTREADY,
      WAIT,
    );
    const state = { state: PodSandboxState.SANDBOX_READY };
    assert.deepEqual((await kubelet.runtime.listPodSandbox({ filter: { id: pod.id, state } })).items, []);
    await kubelet.removePod(pod.id);
    assert.deepEqual(kubelet.left(), []);
  });

  it('pods live on without the daemon', async () => {
    const pod = await kubelet.runPod('lasting');
    const before = await kubelet.podStatus(pod.id);
    const gone = await kubelet.runPod('gone');
    const pid = await kubelet.pidOf(gone.id);
    await kubelet.daemon.kill9();
    process.kill(pid, 'SIGKILL');
    await eventually('the process has ended', () => processOf(pid) === undefined, WAIT);
    await kubelet.restart();
    assert.deepEqual(await kubelet.podStatus(pod.id), before);
    assert.equal((await kubelet.podStatus(gone.id)).state, PodSandboxState.SANDBOX_NOTREADY);
    for (const { id } of [pod, gone]) await kubelet.removePod(id);
    assert.deepEqual(kubelet.left(), []);
  });

  it('thirty pods at once start and stop, and leave nothing', async () => {
    const names = Array.from({ length: 30 }, (_, index) => `many-${index}`);
    const rules = execFileSync('iptables-save', { encoding: 'utf8' });
    const ids = (await Promise.all(names.map((name) => kubelet.runPod(name)))).map(({ id }) => id);
    const statuses = await Promise.all(ids.map((id) => kubelet.podStatus(id)));
    assert.equal(new Set(statuses.map(({ network }) => network!.ip)).size, names.length);
    assert.ok(statuses.every(({ state }) => state === PodSandboxState.SANDBOX_READY));
    const masqueraded = (): boolean =>
      execFileSync('iptables-save', ['-t', 'nat'], { encoding: 'utf8' }).includes(ids[0]!);
    assert.ok(masqueraded(), rules);
    await Promise.all(ids.map((id) => kubelet.removePod(id)));
    assert.deepEqual(kubelet.left(), []);
    const remaining = execFileSync('iptables-save', { encoding: 'utf8' });
    assert.ok(!ids.some((id) => remaining.includes(id)));
    const ports = execFileSync('ip', ['-json', 'link', 'show', 'master', kubelet.network.bridge], {
      encoding: 'utf8',
    });
    assert.deepEqual(JSON.parse(ports || '[]'), []);
    assert.deepEqual(
      cgroupsOf(kubelet.cgroup).filter((path) => ids.some((id) => path.includes(id))),
      [],
    );
  });

  it('bad requests say what is wrong with them', async () => {
    const { runtime } = kubelet;
    const nothing = await failureOf(runtime.runPodSandbox({}));
    assert.deepEqual([nothing.code, /configuration/.test(nothing.message)], [Code.InvalidArgument, true]);
    const handler = await failureOf(kubelet.runPod('handler', {}, 'nope'));
    assert.equal(handler.code, Code.InvalidArgument);
    assert.match(handler.message, /no runtime for "nope" is configured/);
    const empty = await failureOf(runtime.podSandboxStatus({}));
    assert.equal(empty.code, Code.InvalidArgument);
    assert.deepEqual(kubelet.left(), []);
  });
});
