import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { refKeyOf } from './media-types.ts';
import { fetchImage } from './pull.ts';
import { pushImage } from './push.ts';
import { parseReference } from './reference.ts';
import { Registry } from './registry.ts';
import { makeImage } from './testing/image.ts';
import { DebianRegistry, TrickyRegistry, withoutDebianRegistry } from './testing/registries.ts';
import { Stage, hasty, here } from './testing/stage.ts';

const open = (name: string): Promise<Registry> => Registry.open(parseReference(name), { retries: hasty });

test(
  'a large layer goes in pieces, to another repository not at all',
  { skip: withoutDebianRegistry },
  async () => {
    await using debian = await DebianRegistry.start();
    await using source = await TrickyRegistry.start();
    await using stage = await Stage.open();
    const image = await makeImage([{ noise: randomBytes(18 << 20) }]);
    source.put('r', 'x', image);
    const { distribution } = stage;
    await using from = await open(`${source.host}/r:x`);
    const layer = refKeyOf(image.layers[0]!);
    const events = (): string[] =>
      stage.steps
        .splice(0)
        .filter(({ name }) => name === layer)
        .map(({ event }) => event);
    await distribution.leased(stage.session(), async (session) => {
      const target = await fetchImage(distribution, session, from, { targets: [] });
      events();
      await using first = await open(`${debian.host}/first:x`);
      await pushImage(distribution, session, first, target);
      assert.deepEqual(events(), ['uploading', 'uploading', 'uploading', 'complete']);
      await using second = await open(`${debian.host}/second:x`);
      await pushImage(distribution, session, second, target);
      assert.deepEqual(events(), ['already exists']);
      assert.equal((await second.resolve()).digest, image.manifest.digest);
    });
    const { labels } = distribution.content.info(here, image.layers[0]!.digest as never);
    assert.equal(labels[`containerd.io/distribution.source.${debian.host}`], 'first,second');
  },
);

test(
  'a registry with a certificate of its own is trusted when hosts.toml says so',
  { skip: withoutDebianRegistry },
  async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'moor-tls-'));
    t.after(() => rmSync(directory, { recursive: true }));
    const request =
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=moor';
    const files = ['-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', 'key.pem', '-out', 'cert.pem'];
    execFileSync('openssl', [...request.split(' '), ...files], { cwd: directory, stdio: 'ignore' });
    const pem = (name: string): string => readFileSync(join(directory, name), 'utf8');
    const section = 'http: {addr: "ADDRESS", tls: {certificate: DIRECTORY/cert.pem, key: DIRECTORY/key.pem}}';
    await using debian = await DebianRegistry.start(section, {
      'cert.pem': pem('cert.pem'),
      'key.pem': pem('key.pem'),
    });
    const reference = parseReference(`${debian.host}/r:x`);
    await using stranger = await Registry.open(reference, {
      scheme: 'https',
      retries: { ...hasty, attempts: 1 },
    });
    await assert.rejects(stranger.resolve(), (error) => isCode(error, Code.Unavailable));
    mkdirSync(join(directory, debian.host));
    const toml = `server = "https://${debian.host}"\nca = "${directory}/cert.pem"\n`;
    writeFileSync(join(directory, debian.host, 'hosts.toml'), toml);
    await using known = await Registry.open(reference, { directory, retries: hasty });
    await assert.rejects(known.resolve(), (error) => isCode(error, Code.NotFound));
  },
);
