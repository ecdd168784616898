/** The state directory is removed under running containers, as a wrong rule of tmpfiles does: their shims are found again, by the daemon that runs or by the next one. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { Daemon, mountsBelow, shimBinary } from '../harness/daemon.ts';
import { expectNothingLeft, holdings } from '../harness/leftovers.ts';
import { suite } from '../harness/peers.ts';
import { alive, processOf } from '../harness/processes.ts';
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
  const has = (daemon: Daemon, pattern: RegExp, since: number) =>
    pattern.test(readFileSync(daemon.log).subarray(since).toString());

  for (const [way, wiped] of Object.entries(ways)) {
    for (const when of ['while the daemon runs', 'while there is none'] as const)
      it(`${way}, ${when}: shims are found again, and nothing is left of them in the end`, async () => {
        const { ctr, daemon } = rig;
        await using other = await Daemon.start(rig.peer);
        const there = other.ctr();
        await there.runDetached('same', ['/bin/sleep', '1000']);
        const held = holdings(daemon);
        await ctr.runDetached('same', ['/bin/sleep', '1000']);
        await ctr.runDetached('paused', ['/bin/sleep', '1000']);
        await ctr.ok('tasks', 'pause', 'paused');
        const before = await ctr.tasks();
        const logged = daemon.logged();
        if (when === 'while there is none') {
          await daemon.kill9();
          wiped(daemon.state);
          await daemon.start();
        } else {
          wiped(daemon.state);
          await eventually('it is noticed', () =>
            has(
              daemon,
              /"msg":"the state directory \S+, or some of it, had been removed by others, and is there again"/,
              logged,
            ),
          );
          assert.equal((await ctr.run('new', ['/bin/echo', 'new'], ['--rm'])).stdout, 'new\n');
          await daemon.restart();
        }
        assert.ok(
          has(
            daemon,
            /\/same","msg":"the files of a task have been removed by others; its shim has been/,
            logged,
          ),
        );
        assert.deepEqual(await ctr.tasks(), before);
        assert.equal((await ctr.exec('same', ['/bin/echo', 'here'])).stdout, 'here\n');
        await ctr.ok('tasks', 'resume', 'paused');
        assert.equal((await ctr.exec('paused', ['/bin/echo', 'here'])).stdout, 'here\n');
        for (const id of ['same', 'paused']) await ctr.remove(id);
        const again = await ctr.run('same', ['/bin/echo', 'again'], ['--rm']);
        assert.equal(again.stdout, 'again\n', describe(again));
        await expectNothingLeft(daemon, held);
        assert.equal((await there.exec('same', ['/bin/echo', 'here'])).stdout, 'here\n');
        await there.remove('same');
      });
  }

  it('a shim that makes no files again is ended with its container', async () => {
    const { ctr, daemon } = rig;
    const held = holdings(daemon);
    await ctr.runDetached('lost', ['/bin/sleep', '1000']);
    const { pid } = (await ctr.task('lost'))!;
    const shim = processOf(pid)!.parent;
    await daemon.kill9();
    wipe(daemon.state);
    process.kill(shim, 'SIGSTOP');
    const logged = daemon.logged();
    await daemon.start();
    await eventually('the container is ended', () => !alive(pid) && !alive(shim));
    assert.ok(
      has(
        daemon,
        /\/lost","msg":"the files of a task have been removed by others; its container is ended/,
        logged,
      ),
    );
    assert.equal((await ctr.tasks()).size, 0);
    await ctr.ok('containers', 'rm', 'lost');
    await expectNothingLeft(daemon, held);
  });

  for (const [damage, hurt] of Object.entries({
    'a wiped state': ({ state }: Daemon) => wipe(state),
    'a damaged record': (_: Daemon, bundle: string) => truncateSync(join(bundle, 'bootstrap.json')),
    'an empty bundle': (_: Daemon, bundle: string) => {
      for (const name of ['bootstrap.json', 'address', 'init.pid', 'config.json'])
        rmSync(join(bundle, name), { force: true });
    },
  }))
    it(`${damage}: a shim of another make is found again`, async () => {
      const { ctr, daemon } = rig;
      const held = holdings(daemon);
      await ctr.runDetached('foreign', ['/bin/sleep', '1000'], ['--runtime', shimBinary.containerd]);
      const before = await ctr.task('foreign');
      const bundle = daemon.bundle(ctr.namespace, 'foreign');
      await daemon.kill9();
      hurt(daemon, bundle);
      await daemon.start();
      assert.deepEqual(await ctr.task('foreign'), before);
      assert.equal((await ctr.exec('foreign', ['/bin/echo', 'here'])).stdout, 'here\n');
      await ctr.remove('foreign');
      await expectNothingLeft(daemon, held);
    });
});
