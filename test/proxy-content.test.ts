/** A content store in another process, in the place of the daemon's own. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Ctr } from './harness/ctr.ts';
import { Daemon } from './harness/daemon.ts';
import { busyboxImage, ociArchive } from './harness/image.ts';
import { Plugin } from './harness/plugin.ts';
import { soon } from './harness/wait.ts';

const name = 'example.com/elsewhere:1';

describe('a content store that another process serves', { timeout: 180_000 }, () => {
  let plugin: Plugin;
  let daemon: Daemon;
  let ctr: Ctr;
  before(async () => {
    plugin = new Plugin('content.ts');
    await plugin.start();
    const config = `disabled_plugins = ["io.containerd.content.v1.content"]
[proxy_plugins.elsewhere]
type = "content"
address = "${plugin.address}"
timeout = "4s"
`;
    daemon = await Daemon.start('moord', { config });
    ctr = daemon.ctr();
  });
  after(async () => {
    await daemon.stop();
    await plugin[Symbol.asyncDispose]();
  });

  const blobs = (): string[] => readdirSync(plugin.folder);
  const archive = async (): Promise<string> =>
    ociArchive(join(daemon.directory, 'i.tar'), [[name], await busyboxImage()]);

  it('has the blobs of images, which run, go out again and are freed', async () => {
    await ctr.ok('images', 'import', await archive());
    const held = blobs();
    assert.deepEqual((await ctr.ok('content', 'ls', '-q')).trim().split('\n').sort(), held.sort());
    assert.deepEqual(readdirSync(join(daemon.root, 'content')).sort(), ['ingest', 'spool']);
    const { code, stdout, stderr } = await ctr.runImage(name, 'box', ['echo', 'ahoy']);
    assert.equal(code, 0, stderr);
    assert.equal(stdout, 'ahoy\n');
    await ctr.ok('images', 'export', join(daemon.directory, 'o.tar'), name);
    await ctr.ok('images', 'rm', '--sync', name);
    assert.deepEqual(blobs(), []);
    for (const folder of ['ingest', 'spool'])
      assert.deepEqual(readdirSync(join(daemon.root, 'content', folder)), []);
  });

  it('killed, it gives errors at once; started again, it goes on', async () => {
    await ctr.ok('images', 'import', await archive());
    // Of the image, and not the archive's index, which nothing holds.
    const { digest } = (await busyboxImage()).manifest;
    await plugin.kill9();
    for (const args of [
      ['content', 'get', digest],
      ['images', 'import', await archive()],
    ]) {
      const { code, stderr } = await soon('an error', ctr.call(args), { within: 20_000 });
      assert.equal(code, 1);
      assert.match(stderr, /plugin elsewhere: cannot connect/);
    }
    await plugin.start();
    await ctr.ok('content', 'get', digest);
    await ctr.ok('images', 'rm', '--sync', name);
    assert.deepEqual(blobs(), []);
  });
});
