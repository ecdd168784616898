/** What clients can say about tasks beyond ctr's flags: limits of what runs, and how the runtime is to be called. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Options } from '../proto/gen/containerd/runtime/runc.ts';
import { CreateOptions, RuncOptions } from '../proto/gen/containerd/runtime/runc_v1.ts';
import { ContainersDefinition } from '../proto/gen/containerd/services/containers.ts';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import type { Any } from '../proto/gen/google/protobuf/any.ts';
import { Status } from '../proto/gen/containerd/types/task.ts';
import { containerPids } from './harness/daemon.ts';
import { type Rig, suite } from './harness/peers.ts';
import { processOf } from './harness/processes.ts';
import { eventually } from './harness/wait.ts';

const RESOURCES = 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources';

const json = (typeUrl: string, value: object): Any => ({
  typeUrl,
  value: Buffer.from(JSON.stringify(value)),
});

/** A file of the cgroup that a process has with this controller (cgroups of version 1). */
function cgroupFile(pid: number, controller: string, file: string): string {
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n');
  const path = lines
    .map((line) => line.split(':'))
    .find(([, names]) => names?.split(',').includes(controller));
  return readFileSync(join('/sys/fs/cgroup', controller, path?.[2] ?? '', file), 'utf8').trim();
}

const pidOf = async ({ ctr }: Rig, id: string) => (await ctr.task(id))?.pid ?? 0;

suite('tasks', {}, (rig) => {
  const services = () => {
    const connection = rig.daemon.connect();
    const { namespace } = rig.ctr;
    return {
      tasks: connection.service(TasksDefinition, namespace),
      containers: connection.service(ContainersDefinition, namespace),
      [Symbol.dispose]: () => connection[Symbol.dispose](),
    };
  };

  it('update changes the limits of a running container, and refuses what is no limit', async () => {
    using api = services();
    await rig.ctr.runDetached('limited', ['/bin/sleep', '1000']);
    const pid = await pidOf(rig, 'limited');
    const update = (limits: object) =>
      api.tasks.update({ containerId: 'limited', resources: json(RESOURCES, limits) });
    await update({ memory: { limit: 64 << 20 }, cpu: { shares: 512, quota: 50_000, period: 100_000 } });
    await update({ pids: { limit: 77 } });
    assert.equal(cgroupFile(pid, 'memory', 'memory.limit_in_bytes'), String(64 << 20));
    assert.equal(cgroupFile(pid, 'cpu', 'cpu.shares'), '512');
    assert.equal(cgroupFile(pid, 'cpu', 'cpu.cfs_quota_us'), '50000');
    assert.equal(cgroupFile(pid, 'pids', 'pids.max'), '77');
    await assert.rejects(update({ cpu: { cpus: '4000' } }), /4000|Numerical result|invalid|cpuset/i);
    assert.equal(cgroupFile(pid, 'cpu', 'cpu.shares'), '512');
    await rig.ctr.remove('limited');
  });

  it('pause stops processes that are busy; SIGKILL ends them all the same', async () => {
    using api = services();
    const load = 'for i in 1 2 3; do while :; do :; done & done; wait';
    await rig.ctr.runDetached('busy', ['/bin/sh', '-c', load]);
    await eventually('it is busy', () => containerPids(rig.ctr.namespace, 'busy').length === 4);
    const pid = await pidOf(rig, 'busy');
    await api.tasks.pause({ containerId: 'busy' });
    const used = cgroupFile(pid, 'cpuacct', 'cpuacct.usage');
    await delay(300);
    assert.equal(cgroupFile(pid, 'cpuacct', 'cpuacct.usage'), used);
    const { process } = await api.tasks.get({ containerId: 'busy' });
    assert.equal(process?.status, Status.PAUSED);
    assert.match((await rig.ctr.exec('busy', ['/bin/true'])).stderr, /paused/);
    await api.tasks.kill({ containerId: 'busy', signal: 9, all: true });
    assert.equal((await api.tasks.wait({ containerId: 'busy' })).exitStatus, 137);
    await rig.ctr.remove('busy');
  });

  const recorder = () => {
    const path = join(rig.daemon.directory, 'runc-that-tells');
    writeFileSync(path, `#!/bin/sh\nprintf '%s\\n' "$*" >>${path}.calls\nexec runc "$@"\n`);
    chmodSync(path, 0o755);
    writeFileSync(`${path}.calls`, '');
    return { path, calls: () => readFileSync(`${path}.calls`, 'utf8') };
  };

  it('the runtime’s options are followed: binary, state directory, root switch and keyring', async () => {
    using api = services();
    const { path, calls } = recorder();
    const root = join(rig.daemon.directory, 'elsewhere');
    await rig.ctr.create('told', ['/bin/sleep', '1000']);
    const options = Options.fromPartial({ binaryName: path, root, noPivotRoot: true, noNewKeyring: true });
    const value = Buffer.from(Options.encode(options).finish());
    await api.tasks.create({
      containerId: 'told',
      options: { typeUrl: 'containerd.runc.v1.Options', value },
    });
    await api.tasks.start({ containerId: 'told' });
    assert.match(
      calls(),
      new RegExp(`--root ${root}/${rig.ctr.namespace} .*create .*--no-pivot.*--no-new-keyring`),
    );
    await rig.ctr.remove('told');
    assert.match(calls(), /delete/);
  });
});

