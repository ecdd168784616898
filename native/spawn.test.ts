import assert from 'node:assert/strict';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { childPids, getPid, sealedCopy, spawn, waitPid, type ExitStatus, type Program } from './native.ts';

const PATH = '/usr/bin:/bin';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'moor-spawn-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

const shell = (script: string, changes: Partial<Program> = {}): Program => ({
  file: '/bin/sh',
  args: ['-c', script],
  environment: { PATH },
  cwd: '/',
  descriptors: ['ignore', 'ignore', 2],
  ...changes,
});

async function end(pid: number): Promise<ExitStatus> {
  for (;;) {
    const status = waitPid(pid);
    if (status !== undefined) return status;
    await sleep(5);
  }
}

/** Runs it to its end; what it has written to descriptor 1. */
async function printed(program: Program): Promise<string> {
  const path = join(folder, 'out');
  const fd = openSync(path, 'w');
  const [stdin = 'ignore', , ...others] = program.descriptors;
  const pid = spawn({ ...program, descriptors: [stdin, fd, ...others] });
  closeSync(fd);
  assert.deepEqual(await end(pid), { code: 0, signal: 0 });
  return readFileSync(path, 'utf8');
}

function write(name: string, text: string, mode: number): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

test('a program has its arguments, environment, folder and nothing else', async () => {
  const args = ['-c', 'printf "%s|" "$@"; pwd; env | sort', 'name', 'ein ß', '', '*'];
  const environment = { PATH, EMPTY: '', SAME: 'a=b', ABSENT: undefined };
  const text = await printed(shell('', { args, environment, cwd: folder }));
  assert.equal(text, `ein ß||*|${folder}\nEMPTY=\nPATH=${PATH}\nPWD=${folder}\nSAME=a=b\n`);
});

test('it has the descriptors it is handed in their order, and no other, close-on-exec or not', async () => {
  const paths = ['zero', 'one', 'two', 'three'].map((name) => write(name, '', 0o600));
  const fds = paths.map((path) => openSync(path, 'a'));
  const list = 'for fd in /proc/self/fd/*; do readlink "$fd"; done >&4; echo 3 >&3; echo 4 >&4';
  const out = join(folder, 'out');
  const fd = openSync(out, 'w');
  // 2 and 1 change places, so that a descriptor is taken away before it is needed if that is done one by one.
  const pid = spawn(shell(list, { descriptors: [fds[0]!, 2, 'ignore', fds[3]!, fd, fds[1]!, fds[0]!] }));
  assert.deepEqual(await end(pid), { code: 0, signal: 0 });
  for (const each of [...fds, fd]) closeSync(each);
  const open = readFileSync(out, 'utf8').trim().split('\n');
  // Of readlink's own, which the shell starts with all of its own; and the folder that the shell lists.
  assert.equal(open.at(-1), '4');
  assert.ok(open.includes('/dev/null'));
  assert.ok(open.includes(paths[0]!) && open.includes(paths[1]!) && open.includes(paths[3]!));
  assert.ok(!open.includes(paths[2]!));
  assert.equal(readFileSync(paths[3]!, 'utf8'), '3\n');
});

test('no signal is blocked or ignored in it, and it is in the session of its parent', async () => {
  // Node itself ignores SIGPIPE.
  assert.match(readFileSync('/proc/self/status', 'utf8'), /SigIgn:\t[0-9a-f]+1000$/m);
  const status = await printed({ ...shell(''), file: 'cat', args: ['/proc/self/status'] });
  for (const set of ['SigBlk', 'SigIgn', 'SigCgt']) assert.match(status, new RegExp(`^${set}:\t0+$`, 'm'));
  const stat = await printed({ ...shell(''), file: 'cat', args: ['/proc/self/stat'] });
  const fields = (text: string) => text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [, parent, group, session] = fields(stat);
  const own = fields(readFileSync('/proc/self/stat', 'utf8'));
  assert.deepEqual([Number(parent), group, session], [getPid(), own[2], own[3]]);
});

