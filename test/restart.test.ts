/** What is moored stays moored: the daemon is killed with -9 at every kind of moment, and comes back. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { containerPids } from './harness/daemon.ts';
import { EventStream } from './harness/events.ts';
import { Gate } from './harness/gate.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { alive, processes } from './harness/processes.ts';
import { eventually } from './harness/wait.ts';

suite('a restart', { peers: ['moord'] }, (rig) => {
  const stopped = (id: string) =>
    eventually(`${id} is stopped`, async () => (await rig.ctr.task(id))?.status === 'STOPPED');

  it('kill -9 with 20 containers: all run on, and what happened meanwhile is known afterwards', async () => {
    const { ctr, daemon } = rig;
    const gate = new Gate();
    using events = EventStream.follow(daemon, ctr.namespace);
    const ids = Array.from({ length: 20 }, (_, index) => `many-${index}`);
    for (const id of ids) await ctr.runDetached(id, ['/bin/sleep', '1000']);
    await ctr.runDetached('leaver', ['/bin/sh', '-c', `${gate.wait}; exit 42`]);
    const before = await ctr.tasks();
    const leaver = before.get('leaver')?.pid ?? 0;

    await daemon.kill9();
    for (const { pid } of before.values())
      assert.ok(alive(pid), `process ${pid} runs while the daemon is down`);
    gate.open();
    await eventually('the leaver ends', () => !alive(leaver));
    await daemon.start();

    const after = await ctr.tasks();
    for (const id of ids) assert.deepEqual(after.get(id), before.get(id));
    assert.equal(after.get('leaver')?.status, 'STOPPED');
    for (const id of ids.slice(0, 5)) {
      const outcome = await ctr.exec(id, ['/bin/sh', '-c', 'echo here; exit 3']);
      assert.deepEqual([outcome.stdout, outcome.code], ['here\n', 3]);
    }
    const exit = await events.sees('leaver', '/tasks/exit');
    assert.equal(exit.body['exit_status'], 42);
    assert.equal(exit.body['pid'], leaver);
    const removed = await ctr.call(['tasks', 'rm', 'leaver']);
    assert.match(removed.stderr, /exit with non-zero exit code 42/);
    await events.sees('leaver', '/tasks/delete');
    assert.equal(events.of('leaver', '/tasks/exit').length, 1, 'the exit is told once');
    using started = await EventStream.open(ctr);
    await ctr.runDetached('next', ['/bin/true']);
    await started.sees('next', '/tasks/exit');
    assert.deepEqual(started.of('leaver'), [], 'a client that was started later asks itself');
    await ctr.remove('next');
    await Promise.all([...ids, 'leaver'].map((id) => ctr.remove(id)));
  });

  it('SIGTERM stops the daemon and leaves the containers alone', async () => {
    const { ctr, daemon } = rig;
    await ctr.runDetached('calm', ['/bin/sleep', '1000']);
    const before = await ctr.task('calm');
    await daemon.terminate();
    assert.ok(alive(before?.pid ?? 0));
    await daemon.start();
    assert.deepEqual(await ctr.task('calm'), before);
    assert.equal((await ctr.exec('calm', ['/bin/true'])).code, 0);
    await ctr.remove('calm');
  });

  it('again and again: a paused container stays paused, an exec stays what it was', async () => {
    const { ctr, daemon } = rig;
    const gate = new Gate();
    await ctr.runDetached('iced', ['/bin/sleep', '1000']);
    await ctr.runDetached('worker', ['/bin/sleep', '1000']);
    await ctr.ok(
      ...ctr.execArgs('worker', ['/bin/sh', '-c', `${gate.wait}; exit 9`], ['-d', '--exec-id', 'job']),
    );
    await ctr.ok('tasks', 'pause', 'iced');
    for (let round = 0; round < 3; round += 1) await daemon.restart();
    assert.equal((await ctr.task('iced'))?.status, 'PAUSED');
    await ctr.ok('tasks', 'resume', 'iced');
    assert.match(await ctr.ok('tasks', 'ps', 'worker'), /job/);
    await daemon.kill9();
    gate.open();
    await eventually('the exec ends', () => containerPids(ctr.namespace, 'worker').length === 1);
    await daemon.start();
    assert.equal((await ctr.call(['tasks', 'rm', '--exec-id', 'job', 'worker'])).code, 9);
    await Promise.all(['iced', 'worker'].map((id) => ctr.remove(id)));
  });

  it('between create and start: the task is created, and can be started or deleted', async () => {
    const { ctr, daemon } = rig;
    const before = holdings(daemon);
    for (const id of ['begun', 'dropped']) {
      await ctr.create(id, ['/bin/sleep', '1000']);
      using connection = daemon.connect();
      await connection.service(TasksDefinition, ctr.namespace).create({ containerId: id });
    }
    await daemon.restart();
    assert.equal((await ctr.task('begun'))?.status, 'CREATED');
    using connection = daemon.connect();
    const tasks = connection.service(TasksDefinition, ctr.namespace);
    const { pid } = await tasks.start({ containerId: 'begun', execId: '' });
    assert.ok(alive(pid));
    assert.equal((await ctr.task('begun'))?.status, 'RUNNING');
    await tasks.delete({ containerId: 'dropped' });
    await ctr.remove('begun');
    await ctr.ok('containers', 'rm', 'dropped');
    await expectNothingLeft(daemon, before, { except: /^descriptor/ });
  });

  it('during a stop: what was told to end is seen to have ended', async () => {
    const { ctr, daemon } = rig;
    const before = holdings(daemon);
    const slow = 'trap "sleep 0.3; exit 17" TERM; echo ready; while :; do sleep 0.02; done';
    await ctr.runDetached('slow', ['/bin/sh', '-c', slow]);
    await ctr.runDetached('struck', ['/bin/sleep', '1000']);
    await delay(100); // until the trap is set, which nothing tells
    const kills = [
      ctr.call(['tasks', 'kill', 'slow']),
      ctr.call(['tasks', 'kill', '-s', 'SIGKILL', 'struck']),
    ];
    await eventually('a process is struck', () => containerPids(ctr.namespace, 'struck').length === 0);
    await daemon.kill9();
    await Promise.all(kills);
    await daemon.start();
    await stopped('struck');
    if (containerPids(ctr.namespace, 'slow').length > 0) await ctr.call(['tasks', 'kill', 'slow']);
    await stopped('slow');
    assert.match((await ctr.call(['tasks', 'rm', 'slow'])).stderr, /exit code 17/);
    assert.match((await ctr.call(['tasks', 'rm', 'struck'])).stderr, /exit code 137/);
    await ctr.ok('containers', 'rm', 'slow', 'struck');
    await expectNothingLeft(daemon, before, { except: /^descriptor/ });
  });

  it('no shim is left of a container that exits while the daemon is down', async () => {
    const { ctr, daemon } = rig;
    const before = holdings(daemon);
    const gate = new Gate();
    const ids = ['gone-0', 'gone-1', 'gone-2'];
    for (const [code, id] of ids.entries())
      await ctr.runDetached(id, ['/bin/sh', '-c', `${gate.wait}; exit ${code + 10}`]);
    await daemon.kill9();
    gate.open();
    await eventually('they end', () => ids.every((id) => containerPids(ctr.namespace, id).length === 0));
    await daemon.start();
    for (const [code, id] of ids.entries()) {
      await stopped(id);
      assert.match((await ctr.call(['tasks', 'rm', id])).stderr, new RegExp(`exit code ${code + 10}`));
      await ctr.ok('containers', 'rm', id);
    }
    await expectNothingLeft(daemon, before, { except: /^descriptor/ });
    assert.ok(!processes().some(({ state, parent }) => state === 'Z' && parent === daemon.pid));
  });
});
