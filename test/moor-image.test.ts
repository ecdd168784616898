/** `moor images`, `moor content` and `moor snapshots` with the real daemon and Debian's registry, beside what ctr says of the same. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, it } from 'node:test';
import { spawn as spawnOnTerminal } from 'node-pty';
import { TrickyRegistry, withoutDebianRegistry } from '../daemon/distribution/testing/registries.ts';
import type { Ctr } from './harness/ctr.ts';
import { busyboxImage, makeImage, multiPlatform, ociArchive } from './harness/image.ts';
import { Moor } from './harness/moor.ts';
import { suite } from './harness/peers.ts';
import { LocalRegistry } from './harness/registry.ts';
import { Terminal } from './harness/terminal.ts';
import { eventually } from './harness/wait.ts';

const image = await busyboxImage({ above: [{ 'etc/greeting': 'moored' }] });
const NAME = 'harbour.test/busybox:1';

suite('moor images', { peers: ['moord'] }, (rig) => {
  // Each test has a namespace of its own.
  let ctr: Ctr;
  beforeEach(() => {
    ctr = rig.daemon.ctr();
  });
  const moor = () => new Moor(rig.daemon, ctr.namespace);
  const file = (name: string) => join(rig.daemon.directory, name);
  /** The snapshots of the image, the lowest first. */
  const chain = async (): Promise<string[]> =>
    [...(await moor().ok('snapshots', 'tree')).matchAll(/sha256:\w+/g)].map(([key]) => key);
  const seeded = async (): Promise<void> => {
    ociArchive(file('image.tar'), [[NAME], image]);
    await moor().ok('images', 'import', '--quiet', file('image.tar'));
  };

  it('an archive is imported, listed, checked, measured, tagged, labelled and exported as ctr has it', async () => {
    await seeded();
    const same = async (...args: string[]) => assert.equal(await moor().ok(...args), await ctr.ok(...args));
    await same('images', 'ls');
    await same('images', 'check');
    await same('images', 'check', '-q');
    await same('content', 'ls', '-q');
    await same('snapshots', 'ls');
    await same('snapshots', 'tree');
    await same('snapshots', 'usage');
    await same('snapshots', 'usage', '-b');
    const [, key = ''] = (await moor().ok('snapshots', 'ls')).split('\n');
    await same('snapshots', 'info', key.split(' ')[0]!);
    assert.match(await moor().ok('images', 'usage', NAME), /^harbour\.test\/busybox:1 +\d/m);

    assert.equal(await moor().ok('i', 'tag', NAME, 'harbour.test/other:1'), 'harbour.test/other:1\n');
    const again = await moor().call(['i', 'tag', NAME, 'harbour.test/other:1']);
    assert.equal(again.code, 1);
    assert.match(again.stderr, /already exists/);
    await moor().ok('image', 'tag', '--force', NAME, 'harbour.test/other:1');
    assert.equal(await moor().ok('image', 'label', NAME, 'a=1', 'b'), 'a=1,b=true\n');
    assert.equal(await moor().ok('image', 'label', '-r', NAME, 'c=3'), 'c=3\n');
    await same('images', 'ls');

    await moor().ok('images', 'export', file('out.tar'), NAME, 'harbour.test/other:1');
    await moor().ok('images', 'rm', '--sync', 'harbour.test/other:1', NAME);
    assert.equal(await moor().ok('content', 'ls', '-q'), '');
    assert.equal(await moor().ok('snapshots', 'ls'), 'KEY PARENT KIND \n');
    await ctr.ok('images', 'import', file('out.tar'));
    assert.match(await moor().ok('images', 'ls', '-q'), /busybox:1\n.*other:1\n/s);
    await moor().ok('images', 'rm', '--sync', 'harbour.test/other:1', NAME, 'absent:1');
  });

  it('what export fails at leaves no file', async () => {
    const outcome = await moor().call(['images', 'export', file('never.tar'), 'absent:1']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /absent:1.*not found/);
    assert.equal(existsSync(file('never.tar')), false);
  });

  it('an image is mounted, and unmounted without a trace', async () => {
    await seeded();
    const target = file('mnt');
    mkdirSync(target);
    await moor().ok('images', 'mount', '--rw', NAME, target);
    assert.equal(readFileSync(join(target, 'etc/greeting'), 'utf8'), 'moored');
    writeFileSync(join(target, 'written'), 'x');
    const layer = await moor().call(['snapshots', 'diff', target], {});
    assert.equal(layer.code, 0, layer.stderr);
    assert.equal(await moor().ok('images', 'unmount', '--rm', target), `${target}\n`);
    assert.equal(existsSync(join(target, 'etc')), false);
    assert.equal((await moor().call(['snapshots', 'info', target])).code, 1);
    assert.doesNotMatch(await moor().ok('leases', 'ls'), /mnt/);
  });

  it('a converted image has the same files, other layers, and goes back', async () => {
    await seeded();
    const digestOf = async (name: string) =>
      /sha256:\w+/.exec((await moor().ok('images', 'ls', `name==${name}`)).split('\n')[1]!)![0];
    const layersOf = async (name: string) =>
      (
        JSON.parse(await moor().ok('content', 'get', await digestOf(name))) as {
          layers: { mediaType: string; digest: string }[];
        }
      ).layers;
    for (const [flag, suffix] of [
      ['--zstd', '+zstd'],
      ['--uncompress', ''],
      ['--gzip', '+gzip'],
    ] as const) {
      const name = `harbour.test/converted${flag}:1`.replaceAll('--', '-');
      await moor().ok('images', 'convert', flag, NAME, name);
      const types = (await layersOf(name)).map(({ mediaType }) => mediaType);
      assert.deepEqual([...new Set(types)], [`application/vnd.oci.image.layer.v1.tar${suffix}`]);
      assert.match(await moor().ok('images', 'check', `name==${name}`), /complete \(\d\/\d\).*true/);
      await moor().ok('images', 'rm', '--sync', name);
    }
    await moor().ok('images', 'convert', '--zstd', NAME, 'harbour.test/z:1');
    await moor().ok('images', 'rm', '--sync', NAME);
    // What was below it goes as garbage.
    await moor().ok('snapshots', 'rm', (await chain()).at(-1)!);
    assert.match(await moor().ok('images', 'check'), /complete.*false/);
    await moor().ok('snapshots', 'unpack', 'harbour.test/z:1');
    assert.match(await moor().ok('images', 'check'), /complete.*true/);
    await moor().ok('images', 'convert', '--uncompress', 'harbour.test/z:1', 'harbour.test/u:1');
    assert.equal((await layersOf('harbour.test/u:1'))[0]!.digest, image.diffIds[0]);
    await moor().ok('images', 'rm', '--sync', 'harbour.test/z:1', 'harbour.test/u:1');
    assert.equal(await moor().ok('content', 'ls', '-q'), '');
  });

  it('content is ingested, printed, labelled, edited and removed', async () => {
    const digest = 'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824';
    const ingest = (...flags: string[]) =>
      moor().call(['content', 'ingest', '--label', 'containerd.io/gc.root=1', ...flags, 'greeting'], {
        input: 'hello',
      });
    const wrong = await ingest('--expected-size', '4');
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /size|offset/);
    assert.equal((await ingest('--expected-digest', digest)).code, 0);
    assert.equal(await moor().ok('content', 'get', digest), 'hello');
    assert.match(
      await moor().ok('content', 'ls'),
      new RegExp(`^${digest}\t5B\t.*\tcontainerd.io/gc.root=1$`, 'm'),
    );
    assert.equal(await moor().ok('content', 'ls'), sortedLabels(await ctr.ok('content', 'ls')));
    assert.equal(await moor().ok('content', 'active'), await ctr.ok('content', 'active'));
    assert.equal(await moor().ok('content', 'label', digest, 'a=b'), 'a=b,containerd.io/gc.root=1\n');
    const edited = await moor().ok('content', 'edit', '--editor', 'sed -i s/hello/bye/', digest);
    assert.equal(await moor().ok('content', 'get', edited.trim()), 'bye');
    assert.equal(await moor().ok('content', 'rm', digest, edited.trim()), `${digest}\n${edited}`);
    assert.match((await moor().call(['content', 'rm', 'nonsense'])).stderr, /no digest/);
  });

  it('snapshots are prepared, written, compared, committed and removed', async () => {
    const { ok } = { ok: moor().ok.bind(moor()) };
    const target = file('snap');
    mkdirSync(target);
    const command = await ok('snapshots', 'prepare', '-t', target, 'work');
    assert.equal(command, await ctr.ok('snapshots', 'mounts', target, 'work'));
    execFileSync('sh', ['-c', command]);
    writeFileSync(join(target, 'cargo'), 'tea');
    execFileSync('umount', [target]);
    await ok('snapshots', 'commit', 'base', 'work');
    await ok('snapshots', 'prepare', 'look', 'base');
    assert.equal(await ok('snapshots', 'tree'), ' base\n  \\_ look\n');
    const layer = moor().spawn(['snapshots', 'diff', 'base']);
    const list = execFileSync('tar', ['-tzf', '-'], { input: await bytesOf(layer.stdout!) }).toString();
    assert.equal(list.trim(), 'cargo');
    const refused = await moor().call(['snapshots', 'rm', 'base']);
    assert.equal(refused.code, 1);
    assert.equal(
      await ok('snapshots', 'label', 'base', 'x=y'),
      sortedLabels(await ctr.ok('snapshots', 'label', 'base')),
    );
    await ok('snapshots', 'rm', 'look', 'base');
    assert.equal(await ok('snapshots', '--snapshotter', 'native', 'ls'), 'KEY PARENT KIND \n');
  });

  for (const options of [{}, { tls: true, password: true }])
    it(
      `images go to a registry and come back, ${JSON.stringify(options)}`,
      { skip: withoutDebianRegistry },
      async () => {
        await using registry = await LocalRegistry.start(options);
        // What another namespace has is not fetched.
        const image = await makeImage([{ noise: randomBytes(1 << 20) }, { a: randomBytes(20) }]);
        ociArchive(file('own.tar'), [[NAME], image]);
        await moor().ok('images', 'import', '--quiet', file('own.tar'));
        const flags = [...registry.ctrFlags];
        const name = registry.image('busybox');
        const pushed = await moor().ok('images', 'push', ...flags, name, NAME);
        const layer = image.layers[0]!.digest.slice(7, 19);
        assert.match(pushed, new RegExp(`^layer ${layer}: uploading [^]*^layer ${layer}: complete`, 'm'));
        await moor().ok('images', 'rm', '--sync', NAME);
        const pulled = await moor().ok('images', 'pull', '--print-chainid', ...flags, name);
        // A line when a layer begins and one when it ends, and nothing twice.
        const lines = pulled.split('\n').filter((line) => line.startsWith(`layer ${layer}`));
        assert.deepEqual(
          lines.map((line) => line.replace(/ \(.*/, '').slice(20)),
          ['downloading', 'complete', 'unpacked'],
        );
        assert.match(pulled, /^total [\d.]+ \w+ in [\d.]+ s \([\d.]+ \w+\/s\)$/m);
        assert.match(pulled, /^image chain ID: sha256:/m);
        assert.match(await moor().ok('images', 'check'), /complete \(\d\/\d\).*true/);
        assert.equal(await moor().ok('images', 'pull', '-q', ...flags, name), `${name}\n`);
        const raw = await moor().ok('content', 'fetch-object', ...flags, name);
        assert.equal(raw, image.manifest.bytes.toString());
        const config = await moor().ok('content', 'fetch-blob', ...flags, name, image.config.digest);
        assert.equal(config, image.config.bytes.toString());
        const copy = registry.image('busybox', 'copy');
        const { digest, mediaType } = image.manifest;
        assert.equal(
          await moor().ok('content', 'push-object', ...flags, copy, digest, mediaType),
          `Pushed ${digest} ${mediaType}\n`,
        );
        await moor().ok('images', 'push', '-q', ...flags, '--manifest', digest, registry.image('again', 'x'));
        await moor().ok('images', 'rm', '--sync', name);
        await moor().ok('content', 'fetch', '-q', ...flags, registry.image('again', 'x'));
        assert.match(await moor().ok('images', 'check'), /complete \(\d\/\d\).*false/);
        await moor().ok('images', 'rm', '--sync', registry.image('again', 'x'));
        if (registry.user !== undefined) await passwords(registry, name);
        assert.equal(await moor().ok('content', 'ls', '-q'), '');
      },
    );

  /** Who may not is told so without the password; docker's configuration and its helper let in; so does a password that is asked for. */
  async function passwords(registry: LocalRegistry, name: string): Promise<void> {
    const [user = '', ...rest] = registry.user!.split(':');
    const secret = rest.join(':');
    const ca = ['--tlscacert', registry.ca!];
    const wrong = await moor().call(['images', 'pull', ...ca, '--user', `${user}:wrong-secret`, name]);
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /authorization|401|refused/i);
    assert.doesNotMatch(wrong.stderr + wrong.stdout + rig.daemon.tail(0, 10_000), /wrong-secret/);
    const untrusted = await moor().call(['images', 'pull', '--user', registry.user!, name]);
    assert.match(untrusted.stderr, /certificate/);
    await moor().ok('images', 'pull', '-q', '--skip-verify', '--user', registry.user!, name);
    const config = mkdtempSync(file('docker-'));
    const json = { auths: { [registry.host]: { auth: Buffer.from(registry.user!).toString('base64') } } };
    writeFileSync(join(config, 'config.json'), JSON.stringify(json));
    process.env['DOCKER_CONFIG'] = config;
    await moor().ok('images', 'pull', '-q', ...ca, name);
    delete process.env['DOCKER_CONFIG'];
    const traced = await moor().ok('images', 'pull', '--http-dump', ...ca, '--user', registry.user!, name);
    assert.match(traced, /^HEAD https:\S+: 200 in \d+ ms$/m);
    assert.match(traced, /^> authorization: \(withheld\)$/m);
    assert.doesNotMatch(traced, new RegExp(Buffer.from(registry.user!).toString('base64')));
    const terminal = onTerminal(['images', 'pull', ...ca, '--user', user, name]);
    await terminal.sees(/Password of skipper: /);
    terminal.type(`${secret}\r`);
    assert.equal(await terminal.exited(), 0, terminal.shown);
    assert.ok(!terminal.shown.includes(secret));
    await moor().ok('images', 'rm', '--sync', name);
  }

  const onTerminal = (args: string[], size = { cols: 100, rows: 24 }) =>
    new Terminal(
      spawnOnTerminal(
        join(import.meta.dirname, '../bin/moor'),
        ['--address', rig.daemon.address, '--namespace', ctr.namespace, ...args],
        { ...size, env: { ...process.env, TERM: 'xterm' } },
      ),
    );

  it('Ctrl-C ends a pull; nothing half is left, and the next one goes on where it stopped', async () => {
    await using registry = await TrickyRegistry.start();
    const noise = await makeImage([{ noise: randomBytes(6 << 20) }]);
    registry.put('r', 'x', noise);
    const layer = noise.layers[0]!;
    const half = layer.bytes.length >> 1;
    let asked: string | undefined;
    registry.trick = (request, response, path) => {
      if (!path.includes(layer.digest)) return false;
      asked = request.headers.range;
      if (asked !== undefined) return false;
      // The rest never comes.
      response.writeHead(200, { 'content-length': layer.bytes.length });
      response.write(layer.bytes.subarray(0, half));
      return true;
    };
    const name = `${registry.host}/r:x`;
    const terminal = onTerminal(['images', 'pull', name]);
    await terminal.sees(/layer \w{12} +downloading/);
    await eventually('some of the layer is stored', async () =>
      /layer-sha256:\w+\t+[\d.]+MB/.test(await moor().ok('content', 'active')),
    );
    terminal.type('\u0003');
    assert.equal(await terminal.exited(), 130);
    assert.match(terminal.shown, /moor: interrupted\r\nhint: /);
    assert.equal(await moor().ok('images', 'ls', '-q'), '');
    assert.match(await moor().ok('content', 'active'), /layer-sha256/);
    const pulled = await moor().ok('images', 'pull', name);
    assert.match(String(asked), /^bytes=[1-9]\d{6,}-$/);
    assert.match(pulled, /complete/);
    await moor().ok('images', 'rm', '--sync', name);
  });

  it('of an index the platforms that are asked for are taken', async () => {
    const other = await makeImage([{ a: 'arm' }], { architecture: 'arm64' });
    const index = multiPlatform({ amd64: image, arm64: other });
    ociArchive(file('index.tar'), [['harbour.test/multi:1'], index]);
    await moor().ok('images', 'import', '-q', '--all-platforms', file('index.tar'));
    assert.match(await moor().ok('images', 'ls'), /linux\/amd64,linux\/arm64/);
    assert.equal(await moor().ok('images', 'ls'), await ctr.ok('images', 'ls'));
    assert.equal(
      (await moor().ok('snapshots', 'ls')).trim().split('\n').length - 1,
      image.diffIds.length + 1,
    );
    const converted = 'harbour.test/arm:1';
    await moor().ok('images', 'convert', '--platform', 'linux/arm64', 'harbour.test/multi:1', converted);
    assert.match(await moor().ok('images', 'ls', `name==${converted}`), / linux\/arm64 /);
    await moor().ok('images', 'rm', '--sync', 'harbour.test/multi:1', converted);
    const refused = await moor().call(['images', 'pull', '--platform', 'x', '--all-platforms', 'a.test/b:c']);
    assert.match(refused.stderr, /exclude each other/);
  });

  it('flags that cannot be kept say why', async () => {
    const says = async (args: string[], message: RegExp) => {
      const { code, stderr } = await moor().call(['images', 'pull', ...args, 'a.test/b:c']);
      assert.equal(code, 1);
      assert.match(stderr, message);
    };
    await says(['--local'], /moved by the daemon/);
    await says(['--plain-http', '--skip-verify'], /do not go with it/);
    await says(['--tlskey', '/etc/hostname'], /--tlscert/);
    await says(['--tlscacert', '/nonexistent'], /--tlscacert: ENOENT/);
    await says(['--tlscacert', '/etc/hostname'], /no PEM file/);
    await says(['--user', 'nobody'], /no terminal to ask/);
  });
});

/** ctr prints labels in any order. */
function sortedLabels(listing: string): string {
  const sorted = (line: string) => line.replace(/[^\t]+$/, (labels) => labels.split(',').sort().join(','));
  return listing.split('\n').map(sorted).join('\n');
}

async function bytesOf(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const pieces: Buffer[] = [];
  stream.on('data', (piece: Buffer) => pieces.push(piece));
  await once(stream, 'end');
  return Buffer.concat(pieces);
}
