import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Status } from '../../proto/gen/containerd/types/task.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import type { Step } from '../failpoint.ts';
import { freeze } from './testing/freeze.ts';
import { alive, Host } from './testing/host.ts';

const goShim = '/usr/bin/containerd-shim-runc-v2';
const runtimes: [string, string, string | false][] = [
  ["Moor's shim", '', false],
  ["containerd's shim", goShim, existsSync(goShim) ? false : 'containerd is not installed'],
];

const sleeper = ['/bin/sleep', '1000'];
const exits42 = ['/bin/sh', '-c', 'exit 42'];

async function refused(call: Promise<unknown>, code: Code, text: RegExp): Promise<void> {
  await assert.rejects(call, (error: Error) => {
    assert.ok(isCode(error, code), `${error.message}: not code ${code}`);
    assert.match(error.message, text);
    return true;
  });
}

async function statusOf(host: Host, id: string): Promise<number | undefined> {
  const { tasks } = await host.tasks.list({}, host.as);
  return tasks.find((task) => task.id === id)?.status;
}

/** Deletes a running task the way clients do. */
async function remove(host: Host, id: string): Promise<number> {
  await host.tasks.kill({ containerId: id, signal: 9 }, host.as).catch(() => {});
  await host.tasks.wait({ containerId: id }, host.as);
  return (await host.tasks.delete({ containerId: id }, host.as)).exitStatus;
}

