/** Other tools for images: skopeo, umoci and buildah read what comes from here, and what they write runs here. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createReadStream, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, it } from 'node:test';
import { connect } from '../client/client.ts';
import {
  type MadeImage,
  busyboxImage,
  descriptorOf,
  digestOf,
  legacyDockerArchive,
  multiPlatform,
  ociArchive,
  writeLayout,
} from './harness/image.ts';
import { type Rig, suite } from './harness/peers.ts';
import { LocalRegistry } from './harness/registry.ts';

/** How an archive comes in: ctr reads it and sends blobs, or the daemon reads it. */
type Way = 'ctr' | 'the daemon';

/** Imports under a base name, as `--base-name` does. */
async function load(rig: Rig, way: Way, file: string, base: string): Promise<void> {
  if (way === 'ctr') {
    await rig.ctr.ok('images', 'import', '--all-platforms', '--base-name', base, file);
    return;
  }
  using client = await connect({ address: rig.daemon.address, namespace: rig.ctr.namespace });
  const names = [{ name: base, isPrefix: true, allowOverwrite: true }];
  await client.transfers.import(createReadStream(file), { names, platforms: 'all' });
}

const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'pipe'] });
const skopeo = (command: string, ...args: string[]): string =>
  run('skopeo', '--insecure-policy', command, ...args);

