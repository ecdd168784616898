import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  type ContainerConfig,
  ContainerState,
  NamespaceMode,
  Signal,
  SupplementalGroupsPolicy,
} from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import type { PartialMessage } from '../ttrpc/service.ts';
import { BUSYBOX, Kubelet, type RunningPod, security } from './harness/cri.ts';
import { busyboxImage, ociArchive } from './harness/image.ts';
import { eventually } from './harness/wait.ts';

const FOREVER = ['sleep', '1000000'];
const MiB = 1n << 20n;

const refused =
  (code: Code, words: RegExp) =>
  (error: Error & { code?: number }): boolean => {
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    return true;
  };

describe('containers of pods', () => {
  let kubelet: Kubelet;
  let pod: RunningPod;

  before(async () => {
    kubelet = await Kubelet.start();
    pod = await kubelet.runPod('box', { linux: { securityContext: { privileged: true } } });
  });
  after(() => kubelet[Symbol.asyncDispose]());

  const exec = (...what: Parameters<Kubelet['exec']>) => kubelet.exec(...what);
  const ended = (id: string) =>
    eventually(`the end of ${id}`, async () => {
      const status = await kubelet.status(id);
      return status.state === ContainerState.CONTAINER_EXITED ? status : undefined;
    });
  const logOf = (name: string): string[] => {
    const text = readFileSync(join(pod.config.logDirectory!, name, '0.log'), 'utf8');
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => line.replace(/^\S+Z /, ''));
  };
  it('a container is created, runs, ends and goes, and each is to be seen', async () => {
    const id = await kubelet.create(pod, 'one', ['sh', '-c', 'echo out; echo err >&2; exit 3']);
    const created = await kubelet.status(id);
    assert.equal(created.state, ContainerState.CONTAINER_CREATED);
    assert.equal(created.startedAt, 0n);
    assert.equal(created.image?.image, BUSYBOX);
    assert.match(created.imageId, /^sha256:/);
    assert.equal(created.logPath, join(pod.config.logDirectory!, 'one/0.log'));
    assert.deepEqual(created.user?.linux, { uid: 0n, gid: 0n, supplementalGroups: [0n] });
    assert.equal(created.stopSignal, Signal.SIGTERM);
    await kubelet.runtime.startContainer({ containerId: id });
    await assert.rejects(
      kubelet.runtime.startContainer({ containerId: id }),
      refused(Code.FailedPrecondition, /CONTAINER_(RUNNING|EXITED)/),
    );
    const exited = await ended(id);
    assert.deepEqual([exited.exitCode, exited.reason], [3, 'Error']);
    assert.ok(exited.startedAt >= exited.createdAt && exited.finishedAt >= exited.startedAt);
    assert.deepEqual(logOf('one').sort(), ['stderr F err', 'stdout F out']);
    await kubelet.runtime.removeContainer({ containerId: id });
    await assert.rejects(kubelet.status(id), refused(Code.NotFound, /not found/));
    await kubelet.runtime.removeContainer({ containerId: id });
    await kubelet.runtime.stopContainer({ containerId: id, timeout: 1n });
    const snapshots = await kubelet.ctr().ok('snapshots', 'ls');
    assert.ok(!snapshots.includes(id));
  });

  it('a name is taken once, and free again when its container has gone', async () => {
    const id = await kubelet.create(pod, 'name', FOREVER);
    await assert.rejects(
      kubelet.create(pod, 'name', FOREVER),
      refused(Code.Unknown, new RegExp(`failed to reserve container name .* is reserved for "${id}"`)),
    );
    await kubelet.runtime.removeContainer({ containerId: id });
    const again = await kubelet.create(pod, 'name', FOREVER);
    await kubelet.runtime.removeContainer({ containerId: again });
  });

  it('containers are listed by id, pod, state and labels', async () => {
    const id = await kubelet.run(pod, 'listed', FOREVER, { labels: { color: 'red', size: 'l' } });
    const listed = async (filter: object) =>
      (await kubelet.runtime.listContainers({ filter })).containers.map((container) => container.id);
    assert.deepEqual(await listed({ id }), [id]);
    assert.deepEqual(await listed({ id: id.slice(0, 12) }), [id]);
    assert.deepEqual(await listed({ labelSelector: { color: 'red' } }), [id]);
    assert.deepEqual(await listed({ labelSelector: { color: 'blue' } }), []);
    assert.deepEqual(
      await listed({ podSandboxId: pod.id, state: { state: ContainerState.CONTAINER_RUNNING }, id }),
      [id],
    );
    assert.deepEqual(await listed({ state: { state: ContainerState.CONTAINER_EXITED }, id }), []);
    assert.deepEqual(await listed({ id: 'none' }), []);
    await kubelet.runtime.removeContainer({ containerId: id });
  });

  it('a stop is asked for with the stop signal, and enforced when it is not heeded', async () => {
    const polite = ['sh', '-c', 'trap "exit 7" INT; echo ready; while true; do sleep 0.05; done'];
    const heeding = await kubelet.run(pod, 'heeding', polite, { stopSignal: Signal.SIGINT });
    assert.equal((await kubelet.status(heeding)).stopSignal, Signal.SIGINT);
    await eventually('the trap', () => logOf('heeding').includes('stdout F ready'));
    await kubelet.runtime.stopContainer({ containerId: heeding, timeout: 60n });
    const { exitCode, state } = await kubelet.status(heeding);
    assert.deepEqual([exitCode, state], [7, ContainerState.CONTAINER_EXITED]);
    // Its image's signal is for those that name none.
    const signalled = 'registry.example/signalled:1';
    const config = { Cmd: ['sh'], Env: ['PATH=/bin'], StopSignal: 'SIGUSR1' };
    const archive = join(kubelet.daemon.directory, 'signalled.tar');
    await kubelet
      .ctr()
      .ok('images', 'import', ociArchive(archive, [[signalled], await busyboxImage({ config })]));
    const own = ['sh', '-c', 'trap "exit 8" USR1; echo ready; while true; do sleep 0.05; done'];
    const ofImage = await kubelet.run(pod, 'of-image', own, { image: { image: signalled } });
    await eventually('the trap', () => logOf('of-image').includes('stdout F ready'));
    await kubelet.runtime.stopContainer({ containerId: ofImage, timeout: 60n });
    assert.equal((await kubelet.status(ofImage)).exitCode, 8);
    const deaf = await kubelet.run(pod, 'deaf', ['sh', '-c', 'trap "" TERM; sleep 1000000']);
    await kubelet.runtime.stopContainer({ containerId: deaf, timeout: 1n });
    assert.equal((await kubelet.status(deaf)).exitCode, 137);
    await kubelet.runtime.stopContainer({ containerId: deaf, timeout: 1n });
    for (const containerId of [heeding, ofImage, deaf])
      await kubelet.runtime.removeContainer({ containerId });
  });

  it('one that cannot be started says why, and is removed when it runs', async () => {
    const containerId = await kubelet.create(pod, 'wrong', ['/no/such/program']);
    await assert.rejects(kubelet.runtime.startContainer({ containerId }), /no such file or directory/);
    const { state, reason, exitCode, message } = await kubelet.status(containerId);
    assert.deepEqual([state, reason, exitCode], [ContainerState.CONTAINER_EXITED, 'StartError', 128]);
    assert.match(message, /no such file or directory/);
    await kubelet.runtime.removeContainer({ containerId });
    const running = await kubelet.run(pod, 'wrong', FOREVER);
    await kubelet.runtime.removeContainer({ containerId: running });
    const nowhere = await kubelet.create(pod, 'nowhere', FOREVER, { logPath: 'not/there/0.log' });
    await assert.rejects(
      kubelet.runtime.startContainer({ containerId: nowhere }),
      /failed to open the container log .*not\/there\/0.log: ENOENT/,
    );
    await kubelet.runtime.removeContainer({ containerId: nowhere });
  });

  it('what is asked for in vain leaves nothing behind', async () => {
    const before = await kubelet.ctr().ok('snapshots', 'ls');
    const attempt = (changes: PartialMessage<ContainerConfig>) =>
      kubelet.create(pod, 'vain', FOREVER, changes);
    await assert.rejects(
      attempt({ image: { image: 'registry.example/none:1' } }),
      refused(Code.NotFound, /none:1/),
    );
    await assert.rejects(attempt({ metadata: undefined }), refused(Code.InvalidArgument, /metadata/));
    await assert.rejects(attempt(security({ runAsUsername: 'nobody' })), refused(Code.NotFound, /nobody/));
    await assert.rejects(
      attempt(security({ runAsGroup: { value: 5n } })),
      refused(Code.InvalidArgument, /without user/),
    );
    await assert.rejects(
      attempt(security({ seccompProfilePath: '/x' })),
      refused(Code.InvalidArgument, /invalid seccomp/),
    );
    await assert.rejects(
      attempt({ CDIDevices: [{ name: 'example.com/none=one' }] }),
      refused(Code.InvalidArgument, /unresolvable CDI devices/),
    );
    await assert.rejects(
      kubelet.runtime.createContainer({ podSandboxId: 'none', config: { metadata: { name: 'x' } } }),
      refused(Code.NotFound, /none/),
    );
    assert.equal(await kubelet.ctr().ok('snapshots', 'ls'), before);
    const { containers } = await kubelet.runtime.listContainers({ filter: { podSandboxId: pod.id } });
    assert.deepEqual(containers, []);
  });

  it('a name is free again after a refusal, whatever the garbage collection does meanwhile', async () => {
    const wrong = { devices: [{ hostPath: '/no/such', containerPath: '/dev/x', permissions: 'r' }] };
    const done = new AbortController();
    const collecting = (async () => {
      while (!done.signal.aborted) await kubelet.ctr().ok('content', 'prune', 'references');
    })();
    try {
      for (let time = 0; time < 30; time += 1)
        await assert.rejects(
          kubelet.create(pod, 'again', FOREVER, wrong),
          refused(Code.InvalidArgument, /no\/such/),
        );
    } finally {
      done.abort();
      await collecting;
    }
  });

  it('exec runs to the end, with both outputs and the code; a late one is killed', async () => {
    const containerId = await kubelet.run(pod, 'exec', FOREVER, { envs: [{ key: 'OWN', value: 'a b' }] });
    const call = (cmd: string[], timeout = 30n) => kubelet.runtime.execSync({ containerId, cmd, timeout });
    const { stdout, stderr, exitCode } = await call(['sh', '-c', 'echo "$OWN"; echo e >&2; exit 5']);
    assert.deepEqual([stdout.toString(), stderr.toString(), exitCode], ['a b\n', 'e\n', 5]);
    await assert.rejects(call(['sleep', '4321'], 1n), refused(Code.DeadlineExceeded, /timeout 1s exceeded/));
    assert.equal(await exec(containerId, 'sh', '-c', 'ps | grep -v grep | grep "sleep 4321" || true'), '');
    await assert.rejects(call(['/no/such']), /no such file or directory/);
    await assert.rejects(call([]), refused(Code.InvalidArgument, /no command/));
    const large = await call(['sh', '-c', 'head -c 20000000 /dev/zero']);
    assert.deepEqual([large.exitCode, large.stdout.length], [0, (16 << 20) - 4096]);
    assert.equal((await call(['sh', '-c', 'head -c 1000000 /dev/zero >&2'])).stderr.length, 1_000_000);
    await kubelet.runtime.stopContainer({ containerId, timeout: 0n });
    await assert.rejects(call(['true']), refused(Code.FailedPrecondition, /CONTAINER_EXITED/));
    await kubelet.runtime.removeContainer({ containerId });
    assert.deepEqual(readdirSync(join(kubelet.daemon.directory, 'state/cri/execs')), []);
  });
  it('a log is rotated while it is written', async () => {
    const script = 'i=0; while true; do echo $i; i=$((i+1)); sleep 0.01; done';
    const containerId = await kubelet.run(pod, 'logger', ['sh', '-c', script]);
    const path = join(pod.config.logDirectory!, 'logger/0.log');
    await eventually('lines', () => existsSync(path) && logOf('logger').length > 5);
    renameSync(path, `${path}.1`);
    await kubelet.runtime.reopenContainerLog({ containerId });
    assert.ok(existsSync(path));
    await eventually('lines', () => logOf('logger').length > 5);
    await kubelet.runtime.stopContainer({ containerId, timeout: 0n });
    await assert.rejects(
      kubelet.runtime.reopenContainerLog({ containerId }),
      refused(Code.FailedPrecondition, /EXITED/),
    );
    const lines = [readFileSync(`${path}.1`, 'utf8'), readFileSync(path, 'utf8')]
      .join('')
      .split('\n')
      .slice(0, -1);
    assert.deepEqual(
      lines.map((line) => Number(line.split(' ')[3])),
      lines.map((_, index) => index),
    );
    await kubelet.runtime.removeContainer({ containerId });
  });

  it('the daemon is killed: no line is lost, the exit is known, and others run on', async () => {
    const script = 'i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 9';
    const id = await kubelet.run(pod, 'survivor', ['sh', '-c', script]);
    const other = await kubelet.run(pod, 'other', FOREVER);
    await kubelet.restart();
    assert.equal((await kubelet.status(other)).state, ContainerState.CONTAINER_RUNNING);
    assert.equal(await exec(other, 'echo', 'alive'), 'alive\n');
    const { exitCode } = await ended(id);
    assert.equal(exitCode, 9);
    assert.deepEqual(
      logOf('survivor'),
      Array.from({ length: 200 }, (_, index) => `stdout F ${index}`),
    );
    for (const containerId of [id, other]) await kubelet.runtime.removeContainer({ containerId });
  });

  it('memory that runs out is named as the reason', async () => {
    const resources = { memoryLimitInBytes: 15n * MiB, memorySwapLimitInBytes: 15n * MiB };
    const hungry = ['sh', '-c', 'dd if=/dev/zero of=/dev/null bs=20M'];
    const id = await kubelet.run(pod, 'hungry', hungry, { linux: { resources } });
    const { reason, exitCode } = await ended(id);
    assert.deepEqual([reason, exitCode], ['OOMKilled', 137]);
    await kubelet.runtime.removeContainer({ containerId: id });
  });

  it('resources are updated, before the start and after it', async () => {
    const containerId = await kubelet.create(pod, 'updated', FOREVER, {
      linux: { resources: { cpuShares: 100n, memoryLimitInBytes: 64n * MiB } },
    });
    const update = (linux: object) => kubelet.runtime.updateContainerResources({ containerId, linux });
    await update({ memoryLimitInBytes: 80n * MiB });
    await kubelet.runtime.startContainer({ containerId });
    const limit = () => exec(containerId, 'cat', '/sys/fs/cgroup/memory/memory.limit_in_bytes');
    assert.equal((await limit()).trim(), String(80n * MiB));
    await update({ memoryLimitInBytes: 96n * MiB, cpuShares: 300n });
    assert.equal((await limit()).trim(), String(96n * MiB));
    const { resources } = await kubelet.status(containerId);
    assert.equal(resources?.linux?.memoryLimitInBytes, 96n * MiB);
    assert.equal(resources?.linux?.cpuShares, 300n);
    await kubelet.runtime.removeContainer({ containerId });
  });

  it('users, groups, capabilities, the root and privileges are as asked for', async () => {
    const dropped = { dropCapabilities: ['ALL'], addCapabilities: ['NET_RAW'] };
    const plain = await kubelet.run(
      pod,
      'plain',
      FOREVER,
      security({
        namespaceOptions: { pid: NamespaceMode.CONTAINER },
        runAsUsername: 'sailor',
        supplementalGroups: [4321n],
        supplementalGroupsPolicy: SupplementalGroupsPolicy.Strict,
        readonlyRootfs: true,
        noNewPrivs: true,
        seccomp: { profileType: 0 },
        capabilities: dropped,
        maskedPaths: ['/proc/version'],
        readonlyPaths: ['/tmp'],
      }),
    );
    assert.equal((await exec(plain, 'id')).trim(), 'uid=1000(sailor) gid=1001(crew) groups=1001(crew),4321');
    const status = await exec(plain, 'cat', '/proc/self/status');
    assert.match(status, /^CapBnd:\s*0000000000002000$/m);
    assert.match(status, /^NoNewPrivs:\s*1$/m);
    assert.match(status, /^Seccomp:\s*2$/m);
    const { user } = await kubelet.status(plain);
    assert.deepEqual(user?.linux, { uid: 1000n, gid: 1001n, supplementalGroups: [1001n, 4321n] });
    assert.match(await kubelet.complaint(plain, 'touch', '/tmp/x'), /Read-only file system/);
    assert.equal(await exec(plain, 'cat', '/proc/version'), '');
    const mighty = await kubelet.run(pod, 'mighty', FOREVER, security({ privileged: true }));
    assert.equal((await exec(mighty, 'hostname')).trim(), 'box');
    await exec(mighty, 'mount', '-t', 'tmpfs', 'tmpfs', '/tmp');
    await exec(mighty, 'test', '-c', '/dev/kmsg');
    for (const containerId of [plain, mighty]) await kubelet.runtime.removeContainer({ containerId });
  });

  it('mounts: of directories, of the pod’s files, of images', async () => {
    const host = join(kubelet.daemon.directory, 'volume');
    mkdirSync(join(host, 'sub'), { recursive: true });
    writeFileSync(join(host, 'sub/file'), 'hello');
    const mounts = [
      { hostPath: join(host, 'sub'), containerPath: '/data', readonly: true },
      { hostPath: join(host, 'new'), containerPath: '/made' },
      { image: { image: BUSYBOX }, containerPath: '/image', readonly: true },
      { image: { image: BUSYBOX }, imageSubPath: 'etc', containerPath: '/part', readonly: true },
    ];
    const containerId = await kubelet.run(pod, 'mounts', FOREVER, { mounts });
    assert.equal(await exec(containerId, 'cat', '/data/file'), 'hello');
    await exec(containerId, 'touch', '/made/x');
    assert.ok(existsSync(join(host, 'new/x')));
    assert.match(await exec(containerId, 'cat', '/image/etc/passwd'), /sailor/);
    assert.match(await exec(containerId, 'cat', '/part/passwd'), /sailor/);
    assert.match(await kubelet.complaint(containerId, 'touch', '/image/x'), /Read-only/);
    assert.match(await exec(containerId, 'cat', '/etc/resolv.conf'), /10\.96\.0\.10/);
    assert.equal((await exec(containerId, 'cat', '/etc/hostname')).trim(), 'box');
    assert.equal((await kubelet.status(containerId)).mounts.length, 4);
    await kubelet.runtime.removeContainer({ containerId });
    const volumes = join(kubelet.daemon.directory, 'state/cri/volumes', containerId);
    assert.ok(!existsSync(volumes));
    const outside = { image: { image: BUSYBOX }, imageSubPath: '../../..', containerPath: '/x' };
    await assert.rejects(
      kubelet.create(pod, 'outside', FOREVER, { mounts: [outside] }),
      refused(Code.InvalidArgument, /leads out of it/),
    );
  });

  it('a checkpoint says what is missing, and harms nothing', async () => {
    const containerId = await kubelet.run(pod, 'checkpoint', FOREVER);
    const location = join(kubelet.daemon.directory, 'checkpoint.tar');
    await assert.rejects(
      kubelet.runtime.checkpointContainer({ containerId, location, timeout: 30n }),
      refused(Code.Unimplemented, /criu|checkpoint/i),
    );
    assert.ok(!existsSync(location) && !existsSync(`${location}.unfinished`));
    assert.equal((await kubelet.status(containerId)).state, ContainerState.CONTAINER_RUNNING);
    await kubelet.runtime.removeContainer({ containerId });
  });
});
