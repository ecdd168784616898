/** Storage that gives out under a running daemon: what is wrong is named, what runs is served, nothing is lost, and it goes on when the cause is gone. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { LoopFilesystem } from '../../daemon/snapshots/testing/loop.ts';
import { mount } from '../../native/native.ts';
import { busyboxImage, ociArchive } from '../harness/image.ts';
import { Daemon } from '../harness/daemon.ts';
import { suite } from '../harness/peers.ts';
import { alive } from '../harness/processes.ts';
import { describe } from '../harness/program.ts';
import { expectWhole } from '../harness/stored.ts';
import { soon } from '../harness/wait.ts';

/** The latter is what runc says when it cannot write its own state. */
const FULL = /no space left on device|unable to store init state/i;
const READ_ONLY = /read-only file system/i;

/** A container's files in the state are fewer. */
const MOST_INODES = 40;

/** Takes all inodes there are, but for some. */
function fill(folder: string, spare: number): void {
  mkdirSync(folder);
  let count = 0;
  try {
    for (; ; count += 1) writeFileSync(join(folder, String(count)), '');
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
  }
  for (let rest = spare; rest > 0; rest -= 1) rmSync(join(folder, String((count -= 1))));
}

suite('storage', { peers: ['moord'] }, (rig) => {
  it('a root that turns read-only: changes are refused by that name, what runs goes on, and mended it all is there', async () => {
    using disk = new LoopFilesystem('ext4', 96, '-e', 'remount-ro');
    await using daemon = await Daemon.start(rig.peer, { root: join(disk.path, 'root') });
    const ctr = daemon.ctr();
    const archive = (name: string, image: Awaited<ReturnType<typeof busyboxImage>>) =>
      ociArchive(join(daemon.directory, name), [[`d.test/${name}:1`], image]);
    await ctr.ok('images', 'import', archive('ship', await busyboxImage()));
    await ctr.runDetached('keeper', ['/bin/sleep', '1000']);
    const late = archive('late', await busyboxImage({ above: [{ 'cargo/list': 'rum\n' }] }));
    // What the kernel does when the disk fails.
    execFileSync('mount', ['-o', 'remount,abort', disk.path]);
    for (const args of [
      ['images', 'import', late],
      ['containers', 'label', 'keeper', 'a=b'],
      ['namespaces', 'create', 'another'],
      ctr.runArgs('second', ['/bin/true'], ['--rm']),
    ]) {
      const refused = await ctr.call(args);
      assert.notEqual(refused.code, 0, describe(refused));
      assert.match(refused.stderr, READ_ONLY, describe(refused));
    }
    assert.deepEqual(await ctr.images(), ['d.test/ship:1']);
    assert.equal((await ctr.exec('keeper', ['/bin/echo', 'here'])).stdout, 'here\n');
    const { pid } = (await ctr.task('keeper'))!;
    await daemon.terminate();
    daemon.launch();
    await soon('it ends', daemon.ended());
    assert.match(daemon.tail(), READ_ONLY);
    assert.ok(alive(pid), 'the container');
    disk.mend();
    await daemon.start();
    assert.equal((await ctr.task('keeper'))?.pid, pid);
    await ctr.ok('images', 'import', late);
    await expectWhole(daemon, ctr);
    await ctr.remove('keeper');
  });

  it('a state without inodes: new containers and execs are refused, and made when there are some', async () => {
    const place = join(rig.daemon.directory, 'inodes');
    mkdirSync(place);
    mount('moor-test', place, 'tmpfs', 0, 'nr_inodes=400');
    await using daemon = await Daemon.start(rig.peer, { state: join(place, 'state') });
    const ctr = daemon.ctr();
    await ctr.runDetached('keeper', ['/bin/sleep', '1000']);
    const filler = join(place, 'filler');
    // From none to what is enough for one: each step of a container's life meets the end of them once.
    for (let spare = 0, exit = ''; exit !== 'made'; spare += 1) {
      assert.ok(spare < MOST_INODES, 'a container can be made with some');
      fill(filler, spare);
      const outcome = await ctr.run('second', ['/bin/sh', '-c', 'exit 7'], ['--rm']);
      if (outcome.code !== 7) assert.match(outcome.stderr, FULL, describe(outcome));
      else if (outcome.stderr === '') exit = 'made';
      assert.equal((await ctr.task('keeper'))?.status, 'RUNNING');
      if (spare === 0) {
        await daemon.restart();
        assert.equal((await ctr.task('keeper'))?.status, 'RUNNING');
      }
      rmSync(filler, { recursive: true });
      await ctr.remove('second');
      const again = await ctr.run('second', ['/bin/echo', 'again'], ['--rm']);
      assert.equal(again.stdout, 'again\n', describe(again));
    }
    await ctr.remove('keeper');
    assert.equal((await ctr.tasks()).size, 0);
  });
});
