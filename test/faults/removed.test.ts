/** Others remove what is the daemon's own while it runs: it notices, says so, makes it again and goes on, without being restarted. */
import assert from 'node:assert/strict';
import { readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { Daemon } from '../harness/daemon.ts';
import { suite } from '../harness/peers.ts';
import { eventually } from '../harness/wait.ts';

suite('removed under a running daemon', { peers: ['moord'] }, (rig) => {
  const logged = (daemon: Daemon) => readFileSync(daemon.log, 'utf8');

  it('its sockets are made again with their modes, and shims deliver by them', async () => {
    const { daemon, ctr } = rig;
    await ctr.runDetached('keeper', ['/bin/sleep', '1000']);
    const { pid } = daemon;
    for (const path of [daemon.address, `${daemon.address}.ttrpc`]) {
      rmSync(path);
      await eventually(`${path} is there again`, () => statSync(path).isSocket());
      assert.equal(statSync(path).mode & 0o777, 0o600);
      await eventually('the log says so', () =>
        logged(daemon).includes(`the socket ${path} had been removed by others, and is there again`),
      );
    }
    assert.equal((await ctr.exec('keeper', ['/bin/echo', 'here'])).stdout, 'here\n');
    const outcome = await ctr.run('short', ['/bin/sh', '-c', 'exit 7'], ['--rm']);
    assert.equal(outcome.code, 7);
    await ctr.remove('keeper');
    assert.equal(daemon.pid, pid);
  });

  it('and so is the directory that they are in, removed or moved away', async () => {
    const { daemon } = rig;
    const folder = join(daemon.directory, 'run');
    const address = join(folder, 'd.sock');
    await using other = await Daemon.start(rig.peer, { address });
    const ctr = other.ctr();
    for (const away of [
      () => rmSync(folder, { recursive: true }),
      () => renameSync(folder, `${folder}.old`),
    ]) {
      away();
      await eventually('both are there again', () =>
        [address, `${address}.ttrpc`].every((path) => statSync(path).isSocket()),
      );
      assert.equal((await ctr.run('short', ['/bin/echo', 'here'], ['--rm'])).stdout, 'here\n');
    }
    await other.terminate();
    assert.equal(statSync(address, { throwIfNoEntry: false }), undefined);
  });
});
