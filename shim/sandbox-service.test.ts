import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Code, isCode } from '../ttrpc/errors.ts';
import { eventually, type Shim, Workshop } from './fixture.test.ts';

const SIGKILL = 9;

/** A container in the sandbox of a shim, beside others. */
async function runBeside(workshop: Workshop, shim: Shim, id: string): Promise<number> {
  const bundle = join(workshop.folder, `${shim.id}-${id}`);
  mkdirSync(bundle);
  const spec = shim.spec({ args: ['sleep', '1000'] }) as { linux: object };
  const linux = { ...spec.linux, cgroupsPath: `/${workshop.namespace}/${id}` };
  writeFileSync(join(bundle, 'config.json'), JSON.stringify({ ...spec, linux }));
  const rootfs = [{ type: 'bind', source: workshop.rootfs, options: ['rbind', 'rw'] }];
  await shim.task.create({ id, bundle, rootfs });
  return (await shim.task.start({ id })).pid;
}

test('a shim becomes a sandbox, which is started, asked, stopped and shut down', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const asked = { sandboxId: 'pod' };
  const notThere = (error: unknown) => isCode(error, Code.NotFound);
  await assert.rejects(shim.sandbox.startSandbox(asked), notThere);
  await assert.rejects(shim.sandbox.createSandbox({}), (error) => isCode(error, Code.InvalidArgument));
  await shim.sandbox.createSandbox(asked);
  await assert.rejects(shim.sandbox.createSandbox(asked), (error) => isCode(error, Code.AlreadyExists));
  await assert.rejects(shim.sandbox.pingSandbox({ sandboxId: 'other' }), notThere);
  assert.equal((await shim.sandbox.sandboxStatus(asked)).state, 'SANDBOX_NOTREADY');
  assert.equal((await shim.sandbox.startSandbox(asked)).pid, shim.pid);
  await shim.sandbox.pingSandbox(asked);
  const { platform } = await shim.sandbox.platform(asked);
  assert.equal(platform?.os, 'linux');
  const ready = await shim.sandbox.sandboxStatus(asked);
  assert.deepEqual([ready.state, ready.pid], ['SANDBOX_READY', shim.pid]);
  // Neither a task's end nor a signal ends a sandbox.
  await shim.task.shutdown({ id: 'pod' });
  process.kill(shim.pid, 'SIGTERM');
  const waited = shim.sandbox.waitSandbox(asked);
  await shim.sandbox.stopSandbox(asked);
  const { exitedAt } = await waited;
  const stopped = await shim.sandbox.sandboxStatus(asked);
  assert.deepEqual([stopped.state, stopped.exitedAt], ['SANDBOX_NOTREADY', exitedAt]);
  await assert.rejects(shim.sandbox.startSandbox(asked), (error) => isCode(error, Code.FailedPrecondition));
  await shim.sandbox.shutdownSandbox(asked);
  await eventually('the shim ends', () => shim.process.exitCode === 0);
});

test('a sandbox’s shim takes several containers, each with its own life, which end with the sandbox', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  const asked = { sandboxId: 'pod' };
  await shim.sandbox.createSandbox(asked);
  await shim.sandbox.startSandbox(asked);
  const pids = [await runBeside(workshop, shim, 'one'), await runBeside(workshop, shim, 'two')];
  await assert.rejects(runBeside(workshop, shim, 'two'));
  assert.equal((await shim.task.connect({ id: 'two' })).taskPid, pids[1]);
  await shim.task.kill({ id: 'one', signal: SIGKILL });
  assert.equal((await shim.task.wait({ id: 'one' })).exitStatus, 137);
  assert.equal((await shim.task.delete({ id: 'one' })).pid, pids[0]);
  assert.ok(existsSync(`/proc/${pids[1]}`));
  await shim.sandbox.stopSandbox(asked);
  assert.equal((await shim.task.wait({ id: 'two' })).exitStatus, 137);
  await shim.task.delete({ id: 'two' });
  await assert.rejects(runBeside(workshop, shim, 'three'), /has been stopped/);
  await shim.moor.flush({});
  const created = daemon.topics().filter((topic) => topic === 'create');
  const deleted = daemon.topics().filter((topic) => topic === 'delete');
  assert.deepEqual([created.length, deleted.length], [2, 2]);
  await shim.sandbox.shutdownSandbox(asked);
  await eventually('the shim ends', () => shim.process.exitCode === 0);
});

test('a shim that has a container becomes no sandbox', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({ args: ['sleep', '1000'] });
  await assert.rejects(shim.sandbox.createSandbox({ sandboxId: 'pod' }), /has the container/);
  await shim.kill(SIGKILL);
  await shim.wait();
  await shim.delete();
});
