import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, readFileSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import {
  childPids,
  getPid,
  pidfdOpen,
  pidfdSendSignal,
  pipe,
  Poll,
  prctlName,
  setChildSubreaper,
  setCloexec,
  waitPid,
} from './native.ts';

const SIGKILL = 9;

function readable(fd: number): Promise<void> {
  return new Promise((resolve) => {
    const poll = new Poll(fd, 'readable', () => {
      poll.close();
      resolve();
    });
  });
}

/** A shell command that outlives its parent, and so becomes a child of the nearest subreaper; it can read descriptor 3. */
async function orphan(command: string, input: number | 'ignore' = 'ignore'): Promise<number> {
  const parent = spawn('sh', ['-c', `(${command}) & echo $!`], {
    stdio: ['ignore', 'pipe', 'inherit', input],
  });
  assert.ok(parent.stdout !== null);
  let output = '';
  parent.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  await once(parent, 'exit');
  while (!output.includes('\n')) await once(parent.stdout, 'data');
  parent.stdout.destroy();
  return Number(output);
}

test('a subreaper adopts an orphan and learns its exit code', async () => {
  setChildSubreaper(true);
  const { read, write } = pipe();
  const pid = await orphan('read line <&3; exit 42', read);
  const pidfd = pidfdOpen(pid);
  assert.equal(waitPid(pid), undefined, 'still running');
  assert.ok(childPids().includes(pid));
  const end = readable(pidfd);
  writeSync(write, 'go\n');
  await end;
  assert.ok(childPids().includes(pid), 'a zombie is a child until it is reaped');
  assert.deepEqual(waitPid(pid), { code: 42, signal: 0 });
  assert.ok(!childPids().includes(pid));
  assert.throws(() => waitPid(pid), { code: 'ECHILD', syscall: 'waitid' });
  for (const fd of [read, write, pidfd]) closeSync(fd);
  setChildSubreaper(false);
});

test('a signal through a pidfd ends the process, and the status names the signal', async () => {
  setChildSubreaper(true);
  const { read, write } = pipe();
  const pid = await orphan('read line <&3', read);
  const pidfd = pidfdOpen(pid);
  pidfdSendSignal(pidfd, 0);
  const end = readable(pidfd);
  pidfdSendSignal(pidfd, SIGKILL);
  await end;
  assert.deepEqual(waitPid(pid), { code: 0, signal: SIGKILL });
  assert.throws(() => pidfdSendSignal(pidfd, 0), {
    code: 'ESRCH',
    message: 'pidfd_send_signal: ESRCH: No such process',
  });
  for (const fd of [read, write, pidfd]) closeSync(fd);
  setChildSubreaper(false);
});

test('reaping orphans takes no exit status from child_process', async () => {
  setChildSubreaper(true);
  const children = Array.from({ length: 5 }, (_, code) => spawn('sh', ['-c', `exit ${code}`]));
  const exits = Promise.all(children.map((child) => once(child, 'exit')));
  const { read, write } = pipe();
  // It ends when it is ours: its first parent would take an earlier exit with it.
  const pid = await orphan('read line <&3; exit 7', read);
  const pidfd = pidfdOpen(pid);
  closeSync(read);
  closeSync(write);
  await readable(pidfd);
  assert.deepEqual(waitPid(pid), { code: 7, signal: 0 });
  assert.deepEqual(
    (await exits).map(([code]) => code as number),
    [0, 1, 2, 3, 4],
  );
  closeSync(pidfd);
  setChildSubreaper(false);
});

test('a pidfd is not inherited unless asked', () => {
  const pidfd = pidfdOpen(process.pid);
  const flags = () => /flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${pidfd}`, 'latin1'))?.[1] ?? '';
  const cloexec = 0o2000000;
  assert.equal(parseInt(flags(), 8) & cloexec, cloexec);
  setCloexec(pidfd, false);
  assert.equal(parseInt(flags(), 8) & cloexec, 0);
  closeSync(pidfd);
});

test('the pid and the name are the kernel’s', () => {
  assert.equal(getPid(), process.pid);
  const before = readFileSync('/proc/self/comm', 'latin1').trim();
  prctlName('moor-name-is-cut-off');
  assert.equal(readFileSync('/proc/self/comm', 'latin1').trim(), 'moor-name-is-cu');
  prctlName(before);
});

test('a new session has its own id', () => {
  const script = `
    import { setSid, getPid } from '${import.meta.dirname}/native.ts';
    import { readFileSync } from 'node:fs';
    setSid();
    const session = readFileSync('/proc/self/stat', 'latin1').split(') ')[1].split(' ')[3];
    process.exitCode = Number(session) === getPid() ? 0 : 1;
    try { setSid(); process.exitCode = 2; } catch (error) { if (error.code !== 'EPERM') process.exitCode = 3; }
  `;
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  assert.equal(run.status, 0, run.stderr);
});

test('a process that is not there is ESRCH by name, with number and call', () => {
  // The largest pid the kernel can give is 2^22 (pid_max in proc_sys_kernel(5)).
  assert.throws(() => pidfdOpen(2 ** 22 + 1), {
    name: 'Error',
    code: 'ESRCH',
    errno: -3,
    syscall: 'pidfd_open',
    message: 'pidfd_open 4194305: ESRCH: No such process',
  });
});

test('what is no whole number is refused before the kernel sees it', () => {
  for (const pid of [Number.NaN, 1.5, 2 ** 40, '1' as unknown as number, undefined as unknown as number]) {
    assert.throws(() => pidfdOpen(pid), { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' });
  }
});
