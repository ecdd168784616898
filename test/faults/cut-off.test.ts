/**
 * What a client had asked for when its daemon was killed, and was not told: the next daemon knows, and so does the one after it. Each
 * test stands for something that a storm (`storm.ts`) had lost.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { ContainersDefinition } from '../../proto/gen/containerd/services/containers.ts';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import { Code } from '../../ttrpc/errors.ts';
import { EventStream } from '../harness/events.ts';
import { list } from '../harness/leftovers.ts';
import { suite } from '../harness/peers.ts';
import { killProcess, processOf } from '../harness/processes.ts';
import { failureOf } from '../harness/rpc.ts';
import { script } from '../harness/rootfs.ts';
import { eventually } from '../harness/wait.ts';

const directory = mkdtempSync('/tmp/mcut-');
after(() => rmSync(directory, { recursive: true }));
const failpoints = join(directory, 'failpoints');
const arm = (text: string) => writeFileSync(failpoints, text);
arm('');

const PROCESS = 'types.containerd.io/opencontainers/runtime-spec/1/Process';
const within = 30_000;

suite('a call that was cut off', { peers: ['moord'], env: { MOOR_FAILPOINTS: failpoints } }, (rig) => {
  const tasks = () => rig.daemon.connect().service(TasksDefinition, rig.ctr.namespace);
  const processOfCode = (code: number, sleep = 0) => ({
    typeUrl: PROCESS,
    value: Buffer.from(
      JSON.stringify({
        args: ['/bin/sh', '-c', `sleep ${sleep}; exit ${code}`],
        cwd: '/',
        env: ['PATH=/bin'],
        user: { uid: 0, gid: 0 },
      }),
    ),
  });

  /** Has the daemon die at the point, under the call; the next one is there when it resolves. */
  const cut = async (point: string, call: () => Promise<unknown>) => {
    arm(`${point}=kill`);
    const failure = failureOf(call());
    await rig.daemon.ended();
    arm('');
    assert.equal((await failure).code, Code.Unavailable);
    await rig.daemon.start();
  };

  it('the deletion of an exec: its exit is told to whoever asks again', async () => {
    const { ctr } = rig;
    await ctr.runDetached('stage', ['/bin/sleep', '1000']);
    const [containerId, execId] = ['stage', 'side'];
    await tasks().exec({ containerId, execId, spec: processOfCode(7) });
    await tasks().start({ containerId, execId });
    await tasks().wait({ containerId, execId });
    await cut('process-deleted', () => tasks().deleteProcess({ containerId, execId }));
    assert.equal((await tasks().deleteProcess({ containerId, execId })).exitStatus, 7);
    // Its id is free, and a deletion that has been answered is over.
    await tasks().exec({ containerId, execId, spec: processOfCode(8) });
    await tasks().start({ containerId, execId });
    await tasks().wait({ containerId, execId });
    assert.equal((await tasks().deleteProcess({ containerId, execId })).exitStatus, 8);
    assert.equal((await failureOf(tasks().deleteProcess({ containerId, execId }))).code, Code.NotFound);
    await ctr.remove('stage');
  });

  for (const point of ['container-deleted', 'shim-stopped', 'bundle-removed']) {
    it(`the deletion of a task at ${point}: its exit is told also by the daemon after the next`, async () => {
      const { ctr, daemon } = rig;
      using events = EventStream.follow(daemon, ctr.namespace);
      const id = `gone-${point}`;
      await ctr.create(id, script('exit 9'));
      await tasks().create({ containerId: id });
      await events.sees(id, '/tasks/create', { within });
      await tasks().start({ containerId: id });
      await tasks().wait({ containerId: id });
      await cut(point, () => tasks().delete({ containerId: id }));
      // Killed before anybody has asked again.
      await daemon.restart();
      await daemon.restart();
      assert.equal((await tasks().delete({ containerId: id })).exitStatus, 9);
      await events.sees(id, '/tasks/delete', { within });
      using connection = daemon.connect();
      await connection.service(ContainersDefinition, ctr.namespace).delete({ id });
      await events.sees(id, '/containers/delete', { within });
      const told = events.of(id).map(({ topic }) => topic);
      assert.deepEqual(
        told.filter((topic) => topic.startsWith('/tasks/')),
        ['create', 'start', 'exit', 'delete'].map((name) => `/tasks/${name}`),
      );
    });
  }

  it('a new task of the name has nothing of the old one', async () => {
    const { ctr } = rig;
    const containerId = 'twice';
    await ctr.create(containerId, script('exit 9'));
    for (const round of [1, 2]) {
      await tasks().create({ containerId });
      await tasks().start({ containerId });
      await tasks().wait({ containerId });
      if (round === 1) await cut('bundle-removed', () => tasks().delete({ containerId }));
      else await tasks().delete({ containerId });
    }
    await eventually('its files are gone', () => list(rig.daemon.bundle(ctr.namespace, '')).length === 0);
    await rig.daemon.restart();
    assert.equal((await failureOf(tasks().delete({ containerId }))).code, Code.NotFound);
    await ctr.ok('containers', 'rm', containerId);
  });

  for (const point of ['event-recorded', 'event-told', 'event-passed-on']) {
    it(`the news of an end at ${point}: a subscriber that is back hears of it once`, async () => {
      const { ctr, daemon } = rig;
      using events = EventStream.follow(daemon, ctr.namespace);
      const id = `news-${point}`;
      await ctr.runDetached(id, ['/bin/sleep', '1000']);
      await events.sees(id, '/tasks/start', { within });
      arm(`${point}=kill`);
      // Answered or not: the daemon dies of its effect.
      await tasks()
        .kill({ containerId: id, signal: 9 })
        .catch(() => undefined);
      await daemon.ended();
      arm('');
      await daemon.start();
      await ctr.remove(id);
      await events.sees(id, '/containers/delete', { within });
      assert.deepEqual(
        events.of(id).map(({ topic }) => topic),
        [
          '/containers/create',
          '/tasks/create',
          '/tasks/start',
          '/tasks/exit',
          '/tasks/delete',
          '/containers/delete',
        ],
      );
    });
  }

  it('the death of a shim after a restart: its execs have ended as well, as they were', async () => {
    const { ctr, daemon } = rig;
    using events = EventStream.follow(daemon, ctr.namespace);
    const containerId = 'bereft';
    await ctr.runDetached(containerId, ['/bin/sleep', '1000']);
    for (const [execId, spec] of [
      ['ended', processOfCode(7)],
      ['running', processOfCode(1, 1000)],
    ] as const) {
      await tasks().exec({ containerId, execId, spec });
      await tasks().start({ containerId, execId });
    }
    await tasks().wait({ containerId, execId: 'ended' });
    await eventually('both ends are known', () => events.of(containerId, '/tasks/exit').length === 1, {
      within,
    });
    const shim = processOf((await ctr.task(containerId))?.pid ?? 0)?.parent ?? 0;
    await daemon.restart();
    await killProcess(shim);
    assert.equal((await tasks().wait({ containerId, execId: 'running' })).exitStatus, 137);
    await daemon.restart();
    for (const [execId, code] of [
      ['ended', 7],
      ['running', 137],
    ] as const)
      assert.equal((await tasks().deleteProcess({ containerId, execId })).exitStatus, code);
    await ctr.remove(containerId);
    await events.sees(containerId, '/containers/delete', { within });
    assert.deepEqual(
      events.of(containerId, '/tasks/exit').map(({ body }) => [body['id'], body['exit_status']]),
      [
        ['ended', 7],
        ['running', 137],
        [containerId, 137],
      ],
    );
  });
});