suite('other tools', {}, (rig) => {
  const ways: readonly Way[] = rig.peer === 'moord' ? ['ctr', 'the daemon'] : ['ctr'];
  const clear = async (): Promise<void> => {
    await rig.ctr.removeImages();
    assert.deepEqual(await rig.ctr.digests(), []);
  };
  const output = async (name: string, command: string[] = []): Promise<string> => {
    const { code, stdout, stderr } = await rig.ctr.runImage(name, 'box', command);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  /** A place for a tool's files, empty. */
  let folders = 0;
  const folder = (): string => {
    folders += 1;
    const path = join(rig.daemon.directory, `tool-${folders}`);
    mkdirSync(path);
    return path;
  };
  afterEach(clear);

  it('skopeo inspects and copies what is pushed', async () => {
    await using registry = await LocalRegistry.start({ tls: true, password: true });
    const at = folder();
    const [here, arm] = await Promise.all([
      busyboxImage({ config: { Env: ['PATH=/bin', 'PORT=7'], Cmd: ['sh'] } }),
      busyboxImage({ architecture: 'arm64', above: [{ arm: '64' }] }),
    ]);
    const both = multiPlatform({ amd64: here, arm64: arm });
    const name = registry.image('pushed', '1');
    await rig.ctr.ok('images', 'import', '--all-platforms', ociArchive(join(at, 'in.tar'), [[name], both]));
    await rig.ctr.ok('images', 'push', ...registry.ctrFlags, name);
    const source = `docker://${name}`;
    assert.equal(skopeo('inspect', '--raw', ...registry.skopeoFlags(), source), both.index.bytes.toString());
    const seen = JSON.parse(skopeo('inspect', ...registry.skopeoFlags(), source)) as {
      Digest: string;
      Layers: string[];
      Env: string[];
      RepoTags: string[];
    };
    assert.equal(seen.Digest, both.index.digest);
    assert.deepEqual(
      seen.Layers,
      here.layers.map(({ digest }) => digest),
    );
    assert.deepEqual([seen.RepoTags, seen.Env], [['1'], ['PATH=/bin', 'PORT=7']]);

    const copy = (...to: string[]): string => skopeo('copy', ...registry.skopeoFlags('src'), source, ...to);
    copy(`dir:${at}/dir`);
    assert.equal(readFileSync(join(at, 'dir/manifest.json'), 'utf8'), here.manifest.bytes.toString());
    copy('--all', `oci:${at}/oci:tag`);
    assert.equal(skopeo('inspect', '--raw', `oci:${at}/oci:tag`), both.index.bytes.toString());
    copy(`docker-archive:${at}/docker.tar:example.com/copied:1`);
    copy(`oci-archive:${at}/oci.tar:2`);
    await clear();
    for (const way of ways) {
      await load(rig, way, join(at, 'docker.tar'), 'example.com/copied');
      await load(rig, way, join(at, 'oci.tar'), 'example.com/copied');
      assert.deepEqual(await rig.ctr.images(), ['example.com/copied:1', 'example.com/copied:2']);
      for (const copied of await rig.ctr.images())
        assert.equal(await output(copied, ['sh', '-c', 'echo $PORT']), '7\n');
      await clear();
    }
  });

  it('skopeo and umoci read what is exported', async () => {
    const at = folder();
    const image = await busyboxImage({ docker: true, above: [{ 'etc/motd': 'exported' }] });
    await rig.ctr.ok('images', 'import', ociArchive(join(at, 'in.tar'), [['example.com/out:1'], image]));
    await rig.ctr.ok('images', 'export', join(at, 'by ctr.tar'), 'example.com/out:1');
    if (rig.peer === 'moord') {
      using client = await connect({ address: rig.daemon.address, namespace: rig.ctr.namespace });
      const pieces: Buffer[] = [];
      await client.transfers.export(['example.com/out:1'], (piece) => void pieces.push(Buffer.from(piece)));
      writeFileSync(join(at, 'by the daemon.tar'), Buffer.concat(pieces));
    }
    for (const way of ways) {
      const file = join(at, `by ${way}.tar`);
      assert.equal(skopeo('inspect', '--raw', `oci-archive:${file}`), image.manifest.bytes.toString());
      const saved = JSON.parse(skopeo('inspect', '--config', `docker-archive:${file}`)) as object;
      assert.deepEqual(saved, JSON.parse(image.config.bytes.toString()));
      skopeo('copy', `oci-archive:${file}`, `oci:${at}/${way}:tag`);
      const bundle = join(at, `bundle of ${way}`);
      run('umoci', 'unpack', '--image', `${at}/${way}:tag`, bundle);
      assert.equal(readFileSync(join(bundle, 'rootfs/etc/motd'), 'utf8'), 'exported');
    }
  });

  it('an image umoci has made, packed again and configured', async () => {
    const at = folder();
    const [layout, bundle] = [join(at, 'layout'), join(at, 'bundle')];
    writeLayout(layout, [['base'], await busyboxImage()]);
    run('umoci', 'new', '--image', `${layout}:blank`);
    run('umoci', 'unpack', '--image', `${layout}:base`, bundle);
    writeFileSync(join(bundle, 'rootfs/etc/motd'), 'packed again\n');
    run('chown', '1000:1001', join(bundle, 'rootfs/etc/motd'));
    run('chmod', '0640', join(bundle, 'rootfs/etc/motd'));
    run('rm', join(bundle, 'rootfs/bin/vi'));
    run('umoci', 'repack', '--image', `${layout}:made`, bundle);
    const settings = ['--config.user=sailor', '--config.env=GREETING=ahoy', '--config.workingdir=/etc'];
    const command = ['--config.entrypoint=sh', '--config.entrypoint=-c'];
    const script = '--config.cmd=id -u; echo $GREETING; stat -c "%u:%g %a" motd; cat motd; ls /bin/vi || pwd';
    run('umoci', 'config', '--image', `${layout}:made`, ...settings, ...command, script);
    const file = join(at, 'umoci.tar');
    run('tar', '-cf', file, '-C', layout, '.');
    for (const way of ways) {
      await load(rig, way, file, 'example.com/umoci');
      assert.deepEqual(
        await rig.ctr.images(),
        ['base', 'blank', 'made'].map((tag) => `example.com/umoci:${tag}`),
      );
      assert.equal(await output('example.com/umoci:made'), '1000\nahoy\n1000:1001 640\npacked again\n/etc\n');
      await clear();
    }
  });

  it('an image buildah has built, in both of its formats', async () => {
    const at = folder();
    const storage = ['--root', `${at}/storage`, '--runroot', `${at}/run`, '--storage-driver', 'vfs'];
    const buildah = (...args: string[]): string => run('buildah', ...storage, ...args).trim();
    const container = buildah('from', 'scratch');
    try {
      buildah('copy', container, '/bin/busybox', '/bin/busybox');
      buildah('run', '--isolation', 'chroot', container, '/bin/busybox', '--install', '-s', '/bin');
      const settings = ['--env', 'PATH=/bin', '--workingdir', '/bin', '--entrypoint', '["sh", "-c"]'];
      buildah('config', ...settings, '--cmd', '"echo built in $PWD"', container);
      buildah('commit', container, `oci-archive:${at}/oci.tar:oci`);
      buildah(
        'commit',
        '--format',
        'docker',
        container,
        `docker-archive:${at}/docker.tar:example.com/buildah:docker`,
      );
    } finally {
      buildah('rm', container);
    }
    for (const way of ways) {
      await load(rig, way, join(at, 'oci.tar'), 'example.com/buildah');
      await load(rig, way, join(at, 'docker.tar'), 'example.com/buildah');
      assert.deepEqual(await rig.ctr.images(), ['example.com/buildah:docker', 'example.com/buildah:oci']);
      for (const name of await rig.ctr.images()) assert.equal(await output(name), 'built in /bin\n');
      await clear();
    }
  });

  it('what docker save has written for many years', async () => {
    const at = folder();
    const [low, high] = await Promise.all([
      busyboxImage({ plain: true, docker: true, above: [{ 'etc/motd': 'low' }] }),
      busyboxImage({ plain: true, docker: true, above: [{ 'etc/motd': 'high' }] }),
    ]);
    const tags = ['example.com/saved:1', 'example.com/saved:2'];
    const files = [
      legacyDockerArchive(join(at, 'legacy.tar'), [tags, low], [['example.com/saved:high'], high]),
      dockerLayout(join(at, 'layout.tar'), low, 'example.com/saved:now'),
    ];
    run('gzip', '-k', files[0] as string);
    for (const way of ways) {
      await load(rig, way, files[0] as string, 'example.com/saved');
      assert.deepEqual(await rig.ctr.images(), [...tags, 'example.com/saved:high']);
      assert.equal(await output('example.com/saved:1', ['cat', '/etc/motd']), 'low');
      assert.equal(await output('example.com/saved:high', ['cat', '/etc/motd']), 'high');
      await clear();
      await load(rig, way, files[1] as string, 'example.com/saved');
      assert.deepEqual(await rig.ctr.images(), ['example.com/saved:now']);
      assert.equal(await output('example.com/saved:now', ['cat', '/etc/motd']), 'low');
      await clear();
      // ctr takes no archive that is compressed as a whole.
      if (way === 'ctr') continue;
      await load(rig, way, `${files[0]}.gz`, 'example.com/saved');
      assert.equal((await rig.ctr.images()).length, 3);
      await clear();
    }
  });

  /** As Docker 25 and later save: an OCI layout whose layers manifest.json names as well. */
  function dockerLayout(file: string, image: MadeImage, name: string): string {
    const directory = folder();
    writeLayout(directory, [[name], image]);
    const path = ({ digest }: { digest: string }): string => `blobs/sha256/${digest.slice(7)}`;
    const LayerSources = Object.fromEntries(
      image.layers.map((layer) => [digestOf(layer.bytes), descriptorOf(layer)]),
    );
    const entry = {
      Config: path(image.config),
      RepoTags: [name],
      Layers: image.layers.map(path),
      LayerSources,
    };
    writeFileSync(join(directory, 'manifest.json'), JSON.stringify([entry]));
    run('tar', '-cf', file, '-C', directory, 'blobs', 'index.json', 'manifest.json', 'oci-layout');
    return file;
  }
});
