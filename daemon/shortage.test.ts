import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { pino } from 'pino';
import { Code, RpcError, internal, isCode } from '../ttrpc/errors.ts';
import { isForWant, starved, started, stuck, unstartable, whenPossible } from './shortage.ts';

const log = pino({ level: 'silent' });
const failure = (code: string) => Object.assign(new Error(code), { code });

test('work is begun again for as long as something is short', async () => {
  const failures = [
    failure('EMFILE'),
    failure('EAGAIN'),
    new RpcError(Code.ResourceExhausted, 'full'),
  ].values();
  const work = async () => {
    const next = failures.next().value;
    if (next !== undefined) throw next;
    return 'done';
  };
  assert.equal(await whenPossible('work', work, { log }), 'done');
});

test('what fails for another reason, or is not wanted any more, is not begun again', async () => {
  const fail = (error: Error) => async () => {
    throw error;
  };
  await assert.rejects(whenPossible('work', fail(failure('EACCES')), { log }), /EACCES/);
  await assert.rejects(whenPossible('work', fail(internal('no')), { log }), /no/);
  await assert.rejects(whenPossible('work', fail(failure('EMFILE')), { log, goOn: () => false }), /EMFILE/);
});

test('programs that cannot be started for want of something are told from those that are not there', async () => {
  const limit = unstartable('/bin/true', failure('EAGAIN'));
  assert.ok(isCode(limit, Code.ResourceExhausted));
  assert.equal(limit.message, 'cannot start /bin/true: no more processes can be started');
  assert.equal(unstartable('/bin/none', failure('ENOENT')), undefined);
  assert.ok(isForWant(limit));
  const child = spawn('/bin/none', { stdio: ['pipe', 'pipe', 'pipe'] });
  started(child, '/bin/none');
  await once(child, 'error').catch(() => undefined);
});

test('a Node that has ended for want of threads is told from one that has failed', () => {
  const limit = 'no more processes can be started';
  assert.equal(starved('Assertion failed: (0) == (uv_thread_create(t.get(), start_thread, this))'), limit);
  assert.equal(starved('', 'SIGABRT'), limit);
  assert.equal(starved(stuck('node').message), limit);
  assert.equal(starved('', 'SIGKILL'), undefined);
  assert.equal(starved('out of memory', 'SIGABRT'), undefined);
});

test('a program that there is no descriptor for fails where it is started, and ends nobody', () => {
  const program = `
    import { openSync } from 'node:fs';
    import { invoke } from '${join(import.meta.dirname, 'runtime/invocation.ts')}';
    const held = [];
    try { for (;;) held.push(openSync('/dev/null')); } catch {}
    const command = ['/bin/true'];
    try { await invoke({ command, cwd: '/', env: {}, timeout: 1000 }); }
    catch (error) { console.log(error.code, error.message); }
    await new Promise((resolve) => setTimeout(resolve, 10));
    console.log('alive');`;
  const shell = `ulimit -n 100; exec "$0" --disable-warning=ExperimentalWarning --input-type=module -e "$1"`;
  const { stdout, stderr } = spawnSync('bash', ['-c', shell, process.execPath, program], {
    encoding: 'utf8',
  });
  assert.equal(
    stdout,
    `${Code.ResourceExhausted} cannot start /bin/true: too many open files\nalive\n`,
    stderr,
  );
});
