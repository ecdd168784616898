import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { endIfStuck } from './stuck-start.ts';

/** A program of Node's, and whether it was found to be stuck. */
function watched(program: string): { child: ChildProcess; found: { stuck: boolean } } {
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const found = { stuck: false };
  endIfStuck(child, () => (found.stuck = true));
  return { child, found };
}

test('a program that all threads wait in, the first for another, is killed', async () => {
  const { child, found } = watched('Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)');
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  assert.deepEqual([code, signal, found.stuck], [null, 'SIGKILL', true]);
});

test('one that works, or waits for something to do, is left alone', async () => {
  const working = watched('const end = Date.now() + 3000; while (Date.now() < end);');
  const waiting = watched('setTimeout(() => {}, 3000)');
  for (const { child, found } of [working, waiting]) {
    if (child.exitCode === null) await once(child, 'exit');
    assert.deepEqual([child.exitCode, found.stuck], [0, false]);
  }
});
