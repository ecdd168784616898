/** A snapshotter in another process: images and containers on it, and what becomes of them when it fails. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Kind, SnapshotsDefinition } from '../proto/gen/containerd/services/snapshots.ts';
import { IntrospectionDefinition } from '../proto/gen/containerd/services/introspection.ts';
import { Code } from '../ttrpc/errors.ts';
import type { Ctr } from './harness/ctr.ts';
import { Daemon } from './harness/daemon.ts';
import { busyboxImage, ociArchive } from './harness/image.ts';
import { Plugin } from './harness/plugin.ts';
import { LocalRegistry } from './harness/registry.ts';
import { eventually, soon } from './harness/wait.ts';

const snapshotter = 'proxied';
/** Milliseconds in which a plugin that is gone or silent is found out, on a busy machine. */
const BOUND = 15_000;

const kept = { 'containerd.io/gc.root': 'test' };

describe('a snapshotter that another process serves', { timeout: 300_000 }, () => {
  let plugin: Plugin;
  let daemon: Daemon;
  let ctr: Ctr;
  before(async () => {
    plugin = new Plugin('snapshotter.ts');
    await plugin.start();
    const config = `[proxy_plugins.${snapshotter}]
type = "snapshot"
address = "${plugin.address}"
platform = "linux/amd64"
capabilities = ["remap-ids"]
timeout = "4s"
work_timeout = "8s"
[proxy_plugins.${snapshotter}.exports]
root = "${plugin.folder}"
`;
    daemon = await Daemon.start('moord', { config });
    ctr = daemon.ctr();
  });
  after(async () => {
    await daemon.stop();
    await plugin[Symbol.asyncDispose]();
  });

  const failureOf = async (call: Promise<unknown>): Promise<{ code: number; details: string }> => {
    try {
      await soon('a failure', call, { within: BOUND });
    } catch (error) {
      return error as { code: number; details: string };
    }
    throw new Error('it did not fail');
  };
  const rowOf = async () => {
    using connection = daemon.connect();
    const introspection = connection.service(IntrospectionDefinition);
    const { plugins } = await introspection.plugins({
      filters: [`type==io.containerd.snapshotter.v1,id==${snapshotter}`],
    });
    return plugins[0]!;
  };

  it('is told of as a plugin, with what the configuration says of it', async () => {
    const row = await rowOf();
    assert.deepEqual(row.exports, { root: plugin.folder, address: plugin.address });
    assert.deepEqual(row.capabilities, ['remap-ids']);
    assert.equal(row.platforms[0]!.architecture, 'amd64');
    assert.equal(row.initErr, undefined);
    assert.match(await ctr.ok('plugins', 'ls'), /io\.containerd\.snapshotter\.v1 +proxied +linux\/amd64 +ok/);
  });

  it('an image is pulled onto it and run, and leaves nothing when it is removed', async () => {
    await using registry = await LocalRegistry.start();
    const name = `${registry.host}/r:x`;
    const image = await busyboxImage({ above: [{ greeting: 'ahoy' }] });
    const archive = ociArchive(join(daemon.directory, 'i.tar'), [[name], image]);
    const pusher = daemon.ctr();
    await pusher.ok('images', 'import', '--no-unpack', archive);
    await pusher.ok('images', 'push', '--plain-http', name);
    await pusher.ok('images', 'rm', '--sync', name);

    await ctr.ok('images', 'pull', '--plain-http', '--snapshotter', snapshotter, name);
    assert.equal(plugin.names.length, 3, plugin.names.join());
    for (const each of plugin.names) assert.match(each, new RegExp(`^${ctr.namespace}/\\d+/sha256:`));
    const flags = ['--snapshotter', snapshotter];
    const { code, stdout, stderr } = await ctr.runImage(name, 'box', ['cat', '/greeting'], flags);
    assert.equal(code, 0, stderr);
    assert.equal(stdout, 'ahoy');
    assert.equal(plugin.names.length, 3, 'the container’s own is gone');
    await ctr.ok('images', 'rm', '--sync', name);
    assert.deepEqual(plugin.names, []);
    assert.deepEqual(plugin.folders, []);
  });

  it('keeps the codes of its failures, and usage and labels are its own', async () => {
    using connection = daemon.connect();
    const snapshots = connection.service(SnapshotsDefinition, ctr.namespace);
    const labels = { ...kept, 'containerd.io/snapshot/x': 'y' };
    await snapshots.prepare({ snapshotter, key: 'a', labels });
    await snapshots.commit({ snapshotter, name: 'base', key: 'a', labels });
    assert.equal((await snapshots.usage({ snapshotter, key: 'base' })).inodes, 1n);
    const { info } = await snapshots.stat({ snapshotter, key: 'base' });
    assert.equal(info!.kind, Kind.COMMITTED);
    await snapshots.prepare({ snapshotter, key: 'b', parent: 'base', labels: kept });
    const used = await failureOf(snapshots.remove({ snapshotter, key: 'base' }));
    assert.equal(used.code, Code.FailedPrecondition);
    // Behind the daemon's back.
    await plugin.kill9();
    plugin.forget();
    await plugin.start();
    const lost = await failureOf(snapshots.mounts({ snapshotter, key: 'b' }));
    assert.equal(lost.code, Code.NotFound, lost.details);
    assert.match(lost.details, /plugin: snapshot .*\/b does not exist/);
    await snapshots.remove({ snapshotter, key: 'b' });
    await snapshots.remove({ snapshotter, key: 'base' });
  });

  it('killed: errors at once, its containers run on; started again: everything goes on', async () => {
    const name = 'example.com/proxy:1';
    const archive = ociArchive(join(daemon.directory, 'j.tar'), [[name], await busyboxImage()]);
    await ctr.ok('images', 'import', '--snapshotter', snapshotter, archive);
    const flags = ['--snapshotter', snapshotter];
    await ctr.ok('run', '-d', ...flags, '--fifo-dir', ctr.fifos, name, 'lives', 'sleep', '1000');
    await plugin.kill9();
    using connection = daemon.connect();
    const snapshots = connection.service(SnapshotsDefinition, ctr.namespace);
    for (const call of [
      () => snapshots.prepare({ snapshotter, key: 'late' }),
      () => snapshots.mounts({ snapshotter, key: 'lives' }),
      () => snapshots.usage({ snapshotter, key: 'lives' }),
    ]) {
      const { code, details } = await failureOf(call());
      assert.equal(code, Code.Unavailable, details);
      assert.match(details, /^plugin proxied: .*p\.sock/);
    }
    assert.equal((await snapshots.stat({ snapshotter, key: 'lives' })).info!.kind, Kind.ACTIVE);
    assert.equal((await rowOf()).initErr!.code, Code.Unavailable);
    assert.match(await ctr.ok('plugins', 'ls'), /proxied +linux\/amd64 +error/);
    const refused = await ctr.runImage(name, 'late', ['true'], flags);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /plugin proxied/);
    assert.match(await ctr.ok('tasks', 'ls'), /lives +\d+ +RUNNING/);
    // What is removed meanwhile is removed over there when that is possible.
    await snapshots.view({ snapshotter, key: 'v' }).catch(() => undefined);
    await ctr.ok('tasks', 'rm', '-f', 'lives');
    await ctr.ok('containers', 'rm', 'lives');
    await daemon.restart();

    await plugin.start();
    const { code, stdout, stderr } = await ctr.runImage(name, 'again', ['echo', 'afloat'], flags);
    assert.equal(code, 0, stderr);
    assert.equal(stdout, 'afloat\n');
    assert.equal((await rowOf()).initErr, undefined);
    await ctr.ok('images', 'rm', '--sync', name);
    assert.deepEqual(plugin.names, []);
  });

  it('silent: DeadlineExceeded in bounded time, and it goes on with it', async () => {
    using connection = daemon.connect();
    const snapshots = connection.service(SnapshotsDefinition, ctr.namespace);
    await snapshots.prepare({ snapshotter, key: 'a', labels: kept });
    plugin.signal('SIGSTOP');
    try {
      const [prepared, mounts] = await Promise.all([
        failureOf(snapshots.prepare({ snapshotter, key: 'b' })),
        failureOf(snapshots.mounts({ snapshotter, key: 'a' })),
      ]);
      assert.equal(prepared.code, Code.DeadlineExceeded, prepared.details);
      assert.equal(mounts.code, Code.DeadlineExceeded, mounts.details);
    } finally {
      plugin.signal('SIGCONT');
    }
    assert.equal((await snapshots.mounts({ snapshotter, key: 'a' })).mounts.length, 1);
    // It lives, but never gets done.
    plugin.set('hang', true);
    const stuck = await failureOf(snapshots.prepare({ snapshotter, key: 'c' }));
    plugin.set('hang', false);
    assert.equal(stuck.code, Code.DeadlineExceeded, stuck.details);
    await snapshots.remove({ snapshotter, key: 'a' });
    await snapshots.cleanup({ snapshotter });
    await eventually('what nobody has a record of is gone', () => plugin.names.length === 0);
  });

  it('a daemon killed while something is made has it removed by the next one', async () => {
    plugin.set('half', true);
    using connection = daemon.connect();
    const snapshots = connection.service(SnapshotsDefinition, ctr.namespace);
    const cut = failureOf(snapshots.prepare({ snapshotter, key: 'half' }));
    await eventually('it is made', () => plugin.names.length === 1);
    await daemon.kill9();
    assert.equal((await cut).code, Code.Unavailable);
    plugin.set('half', false);
    await daemon.start();
    await eventually('it is removed', () => plugin.names.length === 0);
    await snapshots.prepare({ snapshotter, key: 'half', labels: kept });
    await snapshots.remove({ snapshotter, key: 'half' });
  });

  it('what it brings by itself is taken over, by as many namespaces as ask for it', async () => {
    plugin.set('lazy', true);
    using connection = daemon.connect();
    const labels = { ...kept, 'containerd.io/snapshot.ref': 'sha256:lazy' };
    const one = connection.service(SnapshotsDefinition, ctr.namespace);
    const other = connection.service(SnapshotsDefinition, daemon.ctr().namespace);
    const told = await failureOf(one.prepare({ snapshotter, key: 'extract', labels }));
    assert.equal(told.code, Code.AlreadyExists, told.details);
    const { info } = await one.stat({ snapshotter, key: 'sha256:lazy' });
    assert.equal(info!.kind, Kind.COMMITTED);
    assert.equal(
      (await failureOf(other.prepare({ snapshotter, key: 'extract', labels }))).code,
      Code.AlreadyExists,
    );
    plugin.set('lazy', false);
    assert.deepEqual(plugin.names, ['lazy-sha256:lazy']);
    await one.prepare({ snapshotter, key: 'box', parent: 'sha256:lazy', labels: kept });
    await one.remove({ snapshotter, key: 'box' });
    await one.remove({ snapshotter, key: 'sha256:lazy' });
    await one.cleanup({ snapshotter });
    assert.deepEqual(plugin.names, ['lazy-sha256:lazy']);
    await other.remove({ snapshotter, key: 'sha256:lazy' });
    await other.cleanup({ snapshotter });
    assert.deepEqual(plugin.names, []);
  });
});
