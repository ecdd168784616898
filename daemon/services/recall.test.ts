/**
 * A new daemon does not wake the shims that have written down all there is to know. It tells the truth all the same, whatever happens
 * before it has talked to them.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Status } from '../../proto/gen/containerd/types/task.ts';
import { freeze } from './testing/freeze.ts';
import { alive, Host } from './testing/host.ts';

const OWN = '';
const SIGKILL = 9;
const sleeper = ['/bin/sleep', '1000'];
const PROCESS = 'types.containerd.io/opencontainers/runtime-spec/1/Process';

const record = (host: Host, id: string): string => join(host.bundle(id), 'state.json');

async function shown(host: Host, id: string): Promise<[number, number] | undefined> {
  const { tasks } = await host.tasks.list({}, host.as);
  const task = tasks.find((each) => each.id === id);
  return task && [task.status, task.pid];
}

async function restart(host: Host): Promise<Record<string, number>> {
  await host.kill();
  return host.start();
}

/** Restarts the daemon until no event is on its way: one that the killed daemon did not answer would have the shim asked. */
async function calm(host: Host, ...ids: string[]): Promise<void> {
  await restart(host);
  await host.until('the shims have nothing to tell', () => ids.every((id) => existsSync(record(host, id))));
}

async function startExec(host: Host, containerId: string, execId: string, args: string[]): Promise<void> {
  const value = Buffer.from(JSON.stringify({ args, cwd: '/', env: ['PATH=/bin'], user: { uid: 0, gid: 0 } }));
  await host.tasks.exec({ containerId, execId, spec: { typeUrl: PROCESS, value } }, host.as);
  await host.tasks.start({ containerId, execId }, host.as);
}

async function remove(host: Host, ...ids: string[]): Promise<void> {
  for (const containerId of ids) {
    await host.tasks.kill({ containerId, signal: SIGKILL }, host.as).catch(() => {});
    await host.tasks.wait({ containerId }, host.as);
    await host.tasks.delete({ containerId }, host.as);
  }
  await host.nothingLeft();
}

test('created, running and paused tasks are shown while their shims cannot say a word', async () => {
  await using host = new Host();
  await host.start();
  host.container('created', sleeper, OWN);
  const created = await host.create('created');
  const running = await host.run('running', sleeper, OWN);
  const paused = await host.run('paused', sleeper, OWN);
  await host.tasks.pause({ containerId: 'paused' }, host.as);
  await calm(host, 'created', 'running', 'paused');
  const shims = host.shims();
  await host.kill();
  await Promise.all(shims.map(freeze));
  const summary = await host.start();
  assert.deepEqual([summary['live'], summary['unmet']], [3, 3]);
  assert.deepEqual(await shown(host, 'created'), [Status.CREATED, created]);
  assert.deepEqual(await shown(host, 'running'), [Status.RUNNING, running]);
  assert.deepEqual(await shown(host, 'paused'), [Status.PAUSED, paused]);
  for (const pid of shims) process.kill(pid, 'SIGCONT');
  // Calls go to the shim, which is met for them.
  assert.equal(await host.startTask('created'), created);
  await host.tasks.resume({ containerId: 'paused' }, host.as);
  assert.deepEqual(await shown(host, 'paused'), [Status.RUNNING, paused]);
  await remove(host, 'created', 'running', 'paused');
});

test('an exit after the recovery reaches subscribers and lists, though nobody has called the shim', async () => {
  await using host = new Host();
  await host.start();
  const pid = await host.run('a', sleeper, OWN);
  await calm(host, 'a');
  assert.equal((await restart(host))['unmet'], 1);
  process.kill(pid, 'SIGKILL');
  await host.until('the exit is told', () => host.exitsOf('a').length > 0);
  assert.deepEqual(await shown(host, 'a'), [Status.STOPPED, pid]);
  assert.equal((await host.tasks.wait({ containerId: 'a' }, host.as)).exitStatus, 128 + SIGKILL);
  await remove(host, 'a');
  assert.deepEqual(host.exitsOf('a'), [128 + SIGKILL]);
});

