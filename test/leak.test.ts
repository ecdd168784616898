/** After many containers nothing is held that was not held before. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ContainersDefinition } from '../proto/gen/containerd/services/containers.ts';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { containerPids } from './harness/daemon.ts';
import { EventStream } from './harness/events.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { processes } from './harness/processes.ts';
import { eventually } from './harness/wait.ts';

suite('many containers', { peers: ['moord'] }, (rig) => {
  /** The first container opens what is opened once (connections, the namespace's directories). */
  const warmUp = async () => {
    await rig.ctr.runDetached('first', ['/bin/sleep', '1000']);
    await rig.ctr.exec('first', ['/bin/true']);
    await rig.ctr.remove('first');
  };

  it('100 cycles of create, start, exec and delete leave nothing', { timeout: 120_000 }, async () => {
    await warmUp();
    await rig.ctr.create('template', ['/bin/sleep', '1000']);
    using connection = rig.daemon.connect();
    const containers = connection.service(ContainersDefinition, rig.ctr.namespace);
    const tasks = connection.service(TasksDefinition, rig.ctr.namespace);
    const { container: template } = await containers.get({ id: 'template' });
    await rig.ctr.ok('containers', 'rm', 'template');
    const before = holdings(rig.daemon);
    const process = { args: ['/bin/sh', '-c', 'exit 3'], cwd: '/', env: [], user: { uid: 0, gid: 0 } };
    const spec = {
      typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process',
      value: Buffer.from(JSON.stringify(process)),
    };
    for (let round = 0; round < 100; round += 1) {
      const containerId = 'template';
      await containers.create({ container: { ...template, createdAt: undefined, updatedAt: undefined } });
      await tasks.create({ containerId });
      await tasks.start({ containerId });
      await tasks.exec({ containerId, execId: 'side', spec });
      const exited = tasks.wait({ containerId, execId: 'side' });
      await tasks.start({ containerId, execId: 'side' });
      assert.equal((await exited).exitStatus, 3);
      assert.equal((await tasks.deleteProcess({ containerId, execId: 'side' })).exitStatus, 3);
      const ended = tasks.wait({ containerId });
      await tasks.kill({ containerId, signal: 9 });
      assert.equal((await ended).exitStatus, 137);
      assert.equal((await tasks.delete({ containerId })).exitStatus, 137);
      await containers.delete({ id: containerId });
    }
    connection[Symbol.dispose]();
    // The test's own connection was open when the count began.
    await expectNothingLeft(rig.daemon, before);
  });

  it('30 containers at once leave nothing', { timeout: 120_000 }, async () => {
    await warmUp();
    const before = holdings(rig.daemon);
    const ids = Array.from({ length: 30 }, (_, index) => `crowd-${index}`);
    await Promise.all(ids.map((id) => rig.ctr.runDetached(id, ['/bin/sleep', '1000'])));
    const tasks = await rig.ctr.tasks();
    assert.ok(ids.every((id) => tasks.get(id)?.status === 'RUNNING'));
    const outcomes = await Promise.all(ids.map((id) => rig.ctr.exec(id, ['/bin/hostname'])));
    assert.ok(outcomes.every(({ code }) => code === 0));
    await Promise.all(ids.map((id) => rig.ctr.remove(id)));
    await expectNothingLeft(rig.daemon, before);
  });

  it('containers that fail to start leave nothing', async () => {
    await warmUp();
    const before = holdings(rig.daemon);
    for (let round = 0; round < 10; round += 1)
      assert.equal((await rig.ctr.run('failing', ['/bin/nope'], ['--rm'])).code, 1);
    await rig.ctr.remove('failing');
    await expectNothingLeft(rig.daemon, before);
  });
});

suite('exits', { peers: ['moord'] }, (rig) => {
  it('the init’s exit is told among those of many execs, and each exec’s too', async () => {
    using events = await EventStream.open(rig.ctr);
    await rig.ctr.runDetached('busy', ['/bin/sleep', '1000']);
    const execs = Array.from({ length: 30 }, (_, index) => `side-${index}`);
    await Promise.all(
      execs.map((exec) =>
        rig.ctr.ok(...rig.ctr.execArgs('busy', ['/bin/sleep', '1000'], ['-d', '--exec-id', exec])),
      ),
    );
    await rig.ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'busy');
    await eventually('all 31 exits are told', () => events.of('busy', '/tasks/exit').length === 31);
    const told = events.of('busy', '/tasks/exit').map(({ body }) => body['id']);
    assert.deepEqual(new Set(told), new Set([...execs, 'busy']));
    await rig.ctr.remove('busy');
  });

  it('orphans of the container are reaped', async () => {
    const forks = 'i=0; while [ $i -lt 20 ]; do (sleep 0.01 & exec true); i=$((i+1)); done; sleep 1000';
    await rig.ctr.runDetached('forker', ['/bin/sh', '-c', 'sleep 1000']);
    for (let round = 0; round < 3; round += 1)
      await rig.ctr.exec('forker', ['/bin/sh', '-c', forks.replace('; sleep 1000', '')]);
    await eventually('only the init and its child are left', () => {
      const members = new Set(containerPids(rig.ctr.namespace, 'forker'));
      const zombies = processes().filter(
        ({ pid, state }) => state === 'Z' && rig.daemon.shims().includes(pid),
      );
      return members.size <= 2 && zombies.length === 0;
    });
    await rig.ctr.remove('forker');
  });
});