for (const [name, runtime, skip] of runtimes) {
  describe(`tasks of ${name}`, { skip, timeout: 600_000 }, () => {
    test('run over kill -9 of the daemon', async () => {
      await using host = new Host();
      await host.start();
      const pids = await Promise.all(['a', 'b', 'c'].map((id) => host.run(id, sleeper, runtime)));
      await host.kill();
      assert.ok(pids.every(alive));
      const summary = await host.start();
      assert.equal(summary.live, 3);
      const { tasks } = await host.tasks.list({}, host.as);
      assert.deepEqual(
        tasks
          .map(({ id, pid, status }) => [id, pid, status])
          .sort(([a], [b]) => String(a).localeCompare(String(b))),
        [
          ['a', pids[0], Status.RUNNING],
          ['b', pids[1], Status.RUNNING],
          ['c', pids[2], Status.RUNNING],
        ],
      );
      for (const id of ['a', 'b', 'c']) assert.equal(await remove(host, id), 137);
      await host.nothingLeft();
      assert.deepEqual(host.exitsOf('a'), [137]);
    });

    test('that end while there is no daemon have their exit published once, and deleted with their status', async () => {
      await using host = new Host();
      await host.start();
      const pid = await host.run('a', ['/bin/sh', '-c', 'read x; exit 42'], runtime);
      const late = await host.run('b', ['/bin/sh', '-c', 'sleep 0.5; exit 42'], runtime);
      await host.kill();
      await host.until('both end', () => !alive(pid) && !alive(late));
      await host.start();
      assert.equal(await statusOf(host, 'b'), Status.STOPPED);
      await host.until('the exit is published', () => host.exitsOf('b').length > 0);
      assert.equal((await host.tasks.wait({ containerId: 'b' }, host.as)).exitStatus, 42);
      assert.equal((await host.tasks.delete({ containerId: 'b' }, host.as)).exitStatus, 42);
      await remove(host, 'a');
      await host.nothingLeft();
      assert.deepEqual(host.exitsOf('b'), [42]);
    });

    test('whose shim is killed are killed: waiters, subscribers and the deleting client are told 137', async () => {
      await using host = new Host();
      await host.start();
      const pid = await host.run('a', sleeper, runtime);
      const waiting = host.tasks.wait({ containerId: 'a' }, host.as);
      process.kill(host.shimOf('a'), 'SIGKILL');
      assert.equal((await waiting).exitStatus, 137);
      assert.ok(!alive(pid));
      assert.equal(await statusOf(host, 'a'), Status.STOPPED);
      await host.until('the exit is published', () => host.exitsOf('a').length > 0);
      await refused(
        host.tasks.kill({ containerId: 'a', signal: 9 }, host.as),
        Code.NotFound,
        /already finished/,
      );
      const exec = { containerId: 'a', execId: 'x', spec: { typeUrl: 'x', value: Buffer.from('{}') } };
      await refused(host.tasks.exec(exec, host.as), Code.FailedPrecondition, /a has stopped/);
      const { exitStatus, pid: deleted } = await host.tasks.delete({ containerId: 'a' }, host.as);
      assert.deepEqual([exitStatus, deleted], [137, pid]);
      await host.nothingLeft();
      assert.deepEqual(host.exitsOf('a'), [137]);
      assert.deepEqual(
        host
          .events()
          .map(({ topic }) => topic)
          .slice(-2),
        ['/tasks/exit', '/tasks/delete'],
      );
    });

    test('whose shim is killed while there is no daemon are cleaned up by the next one', async () => {
      await using host = new Host();
      await host.start();
      const pid = await host.run('a', sleeper, runtime);
      const shim = host.shimOf('a');
      await host.kill();
      process.kill(shim, 'SIGKILL');
      const summary = await host.start();
      assert.equal(summary.dead, 1);
      assert.ok(!alive(pid));
      assert.deepEqual(host.exitsOf('a'), [137]);
      await host.kill();
      await host.start();
      assert.equal(await statusOf(host, 'a'), Status.STOPPED);
      assert.deepEqual(
        host.exitsOf('a'),
        [137],
        'published by the first daemon that saw it, and by no other',
      );
      assert.equal((await host.tasks.delete({ containerId: 'a' }, host.as)).exitStatus, 137);
      await host.nothingLeft();
    });

    for (const step of [
      'bundle-made',
      'shim-started',
      'shim-connected',
      'container-created',
    ] satisfies Step[]) {
      test(`can be created again when the daemon was killed at ${step}`, async () => {
        await using host = new Host();
        await host.start({ MOOR_FAILPOINTS: `${step}=kill` });
        host.container('a', exits42, runtime);
        await assert.rejects(host.create('a'));
        await host.died();
        await host.start();
        await host
          .create('a')
          .catch((error: Error) => assert.ok(isCode(error, Code.AlreadyExists), error.message));
        await host.startTask('a');
        assert.equal((await host.tasks.wait({ containerId: 'a' }, host.as)).exitStatus, 42);
        assert.equal((await host.tasks.delete({ containerId: 'a' }, host.as)).exitStatus, 42);
        await host.nothingLeft();
        assert.deepEqual(host.exitsOf('a'), [42]);
      });
    }

    test('are there or not, but never half, when the daemon was killed in the middle of their creation', async () => {
      await using host = new Host();
      await host.start();
      host.container('a', exits42, runtime, 'create');
      const created = assert.rejects(host.create('a'));
      await host.delayed('create');
      await host.kill();
      await created;
      await host.start();
      await host
        .create('a')
        .catch((error: Error) => assert.ok(isCode(error, Code.AlreadyExists), error.message));
      await host.startTask('a');
      assert.equal((await host.tasks.wait({ containerId: 'a' }, host.as)).exitStatus, 42);
      assert.equal((await host.tasks.delete({ containerId: 'a' }, host.as)).exitStatus, 42);
      await host.nothingLeft();
      assert.deepEqual(host.exitsOf('a'), [42]);
    });

    test('are deleted with their status when the daemon was killed in the middle of their deletion', async () => {
      await using host = new Host();
      await host.start();
      host.container('a', exits42, runtime, 'delete');
      await host.create('a');
      await host.startTask('a');
      await host.tasks.wait({ containerId: 'a' }, host.as);
      await host.until('the exit is published', () => host.exitsOf('a').length > 0);
      const deleted = assert.rejects(host.tasks.delete({ containerId: 'a' }, host.as));
      await host.delayed('delete');
      await host.kill();
      await deleted;
      await host.start();
      assert.equal((await host.tasks.delete({ containerId: 'a' }, host.as)).exitStatus, 42);
      await host.nothingLeft();
      assert.deepEqual(host.exitsOf('a'), [42]);
    });

    test('whose shim is killed in the middle of their creation leave nothing', async () => {
      await using host = new Host();
      await host.start();
      host.container('a', sleeper, runtime, 'create');
      const created = assert.rejects(host.create('a'));
      await host.delayed('create');
      process.kill(host.shimOf('a'), 'SIGKILL');
      await created;
      await host.nothingLeft();
      await host.run('a', sleeper, runtime);
      await remove(host, 'a');
      await host.nothingLeft();
    });

    test('can be started, or have been, when the daemon was killed while starting', async () => {
      await using host = new Host();
      await host.start({ MOOR_FAILPOINTS: 'container-started=kill' });
      host.container('a', exits42, runtime);
      await host.create('a');
      await assert.rejects(host.startTask('a'));
      await host.died();
      await host.start();
      await assert.rejects(host.startTask('a'));
      assert.equal((await host.tasks.wait({ containerId: 'a' }, host.as)).exitStatus, 42);
      assert.equal((await host.tasks.delete({ containerId: 'a' }, host.as)).exitStatus, 42);
      await host.nothingLeft();
      await host.until('the exit is published', () => host.exitsOf('a').length > 0);
      assert.deepEqual(host.exitsOf('a'), [42]);
    });

    for (const step of [
      'delete-begun',
      'container-deleted',
      'shim-stopped',
      'bundle-removed',
    ] satisfies Step[]) {
      test(`tell how they ended to a client whose deletion was cut off at ${step}`, async () => {
        await using host = new Host();
        await host.start({ MOOR_FAILPOINTS: `${step}=kill` });
        await host.run('a', exits42, runtime);
        await host.tasks.wait({ containerId: 'a' }, host.as);
        await host.until('the exit is published', () => host.exitsOf('a').length > 0);
        await assert.rejects(host.tasks.delete({ containerId: 'a' }, host.as));
        await host.died();
        await host.start();
        const gone = step === 'container-deleted' || step === 'bundle-removed';
        assert.equal(await statusOf(host, 'a'), gone ? undefined : Status.STOPPED);
        assert.equal((await host.tasks.get({ containerId: 'a' }, host.as)).process?.status, Status.STOPPED);
        assert.equal((await host.tasks.delete({ containerId: 'a' }, host.as)).exitStatus, 42);
        await refused(host.tasks.delete({ containerId: 'a' }, host.as), Code.NotFound, /task a/);
        await host.nothingLeft();
        assert.deepEqual(host.exitsOf('a'), [42]);
      });
    }

    for (const step of ['process-added', 'process-started'] satisfies Step[]) {
      test(`keep their execs when the daemon was killed at ${step}`, async () => {
        await using host = new Host();
        await host.start({ MOOR_FAILPOINTS: `${step}=kill` });
        await host.run('a', sleeper, runtime);
        const { process } = host.spec('a', ['/bin/sh', '-c', 'exit 7']) as { process: object };
        const typeUrl = 'types.containerd.io/opencontainers/runtime-spec/1/Process';
        const spec = { typeUrl, value: Buffer.from(JSON.stringify(process)) };
        const exec = { containerId: 'a', execId: 'x' };
        await assert.rejects(async () => {
          await host.tasks.exec({ ...exec, spec }, host.as);
          await host.tasks.start(exec, host.as);
        });
        await host.died();
        await host.start();
        await refused(host.tasks.exec({ ...exec, spec }, host.as), Code.AlreadyExists, /x/);
        if (step === 'process-added') await host.tasks.start(exec, host.as);
        assert.equal((await host.tasks.wait(exec, host.as)).exitStatus, 7);
        assert.equal((await host.tasks.deleteProcess(exec, host.as)).exitStatus, 7);
        await remove(host, 'a');
        await host.nothingLeft();
      });
    }

    test("that cannot be created leave nothing, and the error is the runtime's own", async () => {
      await using host = new Host();
      await host.start();
      host.container('a', ['nope'], runtime);
      await refused(
        host.create('a'),
        Code.Unknown,
        /OCI runtime create failed.*"nope": executable file not found/s,
      );
      await refused(host.tasks.get({ containerId: 'a' }, host.as), Code.NotFound, /task a/);
      await host.nothingLeft();
      host.container('a', exits42, runtime);
      await host.create('a');
      await refused(host.create('a'), Code.AlreadyExists, /task a/);
      await refused(
        host.tasks.exec({ containerId: 'a', execId: '../x' }, host.as),
        Code.InvalidArgument,
        /\.\.\/x/,
      );
      await remove(host, 'a');
      await host.nothingLeft();
    });

    test('whose client leaves during the creation are not created, and can be at once', async () => {
      await using host = new Host();
      await host.start();
      host.container('a', sleeper, runtime, 'create');
      await assert.rejects(host.create('a', { timeout: 700 }));
      for (const timeout of [1, 2, 4, 8, 16, 32, 64]) await assert.rejects(host.create('a', { timeout }));
      await host.run('a', sleeper, runtime);
      await remove(host, 'a');
      await host.nothingLeft();
    });

    test('do not hang the list when a shim is stuck', async () => {
      await using host = new Host();
      await host.start();
      await host.run('a', sleeper, runtime);
      await host.run('b', sleeper, runtime);
      const shim = host.shimOf('a');
      await freeze(shim);
      assert.equal(await statusOf(host, 'a'), Status.UNKNOWN);
      assert.equal(await statusOf(host, 'b'), Status.RUNNING);
      await host.kill();
      await host.start();
      assert.equal(await statusOf(host, 'b'), Status.RUNNING);
      process.kill(shim, 'SIGCONT');
      await remove(host, 'a');
      await remove(host, 'b');
      await host.nothingLeft();
    });
  });
}

