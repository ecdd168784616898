/** The state directory is removed under running containers, as a wrong rule of tmpfiles does: the next daemon ends what nobody can reach any more. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { Daemon, mountsBelow } from '../harness/daemon.ts';
import { expectNothingLeft, holdings } from '../harness/leftovers.ts';
import { suite } from '../harness/peers.ts';
import { alive } from '../harness/processes.ts';
import { describe } from '../harness/program.ts';
import { eventually } from '../harness/wait.ts';

const ways = {
  'but for what is mounted in it': (state: string) => wipe(state),
  'with the mounts in it': (state: string) => {
    for (const mount of mountsBelow(state).reverse()) execFileSync('umount', ['-l', mount]);
    wipe(state);
  },
};

/** It says that it cannot remove what something is mounted on, and removes the rest. */
function wipe(state: string): void {
  execFileSync('sh', ['-c', 'rm -rf --one-file-system "$1" 2>/dev/null || true', 'sh', state]);
}

suite('a wiped state', { peers: ['moord'] }, (rig) => {
  for (const [way, wiped] of Object.entries(ways)) {
    it(`${way}: containers and shims are ended, nothing is left, and another daemon’s are untouched`, async () => {
      const { ctr, daemon } = rig;
      await using other = await Daemon.start(rig.peer);
      const there = other.ctr();
      await there.runDetached('same', ['/bin/sleep', '1000']);
      const held = holdings(daemon);
      await ctr.runDetached('same', ['/bin/sleep', '1000']);
      await ctr.runDetached('paused', ['/bin/sleep', '1000']);
      await ctr.ok('tasks', 'pause', 'paused');
      const pids = [(await ctr.task('same'))!.pid, (await ctr.task('paused'))!.pid];
      await daemon.kill9();
      wiped(daemon.state);
      const logged = daemon.logged();
      await daemon.start();
      await eventually('the containers are ended', () => !pids.some(alive));
      const log = readFileSync(daemon.log).subarray(logged).toString();
      assert.match(log, /"bundle":"[^"]*\/same","msg":"the files of a task have been removed by others/);
      assert.equal((await ctr.tasks()).size, 0);
      assert.equal((await there.task('same'))?.status, 'RUNNING');
      for (const id of ['same', 'paused']) await ctr.ok('containers', 'rm', id);
      const again = await ctr.run('same', ['/bin/echo', 'again'], ['--rm']);
      assert.equal(again.stdout, 'again\n', describe(again));
      await expectNothingLeft(daemon, held);
      assert.equal((await there.exec('same', ['/bin/echo', 'here'])).stdout, 'here\n');
      await there.remove('same');
    });
  }
});
