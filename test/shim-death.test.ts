/** A shim that is killed takes its container with it, visibly and wholly; nothing else is touched. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { describe } from './harness/program.ts';
import { containerPids } from './harness/daemon.ts';
import { EventStream } from './harness/events.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { alive, killProcess, processOf } from './harness/processes.ts';
import { eventually, soon } from './harness/wait.ts';

suite('a killed shim', { peers: ['moord'] }, (rig) => {
  /** The container's shim: the init is its child. */
  const shimOf = async (id: string): Promise<number> => {
    const { pid = 0 } = (await rig.ctr.task(id)) ?? {};
    const parent = processOf(pid)?.parent ?? 1;
    assert.ok(parent > 1 && parent !== rig.daemon.pid, 'the container has a shim');
    return parent;
  };
  const family = 'sleep 1000 & sleep 1000 & wait';

  /** After the death: no process is left, and the container can be deleted and made anew. */
  const isOver = async (id: string) => {
    await eventually('its processes are gone', () => containerPids(rig.ctr.namespace, id).length === 0);
    await eventually('the container can be deleted', async () => {
      await rig.ctr.call(['tasks', 'rm', id]);
      return (await rig.ctr.call(['containers', 'rm', id])).code === 0;
    });
    // containerd keeps the name of the task for a moment after the container is deleted.
    await eventually('the container can be made anew', async () => {
      const anew = await rig.ctr.run(id, ['/bin/echo', 'anew'], ['--rm']);
      if (anew.code !== 0) throw new Error(describe(anew));
      return anew.stdout === 'anew\n';
    });
  };

  it('while the daemon is up: exit 137 is told once, the processes are gone, others are untouched', async () => {
    const { ctr, daemon } = rig;
    await ctr.runDetached('bystander', ['/bin/sleep', '1000']);
    const bystander = await ctr.task('bystander');
    const before = holdings(daemon);
    using events = await EventStream.open(ctr);
    await ctr.runDetached('victim', ['/bin/sh', '-c', family]);
    const pid = (await ctr.task('victim'))?.pid;
    await killProcess(await shimOf('victim'));
    const exit = await events.sees('victim', '/tasks/exit');
    assert.equal(exit.body['exit_status'], 137);
    assert.equal(exit.body['pid'], pid);
    await eventually('its processes are gone', () => containerPids(ctr.namespace, 'victim').length === 0);
    assert.equal(events.of('victim', '/tasks/exit').length, 1);
    await isOver('victim');
    assert.deepEqual(await ctr.task('bystander'), bystander);
    await ctr.remove('bystander');
    events[Symbol.dispose]();
    await expectNothingLeft(daemon, before);
  });

  it('a client that waits for the container or for an exec is told', async () => {
    const { ctr } = rig;
    const waiting = ctr.run('awaited', ['/bin/sleep', '1000']);
    await eventually('it runs', async () => (await ctr.task('awaited'))?.status === 'RUNNING');
    const exec = ctr.exec('awaited', ['/bin/sleep', '1000']);
    await eventually('the exec runs', () => containerPids(ctr.namespace, 'awaited').length === 2);
    await killProcess(await shimOf('awaited'));
    assert.notEqual((await soon('ctr run returns', waiting)).code, 0);
    assert.notEqual((await soon('ctr exec returns', exec)).code, 0);
    await isOver('awaited');
  });

  it('while the daemon is down: seen at the next start, all the same', async () => {
    const { ctr, daemon, peer } = rig;
    const before = holdings(daemon);
    using events = EventStream.follow(daemon, ctr.namespace);
    await ctr.runDetached('orphan', ['/bin/sh', '-c', family]);
    await ctr.runDetached('sibling', ['/bin/sleep', '1000']);
    await events.sees('sibling', '/tasks/start', { within: 30_000 });
    const sibling = await ctr.task('sibling');
    const shim = await shimOf('orphan');
    await daemon.kill9();
    await killProcess(shim);
    await daemon.start();
    await eventually('its processes are gone', () => containerPids(ctr.namespace, 'orphan').length === 0);
    if (peer === 'moord') {
      // containerd tells it to nobody: it cleans up before it serves.
      const exit = await events.sees('orphan', '/tasks/exit', { within: 30_000 });
      assert.equal(exit.body['exit_status'], 137);
      assert.equal(events.of('orphan', '/tasks/exit').length, 1);
    }
    await isOver('orphan');
    assert.deepEqual(await ctr.task('sibling'), sibling);
    assert.ok(alive(sibling?.pid ?? 0));
    await ctr.remove('sibling');
    events[Symbol.dispose]();
    await expectNothingLeft(daemon, before, { except: /^descriptor/ });
  });

  it('every shim at once while the daemon is down: it starts, and all can be deleted', async () => {
    const { ctr, daemon } = rig;
    const before = holdings(daemon);
    const ids = ['all-0', 'all-1', 'all-2', 'all-3'];
    for (const id of ids) await ctr.runDetached(id, ['/bin/sleep', '1000']);
    await daemon.kill9();
    await Promise.all(daemon.shims().map((pid) => killProcess(pid)));
    await daemon.start();
    for (const id of ids) await isOver(id);
    await expectNothingLeft(daemon, before, { except: /^descriptor/ });
  });

  it('the daemon’s helpers killed while it is up: the next container runs all the same', async () => {
    const { ctr, daemon } = rig;
    assert.equal((await ctr.run('before', ['/bin/true'], ['--rm'])).code, 0);
    await Promise.all(daemon.shims().map((pid) => killProcess(pid)));
    for (let round = 0; round < 3; round += 1) {
      const outcome = await ctr.run(`next-${round}`, ['/bin/echo', 'still'], ['--rm']);
      assert.equal(outcome.stdout, 'still\n', describe(outcome));
    }
  });
});
