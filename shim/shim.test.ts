import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pack } from './any.ts';
import { readExitRecord } from './exit-record.ts';
import { eventually, processSpec, Reader, Workshop } from './fixture.test.ts';

const SIGKILL = 9;
const SIGTERM = 15;

test('a container runs, prints, ends and is deleted, and every step is told in order', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  const out = new Reader(workshop.folder, 'out').open();
  const pid = await shim.run({ args: ['sh', '-c', 'echo hello; exit 42'], stdout: out.path });
  assert.ok(pid > 0);
  assert.equal((await shim.wait()).exitStatus, 42);
  assert.equal(await out.end(), 'hello\n');
  const deleted = await shim.delete();
  assert.equal(deleted.exitStatus, 42);
  assert.equal(deleted.pid, pid);
  await shim.moor.flush({});
  assert.deepEqual(daemon.topics(), ['create', 'start', 'exit', 'delete']);
});

test('the exit is written down, and marked when the daemon has acknowledged it', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  const pid = await shim.run({ args: ['sh', '-c', 'exit 7'] });
  await shim.wait();
  const record = await eventually('the record', () => {
    const found = readExitRecord(shim.bundle);
    return found?.published === true ? found : undefined;
  });
  assert.deepEqual([record.exit.pid, record.exit.status], [pid, 7]);
  assert.deepEqual(record.exit.at, (await daemon.exit(shim.id)).exitedAt);
});

test('states follow the life of the container', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.create();
  assert.equal((await shim.state()).status, 1);
  await shim.start();
  assert.equal((await shim.state()).status, 2);
  await shim.task.pause({ id: shim.id });
  assert.equal((await shim.state()).status, 4);
  await shim.task.resume({ id: shim.id });
  assert.equal((await shim.state()).status, 2);
  await shim.kill(SIGTERM);
  // sleep is process 1 of its PID namespace and has no handler for it.
  await shim.kill(SIGKILL);
  assert.equal((await shim.wait()).exitStatus, 137);
  const stopped = await shim.state();
  assert.deepEqual([stopped.status, stopped.exitStatus], [3, 137]);
  assert.ok(stopped.exitedAt !== undefined);
});

test('a paused container can be killed', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  await shim.task.pause({ id: shim.id });
  await shim.kill(SIGKILL);
  assert.equal((await shim.wait()).exitStatus, 137);
  await shim.delete();
});

test('signals end a process with 128 and their number', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  for (const signal of [1, 2, 3, 6, 9, 10, 15, 34]) {
    await shim.exec(`s${signal}`, ['sleep', '1000']);
    await shim.kill(signal, `s${signal}`);
    assert.equal((await shim.wait(`s${signal}`)).exitStatus, 128 + signal);
  }
});

test('what is asked in the wrong state is refused, and nothing breaks', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const failedPrecondition = (message: RegExp) => ({ code: 9, message });
  await assert.rejects(shim.start(), { code: 5, message: /container not created/ });
  await shim.create();
  await assert.rejects(
    shim.task.pause({ id: shim.id }),
    failedPrecondition(/cannot pause a created process/),
  );
  await shim.start();
  await assert.rejects(shim.create(), { code: 6 });
  await assert.rejects(shim.start(), failedPrecondition(/cannot start a running process/));
  await assert.rejects(shim.delete(), failedPrecondition(/cannot delete a running process/));
  await assert.rejects(
    shim.task.resume({ id: shim.id }),
    failedPrecondition(/cannot resume a running process/),
  );
  await assert.rejects(shim.state('nope'), { code: 5, message: /process does not exist nope/ });
  await assert.rejects(shim.kill(99), { code: 3 });
  await shim.exec('twice', ['sleep', '100']);
  await assert.rejects(shim.exec('twice', ['true']), { code: 6 });
  await assert.rejects(shim.delete('twice'), failedPrecondition(/cannot delete a running process/));
  await assert.rejects(
    shim.task.shutdown({ id: 'x' }).then(() => shim.task.state({ id: 'x' })),
    { code: 5 },
  );
  await shim.kill(SIGKILL);
  await shim.wait();
  await assert.rejects(shim.kill(SIGKILL), { code: 5, message: /process already finished/ });
  await assert.rejects(shim.exec('late', ['true']), failedPrecondition(/cannot exec in a stopped state/));
  await assert.rejects(shim.start(), failedPrecondition(/cannot start a stopped process/));
  await shim.delete();
  await assert.rejects(shim.delete(), { code: 5 });
});

test('a container that was never started can be deleted, and its end is told', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  await shim.create();
  assert.equal((await shim.delete()).exitStatus, 137);
  await shim.moor.flush({});
  assert.deepEqual(daemon.topics(), ['create', 'exit', 'delete']);
});

