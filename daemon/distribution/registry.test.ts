import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { type CredentialSource, parseChallenges } from './auth.ts';
import { hostsOf } from './hosts.ts';
import { parseReference } from './reference.ts';
import { Registry, type RegistryOptions } from './registry.ts';
import { parseRetryAfter } from './retry.ts';
import { makeImage } from './testing/image.ts';
import { DebianRegistry, TrickyRegistry, withoutDebianRegistry } from './testing/registries.ts';
import { hasty } from './testing/stage.ts';

const password: CredentialSource = async () => ({ kind: 'password', username: 'moor', secret: 'anchor' });

async function resolve(name: string, options: RegistryOptions = {}): Promise<string> {
  await using registry = await Registry.open(parseReference(name), { retries: hasty, ...options });
  return (await registry.resolve()).digest;
}

test('references are read as clients write them', () => {
  const digest = `sha256:${'a'.repeat(64)}`;
  assert.deepEqual(parseReference(`localhost:5000/a/b-c:v1.0@${digest}`), {
    host: 'localhost:5000',
    repository: 'a/b-c',
    tag: 'v1.0',
    digest,
  });
  for (const wrong of [
    'busybox',
    'x/UPPER',
    'x/../y',
    'x/y:',
    'x/y@sha256:1',
    '/y',
    'a b/c',
    'x/y?z',
    'x/y#z',
  ]) {
    assert.throws(
      () => parseReference(wrong),
      (error) => isCode(error, Code.InvalidArgument),
      wrong,
    );
  }
});

test('challenges are told apart', () => {
  assert.deepEqual(parseChallenges('Bearer realm="https://a/t?x=1,2",service="s \\"q\\"", Basic realm=r'), [
    { scheme: 'bearer', parameters: { realm: 'https://a/t?x=1,2', service: 's "q"' } },
    { scheme: 'basic', parameters: { realm: 'r' } },
  ]);
  assert.equal(parseRetryAfter('3'), 3000);
  assert.equal(parseRetryAfter('Thu, 01 Jan 1970 00:00:05 GMT', 1000), 4000);
});

test('hosts.toml names mirrors, the registry itself comes last', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'moor-hosts-'));
  t.after(() => rmSync(directory, { recursive: true }));
  mkdirSync(join(directory, 'docker.io'));
  writeFileSync(
    join(directory, 'docker.io/hosts.toml'),
    '[host."http://mirror:5000"]\ncapabilities = ["pull"]\n[host."https://deep/path"]\noverride_path = true\nskip_verify = true\n',
  );
  const hosts = await hostsOf('docker.io', { directory });
  assert.deepEqual(
    hosts.map(({ base }) => base),
    ['http://mirror:5000/v2', 'https://deep/path', 'https://registry-1.docker.io/v2'],
  );
  assert.deepEqual([...hosts[0]!.capabilities], ['pull']);
  assert.equal(hosts[1]!.tls.skipVerify, true);
  writeFileSync(join(directory, 'docker.io/hosts.toml'), '[host');
  await assert.rejects(hostsOf('docker.io', { directory }), (error) => isCode(error, Code.InvalidArgument));
});

test('a mirror that is down is passed over', async (t) => {
  await using registry = await TrickyRegistry.start();
  const directory = mkdtempSync(join(tmpdir(), 'moor-hosts-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const image = await makeImage([{ a: 'a' }]);
  registry.put('r', 'x', image);
  mkdirSync(join(directory, 'example.test'));
  const toml = `server = "http://${registry.host}"\n[host."http://127.0.0.1:1"]\n`;
  writeFileSync(join(directory, 'example.test/hosts.toml'), toml);
  assert.equal(await resolve('example.test/r:x', { directory }), image.manifest.digest);
});

test('a token is fetched with the credentials, which no other host sees', async () => {
  await using registry = await TrickyRegistry.start();
  await using elsewhere = await TrickyRegistry.start();
  const image = await makeImage([{ a: 'a' }]);
  elsewhere.put('r', 'x', image);
  registry.trick = (request, response, path) => {
    const { authorization } = request.headers;
    if (path === '/token') {
      const isRight = authorization === `Basic ${Buffer.from('moor:anchor').toString('base64')}`;
      response.writeHead(isRight ? 200 : 401).end(JSON.stringify({ token: 'rope', expires_in: 300 }));
    } else if (authorization === 'Bearer rope') {
      response.writeHead(307, { location: `http://${elsewhere.host}${path}` }).end();
    } else {
      const realm = `http://${registry.host}/token`;
      response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="s"` }).end();
    }
    return true;
  };
  assert.equal(await resolve(`${registry.host}/r:x`, { credentials: password }), image.manifest.digest);
  assert.ok(elsewhere.headers.every(({ authorization }) => authorization === undefined));
  await assert.rejects(resolve(`${registry.host}/r:x`), (error) => isCode(error, Code.Unauthenticated));
});

test('a token endpoint that is down is told by name, without secrets', async () => {
  await using registry = await TrickyRegistry.start();
  registry.trick = (_, response) => {
    response.writeHead(401, { 'www-authenticate': 'Bearer realm="http://127.0.0.1:1/token"' }).end();
    return true;
  };
  await assert.rejects(resolve(`${registry.host}/r:x`, { credentials: password }), (error) => {
    assert.ok(isCode(error, Code.Unavailable));
    assert.match(error.message, /127\.0\.0\.1:1\/token/);
    assert.doesNotMatch(error.message, /anchor/);
    return true;
  });
});

test('Debian’s registry with a password lets in who knows it', { skip: withoutDebianRegistry }, async () => {
  // Of `htpasswd -nbB moor anchor`.
  const htpasswd = 'moor:$2y$04$wOAAbzhRFKWjCWurj/.X7eaur0An7dPaRWA6mIzv6F2kYmZTpY8PW\n';
  await using debian = await DebianRegistry.start(
    'auth: {htpasswd: {realm: moor, path: DIRECTORY/htpasswd}}',
    { htpasswd },
  );
  await assert.rejects(resolve(`${debian.host}/r:x`), (error) => isCode(error, Code.Unauthenticated));
  const known = resolve(`${debian.host}/r:x`, { credentials: password });
  await assert.rejects(known, (error) => isCode(error, Code.NotFound));
});
