/** Images by Debian's ctr, without a registry: in, out, named, checked, mounted and converted, as on containerd. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, it } from 'node:test';
import { mountsBelow } from './harness/daemon.ts';
import {
  type MadeImage,
  busyboxImage,
  dockerArchive,
  legacyDockerArchive,
  multiPlatform,
  ociArchive,
  piecesOf,
} from './harness/image.ts';
import { suite } from './harness/peers.ts';

suite('ctr images', {}, (rig) => {
  const path = (name: string): string => join(rig.daemon.directory, name);
  const target = async (name: string): Promise<string> =>
    /sha256:[0-9a-f]{64}/.exec(await rig.ctr.ok('images', 'ls', `name==${name}`))?.[0] ?? '';
  const refused = async (args: string[], message: RegExp): Promise<void> => {
    const outcome = await rig.ctr.call(args);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, message);
  };
  const has = async (image: MadeImage): Promise<void> => {
    const there = await rig.ctr.digests();
    for (const { digest } of piecesOf(image)) assert.ok(there.includes(digest), digest);
  };

  afterEach(async () => {
    await rig.ctr.removeImages();
    assert.deepEqual(await rig.ctr.digests(), [], 'images hold their content, and nothing else does');
    assert.equal(await rig.ctr.snapshots(), 0);
  });

  it('import names images by their annotation, or by a base name and their tag', async () => {
    const [one, two] = await Promise.all([
      busyboxImage({ plain: true }),
      busyboxImage({ above: [{ two: '2' }] }),
    ]);
    const file = ociArchive(path('named.tar'), [['example.com/full/name:1'], one], [['tag'], two]);
    await rig.ctr.ok('images', 'import', '--no-unpack', file);
    const [full, generated] = await rig.ctr.images();
    assert.equal(full, 'example.com/full/name:1');
    assert.match(generated ?? '', /^import-\d{4}-\d\d-\d\d:tag$/);
    await has(one);
    await has(two);
    await rig.ctr.ok('images', 'rm', '--sync', full, generated!);

    await rig.ctr.ok('images', 'import', '--no-unpack', '--base-name', 'example.com/other', file);
    assert.deepEqual(await rig.ctr.images(), ['example.com/full/name:1', 'example.com/other:tag']);
    await has(two);
    await rig.ctr.ok('images', 'import', '--no-unpack', '--digests', '--base-name', 'example.com/d', file);
    const byDigest = [one, two].map(({ manifest }) => `example.com/d@${manifest.digest}`);
    const all = [...byDigest, 'example.com/d:tag', 'example.com/full/name:1', 'example.com/other:tag'];
    assert.deepEqual(await rig.ctr.images(), all.sort());
    await rig.ctr.ok('images', 'import', '--no-unpack', '--index-name', 'whole', file);
    assert.match(await rig.ctr.ok('images', 'ls', 'name==whole'), /image\.index/);
  });

  it('import reads what docker save writes and wrote, and the images run', async () => {
    const [low, high] = await Promise.all([
      busyboxImage({ plain: true, docker: true }),
      busyboxImage({ plain: true, docker: true, above: [{ 'etc/motd': 'above' }] }),
    ]);
    const archives = [
      dockerArchive(
        path('docker.tar'),
        [['example.com/low:1', 'example.com/low:2'], low],
        [['high:1'], high],
      ),
      legacyDockerArchive(
        path('legacy.tar'),
        [['example.com/low:1', 'example.com/low:2'], low],
        [['high:1'], high],
      ),
    ];
    for (const file of archives) {
      for (const flags of [[], ['--compress-blobs']]) {
        await rig.ctr.ok('images', 'import', ...flags, file);
        assert.deepEqual(await rig.ctr.images(), [
          'docker.io/library/high:1',
          'example.com/low:1',
          'example.com/low:2',
        ]);
        const outcome = await rig.ctr.runImage('docker.io/library/high:1', 'saved', ['cat', '/etc/motd']);
        assert.equal(outcome.stdout, 'above', outcome.stderr);
        assert.equal(await rig.ctr.snapshots(), 3, 'what two images share is unpacked once');
        await rig.ctr.removeImages();
      }
    }
  });

  it('import, export and check know platforms', async () => {
    const [here, arm] = await Promise.all([busyboxImage(), busyboxImage({ architecture: 'arm64' })]);
    const both = multiPlatform({ amd64: here, arm64: arm });
    const file = ociArchive(path('both.tar'), [['example.com/both:1'], both]);
    await rig.ctr.ok('images', 'import', '--platform', 'linux/amd64', file);
    assert.equal(await target('example.com/both:1'), both.index.digest);
    assert.match(await rig.ctr.ok('images', 'ls'), /linux\/amd64,linux\/arm64|linux\/amd64/);
    await rig.ctr.ok('images', 'rm', '--sync', 'example.com/both:1');

    await rig.ctr.ok('images', 'import', '--all-platforms', file);
    await has(here);
    await has(arm);
    assert.match(await rig.ctr.ok('images', 'check'), /complete \(3\/3\).*true/);
    assert.equal(await rig.ctr.snapshots(), 2);

    const contents = async (...flags: string[]): Promise<string> => {
      await rig.ctr.ok('images', 'export', ...flags, path('out.tar'), 'example.com/both:1');
      return execFileSync('tar', ['-tf', path('out.tar')], { encoding: 'utf8' });
    };
    const blob = (digest: string): string => `blobs/sha256/${digest.slice(7)}`;
    let listing = await contents();
    assert.ok(listing.includes(blob(here.config.digest)) && !listing.includes(blob(arm.config.digest)));
    assert.ok(listing.includes('manifest.json'));
    listing = await contents('--platform', 'linux/arm64', '--skip-manifest-json');
    assert.ok(!listing.includes(blob(here.config.digest)) && listing.includes(blob(arm.config.digest)));
    assert.ok(!listing.includes('manifest.json'));
    await contents('--all-platforms');
    await rig.ctr.ok('images', 'rm', '--sync', 'example.com/both:1');
    await rig.ctr.ok('images', 'import', '--all-platforms', path('out.tar'));
    assert.equal(await target('example.com/both:1'), both.index.digest);
    await has(arm);
  });

  it('tag, label, ls and rm work on names, and --force moves one', async () => {
    const [one, two] = await Promise.all([busyboxImage(), busyboxImage({ above: [{ two: '2' }] })]);
    await rig.ctr.ok(
      'images',
      'import',
      '--no-unpack',
      ociArchive(path('two.tar'), [['example.com/one:1'], one], [['example.com/two:1'], two]),
    );
    await rig.ctr.ok('images', 'tag', 'example.com/one:1', 'example.com/a:1', 'example.com/b:1');
    await refused(['images', 'tag', 'example.com/two:1', 'example.com/a:1'], /a:1": already exists/);
    await rig.ctr.ok('images', 'tag', '--force', 'example.com/two:1', 'example.com/a:1');
    assert.equal(await target('example.com/a:1'), two.manifest.digest);
    await refused(['images', 'tag', 'example.com/none:1', 'x'], /"example.com\/none:1": not found/);
    await rig.ctr.ok('images', 'label', 'example.com/b:1', 'tier=db', 'owner=me');
    assert.deepEqual(await rig.ctr.images('labels.tier==db'), ['example.com/b:1']);
    assert.deepEqual(await rig.ctr.images('name~=/example.com.(a|b)/'), [
      'example.com/a:1',
      'example.com/b:1',
    ]);
    assert.deepEqual(await rig.ctr.images(`target.digest==${two.manifest.digest}`), [
      'example.com/a:1',
      'example.com/two:1',
    ]);
    await rig.ctr.ok('images', 'label', '--replace-all', 'example.com/b:1', 'tier=web');
    assert.deepEqual(await rig.ctr.images('labels.owner'), []);
    await rig.ctr.ok('images', 'rm', '--sync', 'example.com/one:1', 'example.com/two:1', 'example.com/b:1');
    await has(two);
    assert.ok(!(await rig.ctr.digests()).includes(one.manifest.digest));
    assert.equal((await rig.ctr.call(['images', 'rm', 'none'])).stdout, '', 'only names it has removed');
  });

  it('check says what is missing', async () => {
    const image = await busyboxImage();
    await rig.ctr.ok(
      'images',
      'import',
      '--no-unpack',
      ociArchive(path('whole.tar'), [['example.com/w:1'], image]),
    );
    assert.match(await rig.ctr.ok('images', 'check'), /complete \(3\/3\).*false/);
    assert.deepEqual(await rig.ctr.lines('images', 'check', '-q'), ['example.com/w:1']);
    await rig.ctr.ok('content', 'rm', image.layers[1]!.digest);
    assert.match(await rig.ctr.ok('images', 'check'), /incomplete \(2\/3\).*false/);
    assert.deepEqual(await rig.ctr.lines('images', 'check', '-q'), []);
    await rig.ctr.ok('content', 'rm', image.manifest.digest);
    assert.match((await rig.ctr.call(['images', 'check'])).stdout, /unavailable \(0\/\?\)/);
  });

  it('mount shows an image, --rw lets it be written, unmount --rm leaves nothing', async () => {
    const image = await busyboxImage({ above: [{ 'etc/motd': 'ahoy' }] });
    await rig.ctr.ok('images', 'import', ociArchive(path('m.tar'), [['example.com/m:1'], image]));
    const layers = await rig.ctr.snapshots();
    for (const flags of [[], ['--rw']]) {
      const at = path(`mnt${flags.join('')}`);
      mkdirSync(at);
      await rig.ctr.ok('images', 'mount', ...flags, 'example.com/m:1', at);
      assert.equal(readFileSync(join(at, 'etc/motd'), 'utf8'), 'ahoy');
      if (flags.length > 0) writeFileSync(join(at, 'etc/motd'), 'changed');
      else assert.throws(() => writeFileSync(join(at, 'etc/motd'), ''), { code: 'EROFS' });
      assert.equal(await rig.ctr.snapshots(), layers + 1);
      await rig.ctr.ok('images', 'unmount', '--rm', at);
      assert.deepEqual(mountsBelow(at), []);
      assert.ok(!existsSync(join(at, 'etc')));
      assert.equal(await rig.ctr.snapshots(), layers);
    }
    assert.doesNotMatch(await rig.ctr.ok('leases', 'ls'), /mnt/);
  });

  it('convert makes OCI of Docker, and plain layers of compressed ones', async () => {
    const image = await busyboxImage({ docker: true });
    await rig.ctr.ok('images', 'import', ociArchive(path('c.tar'), [['example.com/c:1'], image]));
    await rig.ctr.ok('images', 'convert', '--oci', '--uncompress', 'example.com/c:1', 'example.com/c:2');
    const manifest = JSON.parse(await rig.ctr.ok('content', 'get', await target('example.com/c:2'))) as {
      mediaType: string;
      layers: { mediaType: string; digest: string }[];
    };
    assert.equal(manifest.mediaType, 'application/vnd.oci.image.manifest.v1+json');
    assert.deepEqual(
      manifest.layers.map(({ mediaType, digest }) => [mediaType, digest]),
      image.diffIds.map((id) => ['application/vnd.oci.image.layer.v1.tar', id]),
    );
    await rig.ctr.ok('images', 'rm', '--sync', 'example.com/c:1');
    assert.equal((await rig.ctr.runImage('example.com/c:2', 'converted', ['echo', 'hi'])).stdout, 'hi\n');
  });
});
