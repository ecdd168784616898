/** Containers of a former version are taken over by this one, and by the former one again. */
import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import { Former, formerCommits } from '../harness/former.ts';
import { expectNothingLeft, holdings, type Holdings } from '../harness/leftovers.ts';
import { suite } from '../harness/peers.ts';
import { describe } from '../harness/program.ts';
import { eventually } from '../harness/wait.ts';

const found = formerCommits();
const skip = 'reason' in found && found.reason;

suite('an upgrade, and back', { peers: ['moord'] }, (rig) => {
  let former: Former | undefined;
  let today = '';
  let empty: Holdings;

  before(() => {
    if ('commits' in found) former = Former.build(found.commits);
    today = rig.daemon.program;
    empty = holdings(rig.daemon);
  });
  after(() => former?.[Symbol.dispose]());

  /** The daemon dies, and another version takes its place. */
  const becomes = async (program: string): Promise<void> => {
    await rig.daemon.kill9();
    rig.daemon.program = program;
    await rig.daemon.start();
  };

  /** It can be executed in, and has not been started anew. */
  const runsOn = async (id: string, task: unknown): Promise<void> => {
    assert.deepEqual(await rig.ctr.task(id), task);
    const said = await rig.ctr.exec(id, ['/bin/echo', 'here']);
    assert.equal(said.stdout, 'here\n', describe(said));
  };

  it('tasks, execs and exit codes go with it', { skip, timeout: 180_000 }, async () => {
    const { ctr } = rig;
    await becomes(former!.moord);
    await ctr.runDetached('old', ['/bin/sleep', '1000']);
    await ctr.runDetached('ends', ['/bin/sh', '-c', 'trap "exit 7" TERM; while :; do sleep 0.1; done']);
    const old = await ctr.task('old');
    await runsOn('old', old);

    await becomes(today);
    await runsOn('old', old);
    await ctr.runDetached('new', ['/bin/sleep', '1000']);
    const made = await ctr.task('new');
    await ctr.ok('tasks', 'kill', '-s', 'SIGTERM', 'ends');
    await eventually('its end is known', async () => (await ctr.task('ends'))?.status === 'STOPPED', {
      within: 30_000,
    });

    await becomes(former!.moord);
    await runsOn('old', old);
    await runsOn('new', made);
    using connection = rig.daemon.connect();
    const tasks = connection.service(TasksDefinition, ctr.namespace);
    assert.equal((await tasks.delete({ containerId: 'ends' })).exitStatus, 7);
    await ctr.ok('containers', 'rm', 'ends');
    await ctr.remove('new');

    await becomes(today);
    await runsOn('old', old);
    await ctr.remove('old');
    await expectNothingLeft(rig.daemon, empty, { except: /^descriptor/, within: 30_000 });
  });
});
