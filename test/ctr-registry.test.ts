/** Debian's ctr between a daemon and Debian's registry: plain, with TLS, with a password, and with both. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import {
  type MadeImage,
  type MultiPlatform,
  busyboxImage,
  multiPlatform,
  ociArchive,
  piecesOf,
} from './harness/image.ts';
import { suite } from './harness/peers.ts';
import { LocalRegistry, type RegistryOptions } from './harness/registry.ts';
import { ingestsOnDisk } from './harness/storage.ts';
import { eventually } from './harness/wait.ts';

const kinds: { readonly [words: string]: RegistryOptions } = {
  'over plain HTTP': {},
  'over TLS': { tls: true },
  'with a password': { password: true },
  'over TLS with a password': { tls: true, password: true },
};

suite('ctr and a registry', {}, (rig) => {
  const only = (image: MadeImage | MultiPlatform): string[] =>
    [...new Set(piecesOf(image).map(({ digest }) => digest))].sort();
  const refused = async (args: string[], message: RegExp): Promise<void> => {
    const outcome = await rig.ctr.call(args);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, message);
  };
  /** Imports the image under a name, with all its platforms. */
  const load = async (name: string, image: MadeImage | MultiPlatform): Promise<void> => {
    const file = ociArchive(join(rig.daemon.directory, 'load.tar'), [[name], image]);
    await rig.ctr.ok('images', 'import', '--no-unpack', '--all-platforms', file);
  };

  afterEach(() => rig.ctr.removeImages());

  for (const [words, options] of Object.entries(kinds)) {
    it(`push and pull ${words}`, async () => {
      await using registry = await LocalRegistry.start(options);
      const name = registry.image('fleet/busybox', '1');
      const image = await busyboxImage({ above: [{ 'etc/motd': words }] });
      await load(name, image);
      const hosts = ['--hosts-dir', registry.hostsDir];
      const user = registry.user === undefined ? [] : ['--user', registry.user];
      await rig.ctr.ok('images', 'push', ...registry.ctrFlags, name);
      await rig.ctr.ok('images', 'push', ...hosts, ...user, registry.image('fleet/copy', '1'), name);
      await rig.ctr.ok('images', 'rm', '--sync', name);
      assert.deepEqual(await rig.ctr.digests(), []);

      const pull = await rig.ctr.ok('images', 'pull', ...registry.ctrFlags, '--print-chainid', name);
      assert.match(pull, /image chain ID: sha256:/);
      assert.deepEqual(await rig.ctr.digests(), only(image));
      assert.equal((await rig.ctr.runImage(name, 'pulled', ['cat', '/etc/motd'])).stdout, words);
      // By digest, from the other repository, into another namespace.
      const other = rig.daemon.ctr();
      const byDigest = `${registry.host}/fleet/copy@${image.manifest.digest}`;
      await other.ok(
        'images',
        'pull',
        ...hosts,
        ...user,
        '--label',
        'tier=db',
        '--snapshotter',
        'native',
        byDigest,
      );
      assert.deepEqual(await other.images('labels.tier==db'), [byDigest]);
      assert.match(await other.ok('images', 'check', '--snapshotter', 'native'), /complete \(4\/4\).*true/);
      const ran = await other.runImage(byDigest, 'native', ['cat', '/etc/motd'], ['--snapshotter', 'native']);
      assert.equal(ran.stdout, words, ran.stderr);
      await other.removeImages();

      if (registry.user !== undefined) {
        const wrong = registry.ctrFlags.map((flag) => (flag === registry.user ? 'skipper:wrong' : flag));
        await refused(['images', 'pull', ...wrong, name], /401 Unauthorized/);
        await refused(['images', 'push', ...wrong, name], /401 Unauthorized/);
        await refused(['images', 'pull', ...hosts, name], /401 Unauthorized|authorization failed/);
      }
      if (registry.ca !== undefined)
        await refused(['images', 'pull', ...user, name], /certificate signed by unknown authority/);
      await refused(
        ['images', 'pull', ...registry.ctrFlags, registry.image('fleet/none', '1')],
        /fleet\/none:1: not found/,
      );
    });
  }

  describe('of one kind', () => {
    let registry: LocalRegistry;
    before(async () => {
      registry = await LocalRegistry.start();
    });
    after(() => registry[Symbol.asyncDispose]());

    it('platforms: one, another, or all of them are pulled and pushed', async () => {
      const here = await busyboxImage();
      const arm = await busyboxImage({ architecture: 'arm64', above: [{ arm: '64' }] });
      const both = multiPlatform({ amd64: here, arm64: arm });
      const name = registry.image('multi', '1');
      await load(name, both);
      await rig.ctr.ok('images', 'push', '--plain-http', name);
      const single = registry.image('single', 'arm');
      await rig.ctr.ok('images', 'push', '--plain-http', '--platform', 'linux/arm64', single, name);
      await rig.ctr.removeImages();
      const pulled = async (...flags: string[]): Promise<string[]> => {
        await rig.ctr.ok('images', 'pull', '--plain-http', ...flags);
        const all = await rig.ctr.digests();
        await rig.ctr.removeImages();
        return all;
      };
      assert.deepEqual(await pulled(name), [both.index.digest, ...only(here)].sort());
      assert.deepEqual(
        await pulled('--platform', 'linux/arm64', name),
        [both.index.digest, ...only(arm)].sort(),
      );
      assert.deepEqual(await pulled('--all-platforms', name), only(both));
      const metadata = await pulled('--all-metadata', name);
      assert.ok(metadata.includes(arm.config.digest) && !metadata.includes(arm.layers.at(-1)!.digest));
      assert.deepEqual(await pulled('--platform', 'linux/arm64', single), only(arm));
    });

    it('keeps Docker’s media types, and the digest with them', async () => {
      const image = await busyboxImage({ docker: true });
      const name = registry.image('docker', '1');
      await load(name, image);
      await rig.ctr.ok('images', 'push', '--plain-http', name);
      await rig.ctr.removeImages();
      await rig.ctr.ok('images', 'pull', '--plain-http', name);
      const { digest, mediaType } = image.manifest;
      const line = `docker:1 +${mediaType.replaceAll('+', '\\+')} +${digest}`;
      assert.match(await rig.ctr.ok('images', 'ls'), new RegExp(line));
      await refused(['images', 'push', '--plain-http', registry.image('none', '1')], /none:1": not found/);
    });

    it('a pull again moves the name, and what only the old image had goes', async () => {
      const name = registry.image('moving', '1');
      const [old, young] = await Promise.all([busyboxImage(), busyboxImage({ above: [{ young: 'yes' }] })]);
      for (const image of [old, young]) {
        await load(name, image);
        await rig.ctr.ok('images', 'push', '--plain-http', name);
        await rig.ctr.removeImages();
        await rig.ctr.ok('images', 'pull', '--plain-http', name);
        if (image === old) assert.deepEqual(await rig.ctr.digests(), only(old));
        else await load('example.com/keep:1', old);
      }
      await rig.ctr.removeImages();
      await load(name, old);
      await rig.ctr.ok('images', 'pull', '--plain-http', name);
      await rig.ctr.ok('leases', 'create', '--id', 'collect');
      await rig.ctr.ok('leases', 'rm', '--sync', 'collect');
      assert.deepEqual(await rig.ctr.digests(), only(young));
    });

    it('content fetch, fetch-object and push-object', async () => {
      const image = await busyboxImage();
      const name = registry.image('content', '1');
      await load(name, image);
      await rig.ctr.ok('images', 'push', '--plain-http', name);
      await rig.ctr.removeImages();
      await rig.ctr.ok('content', 'fetch', '--plain-http', '--label', 'by=fetch', name);
      assert.deepEqual(await rig.ctr.digests(), only(image));
      assert.deepEqual(await rig.ctr.images('labels.by==fetch'), [name]);
      assert.equal(await rig.ctr.snapshots(), 0, 'nothing is unpacked');
      const object = await rig.ctr.ok('content', 'fetch-object', '--plain-http', name);
      assert.equal(object, image.manifest.bytes.toString());

      const pushObject = (digest: string, type: string, to: string) =>
        rig.ctr.ok('content', 'push-object', '--plain-http', to, digest, type);
      const target = registry.image('pieces', 'by-hand');
      for (const { digest, mediaType } of [...image.layers, image.config, image.manifest])
        assert.match(await pushObject(digest, mediaType, target), new RegExp(`^Pushed ${digest}`));
      await rig.ctr.removeImages();
      await rig.ctr.ok('images', 'pull', '--plain-http', target);
      assert.equal((await rig.ctr.runImage(target, 'pieces', ['echo', 'whole'])).stdout, 'whole\n');
    });
  });

  it('content active shows what is being written, and what its writer left is no content', async () => {
    const child = rig.ctr.spawn(['content', 'ingest', 'slowly'], ['pipe', 'ignore', 'ignore']);
    try {
      child.stdin!.write(Buffer.alloc(3 << 20));
      await eventually('it is listed', async () =>
        /^slowly\t[23]\.\d+MB/m.test(await rig.ctr.ok('content', 'active')),
      );
      assert.match(await rig.ctr.ok('content', 'active', 'ref~=/^slow/'), /slowly/);
      assert.doesNotMatch(await rig.ctr.ok('content', 'active', 'ref==other'), /slowly/);
      assert.equal(ingestsOnDisk(rig.daemon).length, 1);
    } finally {
      child.kill('SIGKILL');
      await once(child, 'close');
    }
    assert.deepEqual(await rig.ctr.digests(), []);
  });
});
