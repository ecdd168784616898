/**
 * The daemon is killed with -9 at random moments of create, exec and delete. Whatever the moment, afterwards the calls can
 * be repeated, the states shown are true, and nothing is stuck or left.
 */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { describe } from './harness/program.ts';
import { containerPids } from './harness/daemon.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { alive } from './harness/processes.ts';
import { seeded } from './harness/seed.ts';
import { eventually } from './harness/wait.ts';

const rounds = Number(process.env['TEST_ROUNDS'] ?? 8);

suite('a daemon killed at random moments', { peers: ['moord'] }, (rig) => {
  /** What is shown of the task is what the process table shows. */
  const isTruthful = async (id: string) => {
    const task = await rig.ctr.task(id);
    if (task?.status === 'RUNNING') {
      assert.ok(alive(task.pid), `${id} is shown as running: so is its process ${task.pid}`);
      const outcome = await rig.ctr.exec(id, ['/bin/true']);
      assert.equal(outcome.code, 0, describe(outcome));
    }
    if (task === undefined || task.status === 'STOPPED')
      await eventually(
        `no process of ${id} is left`,
        () => containerPids(rig.ctr.namespace, id).length === 0,
      );
  };

  /** Deletes the container as a person would, and says what is in the way if that does not work. */
  const isDeletable = async (id: string) => {
    const task = await rig.ctr.call(['tasks', 'rm', '-f', id]);
    assert.ok(task.code === 0 || /not found/.test(task.stderr), describe(task));
    const container = await rig.ctr.call(['containers', 'rm', id]);
    assert.ok(container.code === 0 || /not found/.test(container.stderr), describe(container));
    assert.equal(await rig.ctr.task(id), undefined);
    assert.deepEqual(containerPids(rig.ctr.namespace, id), []);
  };

  // FIFOs in the client's directory are the client's, who was cut off.
  const except = /^descriptor|^fifo .*\/fifo\//;

  it('during create and start', { timeout: 120_000 }, async (context) => {
    const seed = seeded(context);
    const before = holdings(rig.daemon);
    for (let round = 0; round < rounds; round += 1) {
      const id = `create-${round}`;
      const moment = seed.next(180);
      const call = rig.ctr.call(rig.ctr.runArgs(id, ['/bin/sleep', '1000'], ['-d', '--null-io']));
      await delay(moment);
      await rig.daemon.kill9();
      const answer = await call;
      await rig.daemon.start();
      const note = `round ${round}, killed after ${moment.toFixed(1)} ms, ctr: exit ${answer.code}`;
      try {
        if (answer.code === 0) assert.equal((await rig.ctr.task(id))?.status, 'RUNNING');
        await isTruthful(id);
        await isDeletable(id);
        const again = await rig.ctr.run(id, ['/bin/echo', 'again'], ['--rm']);
        assert.equal(again.stdout, 'again\n', describe(again));
      } catch (error) {
        throw new Error(`${note}: ${(error as Error).message}`, { cause: error });
      }
    }
    await expectNothingLeft(rig.daemon, before, { except });
  });

  it('during exec', { timeout: 120_000 }, async (context) => {
    const seed = seeded(context);
    const before = holdings(rig.daemon);
    await rig.ctr.runDetached('stage', ['/bin/sleep', '1000']);
    const task = await rig.ctr.task('stage');
    for (let round = 0; round < rounds; round += 1) {
      const exec = `exec-${round}`;
      const moment = seed.next(120);
      const command = seed.pick([['/bin/true'], ['/bin/sleep', '0.05'], ['/bin/sh', '-c', 'exit 5']]);
      const call = rig.ctr.exec('stage', command, ['--exec-id', exec]);
      await delay(moment);
      await rig.daemon.kill9();
      await call;
      await rig.daemon.start();
      assert.deepEqual(
        await rig.ctr.task('stage'),
        task,
        `round ${round}, killed after ${moment.toFixed(1)} ms`,
      );
      // The exec that was cut is there to be deleted, or is not there: its id can be used again either way.
      await eventually(`exec ${exec} can be deleted`, async () => {
        const outcome = await rig.ctr.call(['tasks', 'rm', '--exec-id', exec, '-f', 'stage']);
        if (outcome.code === 1 && !/not found/.test(outcome.stderr)) throw new Error(describe(outcome));
        return true;
      });
      const again = await rig.ctr.exec('stage', ['/bin/echo', 'again'], ['--exec-id', exec]);
      assert.equal(again.stdout, 'again\n', describe(again));
    }
    assert.deepEqual(containerPids(rig.ctr.namespace, 'stage'), [task?.pid], 'only the init is left');
    await rig.ctr.remove('stage');
    await expectNothingLeft(rig.daemon, before, { except });
  });

  it('during delete', { timeout: 120_000 }, async (context) => {
    const seed = seeded(context);
    const before = holdings(rig.daemon);
    for (let round = 0; round < rounds; round += 1) {
      const id = `delete-${round}`;
      await rig.ctr.runDetached(id, ['/bin/sleep', '1000']);
      const moment = seed.next(120);
      const call = rig.ctr.call(['tasks', 'rm', '-f', id]);
      await delay(moment);
      await rig.daemon.kill9();
      const answer = await call;
      await rig.daemon.start();
      try {
        if (answer.code === 0) assert.equal(await rig.ctr.task(id), undefined);
        await isTruthful(id);
        await isDeletable(id);
      } catch (error) {
        const note = `round ${round}, killed after ${moment.toFixed(1)} ms, ctr: exit ${answer.code}`;
        throw new Error(`${note}: ${(error as Error).message}`, { cause: error });
      }
    }
    await expectNothingLeft(rig.daemon, before, { except });
  });
});