test('its end is that of the program', async () => {
  assert.deepEqual(await end(spawn(shell('exit 42'))), { code: 42, signal: 0 });
  assert.deepEqual(await end(spawn(shell('kill -9 $$'))), { code: 0, signal: 9 });
});

test('a program is looked for in the PATH that it is given', async () => {
  const [first, second] = ['first', 'second'].map((name) => join(folder, name));
  for (const each of [first!, second!]) mkdirSync(each);
  write('first/tool', '#!/bin/sh\necho first\n', 0o600);
  write('second/tool', '#!/bin/sh\necho second\n', 0o700);
  const environment = { PATH: `${folder}/nope:${first}:${folder}/second/tool:${second}` };
  assert.equal(await printed(shell('', { file: 'tool', args: [], environment })), 'second\n');
  rmSync(join(second!, 'tool'));
  const wanted = shell('', { file: 'tool', args: [], environment });
  assert.throws(() => spawn(wanted), { code: 'EACCES', syscall: 'execve' });
  assert.equal(await printed(shell('', { file: 'true', args: [], environment: {} })), '');
});

test('a program that is passed is called as it is told to be, named as its link, and has no descriptor of itself', async () => {
  const file = join(folder, 'tool');
  symlinkSync('/proc/self/fd/3', file);
  const shellFile = openSync('/bin/sh', 'r');
  const passing = sealedCopy(shellFile, 'shell');
  const script = 'cat /proc/$$/comm; readlink /proc/$$/exe; echo $0; ls /proc/$$/fd';
  const program = shell(script, { file, name: 'called', passing });
  const lines = (await printed(program)).trim().split('\n');
  assert.deepEqual(lines, ['tool', '/memfd:shell (deleted)', 'called', '0', '1', '2']);
  closeSync(passing);
  assert.throws(() => spawn({ ...program, passing: 9999 }), { code: 'EBADF', syscall: 'fcntl' });
  assert.throws(() => spawn({ ...program, passing: shellFile, file: '/nope' }), { code: 'ENOENT' });
  closeSync(shellFile);
});

test('what cannot be executed is an error at once, without a child or a descriptor left', () => {
  const descriptors = readdirSync('/proc/self/fd').length;
  const programs: [Partial<Program>, object][] = [
    [{ file: '/nope' }, { code: 'ENOENT', syscall: 'execve', message: /\/nope/ }],
    [{ file: 'nope' }, { code: 'ENOENT', syscall: 'execve', message: /nope/ }],
    [{ file: write('locked', '', 0o600) }, { code: 'EACCES', syscall: 'execve' }],
    [{ file: write('text', 'no program', 0o700) }, { code: 'ENOEXEC', syscall: 'execve' }],
    [{ cwd: '/nope' }, { code: 'ENOENT', syscall: 'chdir', message: /\/nope/ }],
    [{ args: ['x'.repeat(200_000)] }, { code: 'E2BIG', syscall: 'execve' }],
    [{ descriptors: [0, 9999] }, { code: 'EBADF', syscall: 'fcntl' }],
    [{ args: ['a\0b'] }, { code: 'ERR_INVALID_ARG_TYPE' }],
    [{ cwd: '/\0' }, { code: 'ERR_INVALID_ARG_TYPE' }],
  ];
  for (const [changes, error] of programs) assert.throws(() => spawn(shell('', changes)), error);
  assert.equal(readdirSync('/proc/self/fd').length, descriptors);
  assert.deepEqual(childPids(), []);
});

test('signals that come meanwhile reach the parent, and harm no child', async () => {
  let signals = 0;
  const count = () => void signals++;
  process.on('SIGWINCH', count);
  const sender = spawn(shell(`i=0; while [ $i -lt 200 ]; do kill -WINCH ${getPid()}; i=$((i+1)); done`));
  for (let index = 0; index < 50; index++) {
    assert.deepEqual(await end(spawn(shell('exit 7'))), { code: 7, signal: 0 });
  }
  assert.deepEqual(await end(sender), { code: 0, signal: 0 });
  await sleep(20);
  process.off('SIGWINCH', count);
  assert.ok(signals > 0);
});
