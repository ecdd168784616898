import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readlinkSync, rmSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { IpRoute } from './iproute.ts';
import { inodeOf, isNamespace, makeNamespace, removeNamespace } from './netns.ts';

const directory = mkdtempSync('/tmp/mn-');
test.after(() => rmSync(directory, { recursive: true, force: true }));

test('a namespace is made, kept and let go, and the maker stays where it is', () => {
  const path = join(directory, 'a/b');
  const home = readlinkSync('/proc/thread-self/ns/net');
  assert.equal(isNamespace(path), false);
  makeNamespace(path);
  try {
    assert.equal(isNamespace(path), true);
    assert.equal(readlinkSync('/proc/thread-self/ns/net'), home);
    assert.notEqual(`net:[${inodeOf(path)}]`, home);
    const listed = spawnSync('nsenter', [`--net=${path}`, 'ip', '-o', 'link'], { encoding: 'utf8' });
    assert.match(listed.stdout, /^1: lo: [^\n]*\n$/);
    assert.throws(() => makeNamespace(path), /cannot make a network namespace at .*EEXIST/);
  } finally {
    removeNamespace(path);
  }
  assert.equal(existsSync(path), false);
  // Twice is no mistake: whoever cleans up need not know how far another came.
  removeNamespace(path);
});

test('what a killed daemon has begun is waited for', async () => {
  const lock = join(directory, 'lock');
  const first = await IpRoute.open(lock);
  const slow = first.change(undefined, ['-timestamp', 'monitor', 'link']).catch(() => 'ended');
  let pid = '';
  while (pid === '') {
    await delay(10);
    pid = spawnSync('pgrep', ['-P', String(process.pid), '-x', 'ip'], { encoding: 'utf8' }).stdout.trim();
  }
  first.close();
  const opened = IpRoute.open(lock);
  assert.equal(await Promise.race([opened, delay(300, 'waits')]), 'waits');
  process.kill(Number(pid), 'SIGKILL');
  (await opened).close();
  assert.equal(await slow, 'ended');
});
