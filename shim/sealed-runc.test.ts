import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Reaper } from './reaper.ts';
import { SealedRunc } from './sealed-runc.ts';

const { PATH } = process.env;
const reaper = new Reaper();
let folder: string;
let runc: string;
let warnings: string[];

before(() => reaper.start());
after(() => reaper.stop());

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'moor-sealed-'));
  runc = join(folder, 'runc');
  warnings = [];
  // It has a version, and says what it was started as.
  copyFileSync('/bin/bash', runc);
  process.env['PATH'] = `/nope:${folder}:${PATH}`;
});

afterEach(() => {
  rmSync(folder, { recursive: true });
  process.env['PATH'] = PATH;
});

/** In a folder of its own, as the link has the program's name. */
function make(): Promise<SealedRunc | undefined> {
  return SealedRunc.make(mkdtempSync(join(folder, 'scratch-')), reaper, (why) => warnings.push(why));
}

/** What a program is that is started so, and what it is called. */
async function started(sealed: SealedRunc, binary: string, where: string): Promise<string[]> {
  const out = join(folder, 'out');
  const program = {
    ...sealed.start(binary, where),
    args: ['-c', 'readlink /proc/$$/exe >"$1"; cat /proc/$$/comm >>"$1"; echo "$BASH" >>"$1"', 'x', out],
    environment: process.env,
    cwd: '/',
    descriptors: ['ignore', 'ignore', 2] as const,
  };
  const { exit } = await reaper.run(program, 30_000);
  assert.equal(exit.status, 0);
  return readFileSync(out, 'utf8').trim().split('\n').slice(0, 2);
}

test('runc is started from memory under its own name, by whatever path it is found', async () => {
  const sealed = await make();
  assert.ok(sealed);
  assert.equal(sealed.isCurrent, true);
  const where = mkdtempSync(join(folder, 'bundle-'));
  assert.deepEqual(await started(sealed, 'runc', where), ['/memfd:runc (deleted)', 'runc']);
  assert.deepEqual(await started(sealed, runc, where), ['/memfd:runc (deleted)', 'runc']);
  assert.deepEqual(sealed.start('/bin/bash', where), { file: '/bin/bash' });
  assert.deepEqual(sealed.start('runc', join(folder, 'gone')), { file: 'runc' });
  sealed.close();
  assert.deepEqual(warnings, []);
});

test('one that was replaced, or is hidden by another, is started as it is on disk', async () => {
  for (const change of [
    () => copyFileSync('/bin/cat', runc),
    () => rmSync(runc),
    () => (process.env['PATH'] = `${mkdtempSync(join(folder, 'empty-'))}:/nope`),
  ]) {
    copyFileSync('/bin/bash', runc);
    const sealed = await make();
    assert.ok(sealed);
    change();
    assert.equal(sealed.isCurrent, false);
    assert.deepEqual(sealed.start('runc', folder), { file: 'runc' });
    sealed.close();
  }
});

test('what is no program, fails, or is missing is not copied, and it is said why', async () => {
  const cases: [() => void, RegExp][] = [
    [() => writeFileSync(runc, '#!/bin/sh\nexit 0\n'), /is a script/],
    [() => copyFileSync('/bin/false', runc), /does not run: exit status 1/],
    [() => (process.env['PATH'] = folder + '/nope'), /no runc in PATH/],
  ];
  for (const [change, why] of cases) {
    change();
    assert.equal(await make(), undefined);
    assert.match(warnings.pop() ?? '', why);
  }
});
