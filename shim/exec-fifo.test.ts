import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Code } from '../ttrpc/errors.ts';
import { findExecFifo, releaseExecFifo } from './exec-fifo.ts';

const never = new Promise<never>(() => undefined);

function place(t: TestContext): { directory: string; fifo: string } {
  const directory = mkdtempSync(join(tmpdir(), 'moor-fifo-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const fifo = join(directory, 'exec.fifo');
  execFileSync('mkfifo', [fifo]);
  return { directory, fifo };
}

/** Waits in opening the FIFO, writes what runc's init writes, and ends. */
const init = (fifo: string, text = '0') => spawn('/bin/sh', ['-c', `printf '${text}' > "$0"`, fifo]);

test('an init that waits goes on, and the FIFO is gone', async (t) => {
  const { fifo } = place(t);
  const waiting = init(fifo);
  await releaseExecFifo(fifo, never);
  assert.equal(existsSync(fifo), false);
  if (waiting.exitCode === null) await once(waiting, 'exit');
});

test('an init that comes later is waited for', async (t) => {
  const { fifo } = place(t);
  const released = releaseExecFifo(fifo, never);
  const waiting = init(fifo);
  await released;
  if (waiting.exitCode === null) await once(waiting, 'exit');
});

test('an init that is dead, or has gone on before, cannot be started', async (t) => {
  const { fifo } = place(t);
  await assert.rejects(releaseExecFifo(fifo, Promise.resolve()), {
    code: Code.FailedPrecondition,
    message: /already dead/,
  });
  const released = releaseExecFifo(fifo, never);
  init(fifo, '');
  await assert.rejects(released, { code: Code.FailedPrecondition, message: /already running/ });
});

test('only what runc has made is taken for it', (t) => {
  const { directory, fifo } = place(t);
  assert.equal(findExecFifo(directory), undefined);
  writeFileSync(join(directory, 'state.json'), '{}');
  assert.equal(findExecFifo(directory), fifo);
  rmSync(fifo);
  assert.equal(findExecFifo(directory), undefined);
  writeFileSync(fifo, '');
  assert.equal(findExecFifo(directory), undefined);
});
