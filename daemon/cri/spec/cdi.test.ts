import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Spec } from '../../../oci/spec.ts';
import { Code, isCode } from '../../../ttrpc/errors.ts';
import { askedDevices, findDevices, injectDevices } from './cdi.ts';

let home: string;
beforeEach(() => {
  home = mkdtempSync('/tmp/moor-cdi-');
  for (const name of ['etc', 'run']) mkdirSync(join(home, name));
});
afterEach(() => rmSync(home, { recursive: true }));

const write = (path: string, content: object | string): void =>
  writeFileSync(join(home, path), typeof content === 'string' ? content : JSON.stringify(content));
const found = (...names: string[]) => findDevices(names, [join(home, 'etc'), join(home, 'run'), '/no/such']);
const edited = async (names: string[], spec: Partial<Spec> = {}): Promise<Spec> => {
  const edits: Spec = {
    ociVersion: '1.0.2',
    process: { cwd: '/', user: { uid: 7, gid: 8 }, env: ['A=1'] },
    linux: {},
    mounts: [],
    ...spec,
  };
  injectDevices(edits, await found(...names));
  return edits;
};
const refused =
  (words: RegExp) =>
  (error: unknown): boolean =>
    isCode(error, Code.InvalidArgument) && words.test(error.message);

const file = (env: string, rest: object = {}) => ({
  cdiVersion: '0.6.0',
  kind: 'example.com/fancy',
  devices: [{ name: 'one', containerEdits: { env: [env] } }],
  ...rest,
});

test('names are asked for by the field and by annotations, each once', () => {
  assert.deepEqual(
    askedDevices(['a/b=1'], { 'cdi.k8s.io/x': 'a/b=2, a/b=1', other: 'a/b=3', 'cdi.k8s.io/y': '' }),
    ['a/b=1', 'a/b=2'],
  );
});

test('every edit is made, of a file in YAML as of one in JSON', async () => {
  write(
    'etc/all.yaml',
    `
cdiVersion: "0.7.0"
kind: example.com/all
annotations: { vendor: "1" }
containerEdits:
  env: [ALL=yes, ONE=all]
devices:
  - name: one
    containerEdits:
      env: [ONE=own]
      deviceNodes:
        - { path: /dev/fancy, hostPath: /dev/zero, permissions: rw, fileMode: 0660 }
        - { path: /dev/made, type: b, major: 240, minor: 3, uid: 0, gid: 5 }
        - { path: /dev/seen, hostPath: /dev/full, permissions: none }
        - { path: /dev/pipe, type: p }
      mounts:
        - { hostPath: /srv/lib, containerPath: /usr/lib/fancy, options: [ro, bind] }
        - { hostPath: /srv, containerPath: /opt/ }
      hooks:
        - { hookName: createContainer, path: /bin/ldconfig, args: [ldconfig], env: [X=1], timeout: 5 }
      additionalGids: [44, 0]
      intelRdt: { closID: fast, l3CacheSchema: "L3:0=f" }
  - name: empty
    containerEdits:
`,
  );
  const before = { destination: '/opt', type: 'bind', source: '/old' };
  const deep = { destination: '/usr/lib/fancy/deep', type: 'bind', source: '/deep' };
  const spec = await edited(['example.com/all=one', 'example.com/all=empty'], { mounts: [deep, before] });
  assert.deepEqual(spec.process?.env, ['A=1', 'ALL=yes', 'ONE=own']);
  assert.deepEqual(spec.process?.user, { uid: 7, gid: 8, additionalGids: [44] });
  assert.deepEqual(spec.linux?.devices, [
    { type: 'c', path: '/dev/fancy', major: 1, minor: 5, fileMode: 0o660, uid: 7, gid: 8 },
    { type: 'b', path: '/dev/made', major: 240, minor: 3, uid: 0, gid: 5 },
    { type: 'c', path: '/dev/seen', major: 1, minor: 7, fileMode: 0o666, uid: 7, gid: 8 },
    { type: 'p', path: '/dev/pipe', major: 0, minor: 0, uid: 7, gid: 8 },
  ]);
  assert.deepEqual(spec.linux.resources?.devices, [
    { allow: true, type: 'c', major: 1, minor: 5, access: 'rw' },
    { allow: true, type: 'b', major: 240, minor: 3, access: 'rwm' },
  ]);
  assert.deepEqual(
    spec.mounts?.map(({ destination, source, options }) => [destination, source, options]),
    [
      ['/opt/', '/srv', ['rbind', 'ro']],
      ['/usr/lib/fancy', '/srv/lib', ['ro', 'bind']],
      ['/usr/lib/fancy/deep', '/deep', undefined],
    ],
  );
  assert.deepEqual(spec.hooks, {
    createContainer: [{ path: '/bin/ldconfig', args: ['ldconfig'], env: ['X=1'], timeout: 5 }],
  });
  assert.equal(spec.linux.intelRdt?.closID, 'fast');
  assert.equal(spec.linux.intelRdt?.l3CacheSchema, 'L3:0=f');
});

test('a later directory goes before, and two in one directory contradict each other', async () => {
  write('etc/a.json', file('FROM=etc'));
  assert.deepEqual((await edited(['example.com/fancy=one'])).process?.env, ['A=1', 'FROM=etc']);
  write('run/b.json', file('FROM=run'));
  assert.deepEqual((await edited(['example.com/fancy=one'])).process?.env, ['A=1', 'FROM=run']);
  write('run/c.json', file('FROM=both'));
  await assert.rejects(
    found('example.com/fancy=one'),
    refused(/CDI device example.com\/fancy=one is in several/),
  );
});

test('what cannot be read is named where a device is missing, and harms no other', async () => {
  write('etc/a.json', file('FROM=etc'));
  write('etc/broken.json', 'not json');
  write('etc/broken.yaml', 'kind: [');
  write('etc/odd.yaml', file('X=1', { devices: 'none' }));
  write('etc/strange.json', file('X=1', { containerEdits: { teleport: true } }));
  write('etc/ignored.txt', 'nothing');
  assert.equal((await found('example.com/fancy=one')).length, 1);
  await assert.rejects(
    found('example.com/fancy=two', 'other.org/x=1'),
    (error: Error) =>
      refused(/unresolvable CDI devices example.com\/fancy=two, other.org\/x=1; /)(error) &&
      [/etc\/broken.json: /, /etc\/broken.yaml: /, /odd.yaml: devices must be an array/].every((words) =>
        words.test(error.message),
      ) &&
      /strange.json: unknown key containerEdits.teleport/.test(error.message) &&
      !/ignored/.test(error.message),
  );
  await assert.rejects(found('fancy'), refused(/"fancy" is no name of a CDI device/));
  const node = { path: '/dev/x', hostPath: '/no/such' };
  write('etc/a.json', file('X=1', { containerEdits: { deviceNodes: [node] } }));
  await assert.rejects(
    edited(['example.com/fancy=one']),
    refused(/example.com\/fancy=one: no such device: \/no\/such/),
  );
});