test('an exit that is known to all is shown from the record, with its status and time', async () => {
  await using host = new Host();
  await host.start();
  const pid = await host.run('a', ['/bin/sh', '-c', 'exit 42'], OWN);
  const end = await host.tasks.wait({ containerId: 'a' }, host.as);
  const published = () => /"published":true/.test(readFileSync(join(host.bundle('a'), 'exit.json'), 'utf8'));
  await host.until('the exit is recorded as told', published);
  assert.equal((await restart(host))['unmet'], 1);
  const { process: task } = await host.tasks.get({ containerId: 'a' }, host.as);
  assert.deepEqual([task?.status, task?.pid, task?.exitStatus], [Status.STOPPED, pid, 42]);
  assert.deepEqual(task?.exitedAt, end.exitedAt);
  assert.equal((await host.tasks.delete({ containerId: 'a' }, host.as)).exitStatus, 42);
  assert.deepEqual(host.exitsOf('a'), [42]);
  await host.nothingLeft();
});

test('a shim that holds events has none on record, and is asked before the daemon serves', async () => {
  await using host = new Host();
  await host.start();
  await host.run('a', sleeper, OWN);
  await calm(host, 'a');
  await startExec(host, 'a', 'job', [
    '/bin/sh',
    '-c',
    'while [ ! -e /proc/1/root/dev/go ]; do sleep 0.01; done',
  ]);
  await host.kill();
  const init = Number(readFileSync(join(host.bundle('a'), 'init.pid'), 'latin1'));
  writeFileSync(`/proc/${init}/root/dev/go`, '');
  await host.until('the record goes', () => !existsSync(record(host, 'a')));
  const summary = await host.start();
  assert.deepEqual([summary['live'], summary['unmet']], [1, 0]);
  const jobs = host.events().filter(({ topic, id }) => topic === '/tasks/exit' && id === 'job');
  assert.deepEqual(
    jobs.map(({ status }) => status),
    [0],
  );
  await host.until('the record is back', () => existsSync(record(host, 'a')));
  await remove(host, 'a');
});

test('a shim that dies before it has been talked to is cleaned up after when somebody looks', async () => {
  await using host = new Host();
  await host.start();
  const pid = await host.run('a', sleeper, OWN);
  await calm(host, 'a');
  assert.equal((await restart(host))['unmet'], 1);
  process.kill(host.shimOf('a'), 'SIGKILL');
  await host.until('the shim is gone', () => host.shims().length === 0);
  // Whoever asks while the daemon finds out may be told what was true before.
  while ((await shown(host, 'a'))?.[0] !== Status.STOPPED) await sleep(10);
  assert.deepEqual(await shown(host, 'a'), [Status.STOPPED, pid]);
  assert.ok(!alive(pid));
  assert.deepEqual(host.exitsOf('a'), [128 + SIGKILL]);
  assert.equal((await host.tasks.delete({ containerId: 'a' }, host.as)).exitStatus, 128 + SIGKILL);
  await host.nothingLeft();
});

test('a record that is missing, damaged, of another form or of another process makes the daemon ask', async () => {
  await using host = new Host();
  await host.start();
  const pid = await host.run('a', sleeper, OWN);
  await calm(host, 'a');
  const good = readFileSync(record(host, 'a'), 'utf8');
  const { shim, ...rest } = JSON.parse(good) as { shim: { pid: number; started: string } };
  const bad = [
    undefined,
    '',
    good.slice(0, -10),
    'null',
    JSON.stringify({ ...rest, shim, version: 2 }),
    JSON.stringify({ ...rest, shim, status: 'asleep' }),
    JSON.stringify({ ...rest, shim, pid: -1 }),
    JSON.stringify({ ...rest, shim: { ...shim, started: '1' } }),
    JSON.stringify({ ...rest, shim: { ...shim, pid: process.pid } }),
  ];
  for (const text of bad) {
    await host.kill();
    if (text === undefined) rmSync(record(host, 'a'));
    else writeFileSync(record(host, 'a'), text);
    const summary = await host.start();
    assert.deepEqual([summary['live'], summary['unmet']], [1, 0], `record: ${text}`);
    assert.deepEqual(await shown(host, 'a'), [Status.RUNNING, pid]);
  }
  writeFileSync(record(host, 'a'), good);
  assert.equal((await restart(host))['unmet'], 1);
  await remove(host, 'a');
});

test('a deletion that is refused leaves the record, one that is done takes it away first', async () => {
  await using host = new Host();
  await host.start();
  await host.run('a', sleeper, OWN);
  await calm(host, 'a');
  await assert.rejects(host.tasks.delete({ containerId: 'a' }, host.as), /running/);
  assert.equal((await restart(host))['unmet'], 1);
  await remove(host, 'a');
});
