import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isUnified, ROOT } from './cgroup/cgroup.ts';
import { removeUnfinished } from './unfinished.ts';

const trees = isUnified() ? [ROOT] : ['pids', 'freezer'].map((name) => join(ROOT, name));

/** Cgroups of a container, and a program by some name that is in all of them. */
function place(t: TestContext, program: string) {
  const folder = mkdtempSync(join(tmpdir(), 'moor-un-'));
  const id = basename(folder);
  const path = `/${id}-all/${id}`;
  const cgroups = trees.map((tree) => join(tree, path));
  for (const cgroup of cgroups) mkdirSync(cgroup, { recursive: true });
  const file = join(folder, program);
  copyFileSync('/bin/sleep', file);
  const child = spawn(file, ['1000']);
  const ended = once(child, 'exit');
  for (const cgroup of cgroups) writeFileSync(join(cgroup, 'cgroup.procs'), String(child.pid));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
    await removeUnfinished(id, path);
    for (const tree of trees) rmdirSync(join(tree, `${id}-all`));
    rmSync(folder, { recursive: true });
  });
  return { id, path, cgroups, ended };
}

test('the cgroups of the specification are removed, with a stage of the runtime that waits in them', async (t) => {
  const { id, path, cgroups, ended } = place(t, 'runc:[2:INIT]');
  assert.deepEqual(await removeUnfinished(id, path), []);
  assert.deepEqual(cgroups.filter(existsSync), []);
  assert.deepEqual(await ended, [null, 'SIGKILL']);
});

test('what is not the runtime’s lives on in its cgroups', async (t) => {
  const { id, path, cgroups, ended } = place(t, 'somebody');
  assert.deepEqual((await removeUnfinished(id, path)).sort(), [...cgroups].sort());
  assert.equal(await Promise.race([ended, Promise.resolve('alive')]), 'alive');
});

test('a stage in cgroups that do not bear the container’s name is another’s', async (t) => {
  const { path, cgroups, ended } = place(t, 'runc:[2:INIT]');
  assert.deepEqual((await removeUnfinished('other', path)).sort(), [...cgroups].sort());
  assert.equal(await Promise.race([ended, Promise.resolve('alive')]), 'alive');
});

test('the root of all cgroups is nobody’s, and what is not there is removed', async () => {
  for (const path of ['/', '/.', '/nobody-has-made-it', 'neither/this', ''])
    assert.deepEqual(await removeUnfinished('moor-nowhere', path), []);
});
