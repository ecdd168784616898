/** No more processes may be started: containers that run are served, new ones are refused by name of the limit and leave nothing, and with room they are made. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, it } from 'node:test';
import { containerPids } from '../harness/daemon.ts';
import { expectNothingLeft, holdings } from '../harness/leftovers.ts';
import { suite } from '../harness/peers.ts';
import { alive, killProcess, workingDirectory } from '../harness/processes.ts';
import { describe } from '../harness/program.ts';
import { eventually } from '../harness/wait.ts';

const REFUSED = /no more processes can be started|resource temporarily unavailable|errno=11|EAGAIN/i;

suite('no processes left', { peers: ['moord'] }, (rig) => {
  /** Of the daemon and of what it starts; containers have cgroups of their own. */
  let cgroup: string;
  const limit = (most: string) => writeFileSync(join(cgroup, 'pids.max'), most);
  const used = () => Number(readFileSync(join(cgroup, 'pids.current'), 'utf8'));
  const members = () =>
    readFileSync(join(cgroup, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);

  before(async () => {
    const { daemon } = rig;
    cgroup = mkdtempSync('/sys/fs/cgroup/pids/moor-test-');
    const confined = join(daemon.directory, 'confined');
    const script = `#!/bin/sh\necho $$ >${join(cgroup, 'cgroup.procs')}\nexec ${daemon.program} "$@"\n`;
    writeFileSync(confined, script, { mode: 0o700 });
    daemon.program = confined;
    await daemon.restart();
  });
  afterEach(() => limit('max'));
  after(async () => {
    await rig.daemon.stop();
    // A test that has failed leaves shims, and so would the cgroup be left.
    await eventually('the cgroup is empty', () => {
      for (const pid of members()) process.kill(pid, 'SIGKILL');
      return used() === 0;
    });
    rmdirSync(cgroup);
  });

  it('a new container is refused, leaves nothing, and is made when there is room', async () => {
    const { ctr, daemon } = rig;
    await ctr.runDetached('keeper', ['/bin/sleep', '1000']);
    const held = holdings(daemon);
    for (const more of [0, 1, 4, 10]) {
      limit(String(used() + more));
      const refused = await ctr.run('second', ['/bin/true'], ['--rm']);
      if (more < 2) assert.notEqual(refused.code, 0, describe(refused));
      if (refused.code !== 0) assert.match(refused.stderr, REFUSED, describe(refused));
      assert.equal((await ctr.task('keeper'))?.status, 'RUNNING');
      limit('max');
      await ctr.call(['containers', 'rm', 'second']);
      const again = await ctr.run('second', ['/bin/echo', 'again'], ['--rm']);
      assert.equal(again.stdout, 'again\n', describe(again));
      assert.equal((await ctr.exec('keeper', ['/bin/echo', 'here'])).stdout, 'here\n');
      await expectNothingLeft(daemon, held);
    }
    await ctr.remove('keeper');
  });

  it('what a dead shim has left goes when it can be cleaned up, and its end is told then', async () => {
    const { ctr, daemon } = rig;
    const held = holdings(daemon);
    await ctr.runDetached('orphan', ['/bin/sleep', '1000']);
    const { pid } = (await ctr.task('orphan'))!;
    const bundle = daemon.bundle(ctr.namespace, 'orphan');
    const shim = daemon.shims().find((each) => workingDirectory(each) === bundle)!;
    limit(String(used() - 1));
    await killProcess(shim);
    await eventually('the clean-up has to wait', () => /has to wait/.test(daemon.tail()));
    limit('max');
    await eventually(
      'it is seen to have ended',
      async () => (await ctr.task('orphan'))?.status === 'STOPPED',
    );
    assert.ok(!alive(pid));
    assert.deepEqual(containerPids(ctr.namespace, 'orphan'), []);
    await ctr.remove('orphan');
    await expectNothingLeft(daemon, held);
  });
});
