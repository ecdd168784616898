import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { dockerCredentials } from './credentials-docker.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** Asks for hosts, with a configuration and perhaps a helper `docker-credential-test` on the PATH. */
function lookUp(t: TestContext, config: object | string, helper?: string) {
  const directory = mkdtempSync(join(tmpdir(), 'moor-credentials-'));
  t.after(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, 'config.json'), typeof config === 'string' ? config : JSON.stringify(config));
  if (helper !== undefined) {
    const bin = join(directory, 'bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'docker-credential-test'), `#!/bin/sh\n${helper}\n`, { mode: 0o755 });
    const path = process.env['PATH'];
    process.env['PATH'] = `${bin}:${path}`;
    t.after(() => {
      process.env['PATH'] = path;
    });
  }
  const provider = dockerCredentials(directory);
  return (host: string) => provider({ host, reference: `${host}/a:b`, challenges: [] });
}

test('a login is found by its host, however it is written', async (t) => {
  const entry = (name: string) => ({ auth: base64(`${name}:open:sesame`) });
  const ask = lookUp(t, {
    auths: {
      'plain.test:5000': entry('plain'),
      'https://address.test/v1/': entry('address'),
      'https://index.docker.io/v1/': entry('docker'),
      'empty.test': {},
    },
  });
  const password = (username: string) => ({ kind: 'password', username, secret: 'open:sesame' });
  assert.deepEqual(await ask('plain.test:5000'), password('plain'));
  assert.deepEqual(await ask('address.test'), password('address'));
  assert.deepEqual(await ask('registry-1.docker.io'), password('docker'));
  assert.equal(await ask('plain.test'), undefined);
  assert.equal(await ask('empty.test'), undefined);
});

test('tokens are taken for what they are', async (t) => {
  const ask = lookUp(t, {
    auths: { 'identity.test': { identitytoken: 'i' }, 'registry.test': { registrytoken: 'r' } },
  });
  assert.deepEqual(await ask('identity.test'), { kind: 'refresh', secret: 'i' });
  assert.deepEqual(await ask('registry.test'), { kind: 'header', secret: 'Bearer r' });
});

test('a helper is given the server by stdin, and what it knows not is looked for in the file', async (t) => {
  const helper = `
    [ "$*" = get ] || exit 9
    read -r server
    case $server in
      one.test) echo '{"ServerURL":"one.test","Username":"u","Secret":"s"}' ;;
      https://index.docker.io/v1/) echo '{"Username":"<token>","Secret":"t"}' ;;
      *) echo 'credentials not found in native keychain'; exit 1 ;;
    esac`;
  const ask = lookUp(
    t,
    { credsStore: 'test', auths: { 'two.test': { auth: base64('a:b') }, 'one.test': {} } },
    helper,
  );
  assert.deepEqual(await ask('one.test'), { kind: 'password', username: 'u', secret: 's' });
  assert.deepEqual(await ask('registry-1.docker.io'), { kind: 'refresh', secret: 't' });
  assert.deepEqual(await ask('two.test'), { kind: 'password', username: 'a', secret: 'b' });
  assert.equal(await ask('three.test'), undefined);
});

test('a host can have a helper of its own', async (t) => {
  const ask = lookUp(
    t,
    { credHelpers: { 'one.test': 'test' }, credsStore: 'absent' },
    `echo '{"Username":"u","Secret":"s"}'`,
  );
  assert.equal((await ask('one.test'))?.secret, 's');
  await assert.rejects(ask('two.test'), /docker-credential-absent/);
});

test('what is broken is told without what is secret', async (t) => {
  await assert.rejects(lookUp(t, '{"auths": {"a": {"auth": "c2VjcmV0"')('a'), (error: Error) => {
    assert.match(error.message, /config\.json is no JSON object/);
    assert.doesNotMatch(error.message, /c2VjcmV0/);
    return true;
  });
  await assert.rejects(lookUp(t, { credsStore: '../../evil' })('a'), /is no name of a credential helper/);
  await assert.rejects(
    lookUp(t, { credsStore: 'test' }, `echo '{"Username":1}'`)('a'),
    /without a name or a secret/,
  );
  await assert.rejects(lookUp(t, { credsStore: 'test' }, `echo locked; exit 3`)('a'), /failed \(3\): locked/);
  const none = dockerCredentials('/nonexistent');
  assert.equal(await none({ host: 'a', reference: 'a/b:c', challenges: [] }), undefined);
});