describe('tasks that share a shim', { skip: runtimes[1]![2], timeout: 300_000 }, () => {
  test('end one by one: what becomes of one does not touch the others', async () => {
    await using host = new Host();
    await host.start();
    const annotations = { 'io.containerd.runc.v2.group': 'pod' };
    const pids: number[] = [];
    for (const id of ['leader', 'a', 'b']) {
      host.container(id, sleeper, goShim, 'create', { annotations });
      await host.create(id);
      pids.push(await host.startTask(id));
    }
    assert.equal(host.shims().length, 1);
    host.container('never', sleeper, goShim, 'create', { annotations });
    await assert.rejects(host.create('never', { timeout: 500 }));
    assert.equal(await remove(host, 'leader'), 137);
    await host.kill();
    await host.start();
    assert.deepEqual(pids.map(alive), [false, true, true]);
    assert.equal(await remove(host, 'a'), 137);
    process.kill(host.shims()[0]!, 'SIGKILL');
    assert.equal((await host.tasks.wait({ containerId: 'b' }, host.as)).exitStatus, 137);
    assert.ok(!alive(pids[2]!));
    assert.equal((await host.tasks.delete({ containerId: 'b' }, host.as)).exitStatus, 137);
    await host.nothingLeft();
  });
});

describe('tasks', { timeout: 300_000 }, () => {
  test('are refused for what cannot be, with the cause', async () => {
    await using host = new Host();
    await host.start();
    await refused(host.tasks.create({ containerId: 'none' }, host.as), Code.NotFound, /none/);
    await refused(host.tasks.create({ containerId: '../x' }, host.as), Code.InvalidArgument, /\.\.\/x/);
    await refused(host.tasks.create({ containerId: 'a' }), Code.FailedPrecondition, /namespace/);
    host.container('a', exits42, '/no/such/shim');
    await refused(host.create('a'), Code.InvalidArgument, /\/no\/such\/shim: no such file/);
    host.container('a', exits42, 'io.containerd.nope.v9');
    await refused(host.create('a'), Code.NotFound, /containerd-shim-nope-v9 is not installed/);
    host.container('a', exits42, 'nope');
    await refused(host.create('a'), Code.InvalidArgument, /invalid runtime name "nope"/);
    const path = join(host.directory, 'containers', host.namespace, 'a');
    host.container('a', exits42, '');
    writeFileSync(
      path,
      Buffer.from(readFileSync(path).toString('latin1').replace('{"oci', '["oci'), 'latin1'),
    );
    await refused(host.create('a'), Code.InvalidArgument, /container a: invalid OCI spec: it is not JSON/);
    assert.deepEqual(host.traces(), []);
  });

  test('whose bundle is damaged while there is no daemon are found all the same', async () => {
    await using host = new Host();
    await host.start();
    const pids = [await host.run('cut', sleeper, ''), await host.run('bare', sleeper, '')];
    await host.stop();
    truncateSync(join(host.bundle('cut'), 'bootstrap.json'), 10);
    for (const name of ['config.json', 'options', 'bootstrap.json', 'log']) {
      rmSync(join(host.bundle('bare'), name), { force: true });
    }
    await host.start();
    assert.deepEqual(
      [await statusOf(host, 'cut'), await statusOf(host, 'bare')],
      [Status.RUNNING, Status.RUNNING],
    );
    assert.ok(pids.every(alive));
    for (const id of ['cut', 'bare']) assert.equal(await remove(host, id), 137);
    await host.nothingLeft();
  });

  test('of other tenants are not seen', async () => {
    await using host = new Host();
    await host.start();
    await host.run('a', sleeper, '');
    const other = { metadata: [['containerd-namespace', 'other']] as [string, string][] };
    assert.deepEqual((await host.tasks.list({}, other)).tasks, []);
    await refused(host.tasks.get({ containerId: 'a' }, other), Code.NotFound, /task a/);
    await refused(host.tasks.kill({ containerId: 'a', signal: 9 }, other), Code.NotFound, /task a/);
    await remove(host, 'a');
    await host.nothingLeft();
  });

  test('half-made on disk are undone, and what is not a task is left alone', async () => {
    await using host = new Host();
    await host.start();
    await host.stop();
    mkdirSync(join(host.directory, 'tasks', host.namespace, 'half', 'rootfs'), { recursive: true });
    mkdirSync(join(host.directory, 'tasks', host.namespace, 'cut'));
    writeFileSync(join(host.directory, 'tasks', host.namespace, 'cut', 'bootstrap.json'), '{"vers');
    mkdirSync(join(host.directory, 'tasks', '.odd'));
    const summary = await host.start();
    assert.equal(summary.undone, 2);
    assert.deepEqual(host.traces(), []);
    assert.ok(existsSync(join(host.directory, 'tasks', '.odd')));
  });
});
