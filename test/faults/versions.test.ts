/** What is on disk says which version has made it. One that is newer than the daemon is refused by name, and lost to nobody. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { open } from 'lmdb';
import { moord } from '../harness/moord.ts';
import { suite } from '../harness/peers.ts';
import { alive } from '../harness/processes.ts';
import { describe } from '../harness/program.ts';
import { expectNothingLeft, holdings } from '../harness/leftovers.ts';

suite('formats of a newer version', { peers: ['moord'] }, (rig) => {
  for (const [file, known] of [
    ['bootstrap.json', 2],
    ['exit.json', 1],
    ['dead.json', 1],
  ] as const) {
    it(`a bundle whose ${file} is newer is left alone, and the rest is served`, async () => {
      const { ctr, daemon } = rig;
      await ctr.runDetached('sound', ['/bin/sleep', '1000']);
      const before = holdings(daemon);
      await ctr.runDetached('newer', ['/bin/sleep', '1000']);
      const [sound, newer] = [await ctr.task('sound'), await ctr.task('newer')];
      await daemon.kill9();
      const path = join(daemon.bundle(ctr.namespace, 'newer'), file);
      const old = existsSync(path) ? readFileSync(path, 'utf8') : undefined;
      const record = JSON.parse(old ?? '{"pid":1,"status":0,"exitedAt":"2026-01-01T00:00:00Z"}') as object;
      writeFileSync(path, JSON.stringify({ ...record, version: 99 }));
      await daemon.start();
      assert.deepEqual(await ctr.task('sound'), sound);
      assert.equal((await ctr.exec('sound', ['/bin/true'])).code, 0);
      assert.ok(alive(newer!.pid), 'its container runs on');
      const says = new RegExp(`${file} has format 99; this version knows formats up to ${known}`);
      assert.match(daemon.tail(), says);
      for (const args of [
        ['tasks', 'start', 'newer'],
        ['tasks', 'rm', '-f', 'newer'],
      ]) {
        const refused = await ctr.call(args);
        assert.equal(refused.code, 1, describe(refused));
        assert.match(refused.stderr, says);
      }
      assert.equal(await ctr.task('newer'), undefined, 'it is not shown as something it may not be');
      const checked = await moord(daemon, 'check');
      assert.equal(checked.code, 2, describe(checked));
      assert.match(checked.stdout, says);

      // With the version that knows it, all is as before.
      await daemon.kill9();
      writeFileSync(path, old ?? '');
      await daemon.start();
      assert.deepEqual(await ctr.task('newer'), newer);
      await ctr.remove('newer');
      await expectNothingLeft(daemon, before, { except: /^descriptor/ });
      await ctr.remove('sound');
    });
  }

  it('a newer store is refused by the daemon and by its tools, and left as it was', async () => {
    const { ctr, daemon } = rig;
    await ctr.create('kept', ['/bin/true']);
    await daemon.terminate();
    const directory = join(daemon.root, 'metadata');
    const setFormat = async (format: number): Promise<void> => {
      const store = open<Buffer, string[]>({ path: directory, encoding: 'binary' });
      await store.put(['', 'format'], Buffer.from(String(format)));
      await store.close();
    };
    await setFormat(99);
    const says =
      /(?:metadata|copy) was written by a newer version of Moor \(format 99, this one knows \d+\); use that version/;
    await assert.rejects(daemon.start(), says);
    for (const args of [['check'], ['check', '--repair'], ['backup', join(daemon.directory, 'copy')]]) {
      const refused = await moord(daemon, ...args);
      assert.equal(refused.code, 1, describe(refused));
      assert.match(refused.stderr, says);
    }
    await setFormat(1);
    await daemon.start();
    assert.match(await ctr.ok('containers', 'ls', '-q'), /kept/);
  });
});