suite('tasks beyond containerd', { peers: ['moord'] }, (rig) => {
  const create = async (id: string, container: Any | undefined, request?: Any) => {
    const connection = rig.daemon.connect();
    try {
      const containers = connection.service(ContainersDefinition, rig.ctr.namespace);
      await rig.ctr.create('model', ['/bin/sleep', '1000']);
      const { container: model } = await containers.get({ id: 'model' });
      await rig.ctr.remove('model');
      const runtime = { name: 'io.containerd.runc.v2', options: container };
      await containers.create({ container: { ...model!, id, runtime } });
      const tasks = connection.service(TasksDefinition, rig.ctr.namespace);
      await tasks.create({ containerId: id, options: request });
      await tasks.start({ containerId: id });
    } finally {
      connection[Symbol.dispose]();
    }
  };
  const current = (options: Partial<Options>): Any => ({
    typeUrl: 'containerd.runc.v1.Options',
    value: Buffer.from(Options.encode(Options.fromPartial(options)).finish()),
  });

  it('options of the first generation of clients mean the same', async () => {
    const root = join(rig.daemon.directory, 'old-root');
    const path = join(rig.daemon.directory, 'old-runc');
    writeFileSync(path, `#!/bin/sh\nprintf '%s\\n' "$*" >>${path}.calls\nexec runc "$@"\n`);
    chmodSync(path, 0o755);
    const runtime = RuncOptions.encode(
      RuncOptions.fromPartial({ runtime: path, runtimeRoot: root }),
    ).finish();
    const request = CreateOptions.encode(
      CreateOptions.fromPartial({ noPivotRoot: true, ioUid: 4711, ioGid: 4712 }),
    ).finish();
    await create(
      'old',
      { typeUrl: 'containerd.linux.runc.RuncOptions', value: Buffer.from(runtime) },
      { typeUrl: 'containerd.linux.runc.CreateOptions', value: Buffer.from(request) },
    );
    assert.match(readFileSync(`${path}.calls`, 'utf8'), new RegExp(`--root ${root}/.* create .*--no-pivot`));
    const owner = await rig.ctr.exec('old', ['/bin/stat', '-L', '-c', '%g', '/proc/self/fd/1']);
    assert.equal(owner.stdout, '4712\n', owner.stderr);
    await rig.ctr.remove('old');
  });

  it('streams belong to whom io_uid and io_gid name', async () => {
    await create('owned', current({ ioUid: 1234, ioGid: 2345 }));
    const owner = await rig.ctr.exec('owned', ['/bin/stat', '-L', '-c', '%u:%g', '/proc/self/fd/1']);
    // runc gives them to the process's own user in the end, and leaves the group.
    assert.equal(owner.stdout, '0:2345\n', owner.stderr);
    await rig.ctr.remove('owned');
  });

  it('the shim is in the cgroup that shim_cgroup names', async () => {
    const group = `/${rig.ctr.namespace}-shims`;
    const folder = join('/sys/fs/cgroup/pids', group);
    mkdirSync(folder, { recursive: true });
    try {
      await create('grouped', current({ shimCgroup: group }));
      const shim = processOf(await pidOf(rig, 'grouped'))?.parent ?? 0;
      assert.match(readFileSync(`/proc/${shim}/cgroup`, 'utf8'), new RegExp(`pids:${group}$`, 'm'));
      await rig.ctr.remove('grouped');
    } finally {
      await eventually('the shim has left', () => {
        rmdirSync(folder);
        return true;
      });
    }
  });

  it('systemd_cgroup fails with a reason where there is no systemd', async () => {
    await assert.rejects(create('unmanaged', current({ systemdCgroup: true })), /systemd/);
    assert.equal(await rig.ctr.task('unmanaged'), undefined);
    await rig.ctr.remove('unmanaged');
  });
});