test("a failed creation says the runtime's own words and leaves nothing", async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await assert.rejects(shim.create({ args: ['nope'] }), {
    code: 2,
    message: /^OCI runtime create failed: .*exec: "nope": executable file not found in \$PATH/,
  });
  assert.ok(!readFileSync('/proc/self/mounts', 'utf8').includes(shim.bundle));
  assert.deepEqual(readdirSync(join(workshop.folder, 'runc', workshop.namespace)), []);
  assert.ok(!existsSync(`/sys/fs/cgroup/memory/${workshop.namespace}/${shim.id}`));
  await shim.run({ args: ['true'] });
  assert.equal((await shim.wait()).exitStatus, 0);
});

test('what is missing or damaged is named', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const { id, bundle } = shim;
  await assert.rejects(shim.task.create({ id, bundle }), { code: 3, message: /config\.json/ });
  shim.writeSpec();
  await assert.rejects(shim.task.create({ id, bundle: 'relative' }), { code: 3, message: /relative/ });
  await assert.rejects(shim.task.create({ id, bundle, options: { typeUrl: 'x/y.Z' } }), {
    code: 3,
    message: /y\.Z/,
  });
  await assert.rejects(shim.create({ stdout: '/nope/fifo' }), { code: 3, message: /\/nope\/fifo/ });
  await assert.rejects(shim.create({ stdout: 'gopher://x' }), { code: 3, message: /gopher/ });
  const rootfs = [
    { type: 'bind', source: workshop.rootfs, options: ['bind'] },
    { type: 'bind', source: '/nope/rootfs', options: ['bind'] },
  ];
  await assert.rejects(shim.task.create({ id, bundle, rootfs }), {
    code: 9,
    message: /\/nope\/rootfs.*ENOENT|no such file/,
  });
  assert.ok(!readFileSync('/proc/self/mounts', 'utf8').includes(bundle));
});

test('the shim leaves when its container is deleted, and takes its socket along', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({ args: ['sleep', '100'] });
  await shim.task.shutdown({ id: shim.id });
  assert.equal((await shim.state()).status, 2);
  await shim.kill(SIGKILL);
  await shim.wait();
  await shim.delete();
  const gone = new Promise((resolve) => shim.process.once('exit', resolve));
  await shim.task.shutdown({ id: shim.id });
  assert.equal(await gone, 0);
  assert.ok(!existsSync(shim.socket));
});

test('a shim that is killed is cleaned up after: exit 137, no process, mount or cgroup', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const pid = await shim.run({});
  process.kill(shim.pid, SIGKILL);
  await eventually('the end of the shim', () => shim.process.signalCode !== null);
  const { DeleteResponse } = await import('../proto/gen/containerd/task/v2.ts');
  const response = DeleteResponse.decode(shim.command('delete'));
  assert.deepEqual([response.pid, response.exitStatus], [pid, 137]);
  const status = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'latin1') : ' Z ';
  assert.match(status, / Z /);
  assert.ok(!readFileSync('/proc/self/mounts', 'utf8').includes(shim.bundle));
  assert.ok(!existsSync(`/sys/fs/cgroup/memory/${workshop.namespace}/${shim.id}`));
  // And again, when nothing at all is left.
  assert.equal(DeleteResponse.decode(shim.command('delete')).exitStatus, 137);
});

test('a dead shim that has seen the exit is believed', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({ args: ['sh', '-c', 'exit 5'] });
  await shim.wait();
  process.kill(shim.pid, SIGKILL);
  await eventually('the end of the shim', () => shim.process.signalCode !== null);
  const { DeleteResponse } = await import('../proto/gen/containerd/task/v2.ts');
  assert.equal(DeleteResponse.decode(shim.command('delete')).exitStatus, 5);
});

test('signals from outside do not end a shim that has a container', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(shim.pid, signal);
  assert.equal((await shim.state()).status, 2);
  await shim.kill(SIGKILL);
  await shim.wait();
  await shim.delete();
  const gone = new Promise((resolve) => shim.process.once('exit', resolve));
  process.kill(shim.pid, 'SIGTERM');
  assert.equal(await gone, 0);
});

test('who waits for a process that never runs is told so', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  const spec = pack('Process', processSpec(['true']));
  await shim.task.exec({ id: shim.id, execId: 'e', spec });
  const waiting = assert.rejects(shim.wait('e'), { code: 5, message: /deleted before it ran/ });
  await shim.delete('e');
  await waiting;
  await shim.task.exec({ id: shim.id, execId: 'f', spec: pack('Process', processSpec(['nope'])) });
  const failing = assert.rejects(shim.wait('f'), { message: /executable file not found/ });
  await assert.rejects(shim.task.start({ id: shim.id, execId: 'f' }));
  await failing;
});
