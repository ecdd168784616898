import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isUnified } from './cgroup/cgroup.ts';
import { removeEnded } from './runc-removal.ts';

const TREE = isUnified() ? '/sys/fs/cgroup' : '/sys/fs/cgroup/pids';

/** A container's directory and cgroup; the name has what systemd would escape. */
function place(t: TestContext): { directory: string; cgroup: string; write: (state: object) => void } {
  const directory = mkdtempSync(join(tmpdir(), 'moor-re-moval-'));
  const cgroup = join(TREE, basename(directory));
  mkdirSync(cgroup);
  t.after(() => {
    rmSync(directory, { recursive: true, force: true });
    if (existsSync(cgroup)) rmdirSync(cgroup);
  });
  const write = (state: object) => writeFileSync(join(directory, 'state.json'), JSON.stringify(state));
  return { directory, cgroup, write };
}

test('the cgroups of the state are removed with those below them, and then the state', async (t) => {
  const { directory, cgroup, write } = place(t);
  mkdirSync(join(cgroup, 'made/by the container'), { recursive: true });
  const cgroup_paths = { '': '', pids: cgroup, memory: join(TREE, 'was-never-there') };
  write({ cgroup_paths, intel_rdt_path: '' });
  assert.equal(await removeEnded(directory), true);
  assert.equal(existsSync(cgroup), false);
  assert.equal(existsSync(directory), false);
});

test('a cgroup that a process is still in is waited for, and left to the runtime with the state when it stays', async (t) => {
  const { directory, cgroup, write } = place(t);
  write({ cgroup_paths: { pids: cgroup } });
  const process = spawn('/bin/sleep', ['1000']);
  const ended = once(process, 'exit');
  writeFileSync(join(cgroup, 'cgroup.procs'), String(process.pid));
  assert.equal(await removeEnded(directory), false);
  assert.ok(existsSync(join(directory, 'state.json')));
  process.kill('SIGKILL');
  await ended;
  assert.equal(await removeEnded(directory), true);
  assert.equal(existsSync(cgroup), false);
});

test('what is not known to be nothing but cgroups is left alone', async (t) => {
  const { directory, cgroup, write } = place(t);
  const outside = join(directory, 'outside');
  mkdirSync(outside);
  assert.equal(await removeEnded(directory), false);
  for (const state of [
    {},
    { cgroup_paths: null },
    { cgroup_paths: { pids: cgroup, other: outside } },
    { cgroup_paths: { pids: `${cgroup}/../../..${outside}` } },
    { cgroup_paths: { pids: 7 } },
    { cgroup_paths: { pids: cgroup, other: `${TREE}/./` } },
    { cgroup_paths: { pids: cgroup }, intel_rdt_path: '/sys/fs/resctrl/x' },
  ]) {
    write(state);
    assert.equal(await removeEnded(directory), false, JSON.stringify(state));
  }
  writeFileSync(join(directory, 'state.json'), '{"cgroup_paths":');
  assert.equal(await removeEnded(directory), false);
  assert.ok(existsSync(outside) && existsSync(cgroup));
});
