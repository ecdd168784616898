/** The metadata of a daemon at work is copied, and the copy takes its place. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { ContainersDefinition } from '../proto/gen/containerd/services/containers.ts';
import { moord } from './harness/moord.ts';
import { suite } from './harness/peers.ts';

suite('a backup of the metadata', { peers: ['moord'] }, (rig) => {
  it('is whole while containers are being created, and is what a daemon starts from', async () => {
    const { daemon, ctr } = rig;
    await ctr.create('before', ['/bin/true']);
    using connection = daemon.connect();
    const containers = connection.service(ContainersDefinition, ctr.namespace);
    const { container } = await containers.get({ id: 'before' });
    const stop = new AbortController();
    const busy = (async () => {
      let count = 0;
      for (; !stop.signal.aborted; count += 1) {
        const next = { ...container, id: `busy-${count}`, createdAt: undefined, updatedAt: undefined };
        await containers.create({ container: next });
      }
      return count;
    })();
    const copy = join(daemon.directory, 'copy');
    const outcome = await moord(rig.daemon, 'backup', copy);
    stop.abort();
    assert.ok((await busy) > 0);
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.match(outcome.stdout, /^\d+ records\n$/);

    await ctr.create('after', ['/bin/true']);
    await daemon.terminate();
    rmSync(join(daemon.root, 'metadata'), { recursive: true });
    renameSync(copy, join(daemon.root, 'metadata'));
    await daemon.start();
    const names = await ctr.lines('containers', 'ls', '-q');
    assert.ok(names.includes('before'));
    assert.ok(!names.includes('after'));
  });

  it('is refused where it would overwrite something, and of what is no metadata', async () => {
    const there = join(rig.daemon.directory, 'there');
    mkdirSync(there);
    const refused = await moord(rig.daemon, 'backup', there);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /there is there already/);
    const root = join(rig.daemon.directory, 'elsewhere');
    mkdirSync(join(root, 'metadata'), { recursive: true });
    const target = join(rig.daemon.directory, 'target');
    assert.match(
      (await moord(rig.daemon, '--root', root, 'backup', target)).stderr,
      /there is no metadata in/,
    );
    writeFileSync(join(root, 'metadata/data.mdb'), 'not a database');
    const damaged = await moord(rig.daemon, '--root', root, 'backup', target);
    assert.equal(damaged.code, 1, damaged.stdout);
    assert.match(damaged.stderr, /data\.mdb is damaged: it is no database/);
    // The daemon itself says the same.
    assert.match(
      (await moord(rig.daemon, '--root', root, '--state', join(root, 'state'))).stderr,
      /data\.mdb is damaged: it is no database/,
    );
    assert.equal(existsSync(target), false);
  });
});
