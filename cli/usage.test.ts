import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { moorAlone } from './moor.test.ts';

test('without a daemon the message says what to do', async () => {
  const absent = await moorAlone(['--address', '/tmp/moor-nobody.sock', 'tasks', 'ls']);
  assert.equal(absent.status, 1);
  assert.equal(
    absent.stderr,
    'moor: cannot connect to /tmp/moor-nobody.sock: there is no such socket\n' +
      'hint: is the daemon running? Start it with: moord --address /tmp/moor-nobody.sock\n',
  );
  assert.equal(
    (await moorAlone(['-a', '/tmp/moor-nobody.sock', 'run', '--rootfs', '/', 'x', 'true'])).status,
    125,
  );
});

test('mistyped commands and flags get a suggestion', async () => {
  assert.deepEqual(await moorAlone(['tassk', 'ls']), {
    status: 2,
    stdout: '',
    stderr: "moor: unknown command 'tassk'\nhint: Did you mean one of task, tasks?\n",
  });
  const misplaced = await moorAlone(['tasks', 'ls', '--namespace', 'x']);
  assert.match(misplaced.stderr, /hint: --namespace belongs before the command/);
  assert.match(
    (await moorAlone(['tasks', 'kill'])).stderr,
    /missing required argument 'container'\nhint: see moor tasks kill --help/,
  );
  assert.match((await moorAlone(['--help'])).stdout, /Usage: moor \[options\] \[command\]/);
});

test('bash completes commands, flags and, after a flag’s value, the next command', async () => {
  const script = (await moorAlone(['completion', 'bash'])).stdout;
  const complete = (...words: string[]) =>
    execFileSync('bash', [
      '-c',
      `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _moor; printf '%s\\n' "\${COMPREPLY[@]}"`,
      'bash',
      ...words,
    ])
      .toString()
      .trim()
      .split('\n');
  assert.deepEqual(complete('moor', 'contai'), ['containers', 'container']);
  assert.deepEqual(complete('moor', '--namespace', 'tasks', 'ev'), ['events', 'event']);
  assert.deepEqual(complete('moor', 't', 'exec', '--exec'), ['--exec-id']);
  assert.deepEqual(complete('moor', '-n', 'x', 'task', 'l'), ['list', 'ls']);
});
