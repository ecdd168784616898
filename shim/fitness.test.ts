import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';

const fitness = join(import.meta.dirname, 'fitness.ts');
const FLAGS = ['--single-threaded', '--v8-pool-size=1'];

/** What a process with these flags says of itself, after it has run this code. */
function judge(
  options: { flags?: readonly string[]; env?: Record<string, string>; before?: string } = {},
): string {
  const { flags = FLAGS, env = { UV_USE_IO_URING: '0' }, before = '' } = options;
  const script = `
    import { unfitness } from '${fitness}';
    import { readdirSync, readFileSync } from 'node:fs';
    ${before}
    const why = await unfitness();
    const children = readFileSync('/proc/self/task/' + process.pid + '/children', 'latin1');
    process.stdout.write(String(why) + (children === '' ? '' : ' and leaves ' + children));
    process.exit(0);
  `;
  const args = [...flags, '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script];
  const run = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], ...env },
    timeout: 60_000,
  });
  assert.equal(run.status, 0, run.stderr);
  return run.stdout;
}

test('a process that keeps to the conditions can be forked', () => {
  assert.equal(judge(), 'undefined');
  // Threads of libuv's pool that idle do no harm.
  const pool = `import { readFile } from 'node:fs/promises'; await readFile('/dev/null');`;
  assert.equal(judge({ before: pool }), 'undefined');
});

test('each condition that is not kept is named', () => {
  assert.match(judge({ flags: FLAGS.slice(1) }), /^Node runs without --single-threaded$/);
  assert.match(judge({ flags: FLAGS.slice(0, 1) }), /^Node runs without --v8-pool-size=1$/);
  assert.match(judge({ flags: [...FLAGS, '--v8-pool-size=3'] }), /^V8 has 3 worker threads$/);
  assert.match(judge({ env: {} }), /^UV_USE_IO_URING is not 0/);
  assert.match(judge({ env: { UV_USE_IO_URING: '1' } }), /^UV_USE_IO_URING is not 0/);
  const worker = `import { Worker } from 'node:worker_threads';
    const worker = new Worker('setInterval(() => {}, 1000)', { eval: true });
    await new Promise((resolve) => worker.once('online', resolve));`;
  assert.match(judge({ before: worker }), /^the thread WorkerThread would be missing/);
});

test('what only shows in a forked process is found by forking two', () => {
  const pending = `import { pbkdf2 } from 'node:crypto'; pbkdf2('a', 'b', 500_000, 64, 'sha512', () => {});`;
  assert.match(judge({ before: pending }), /^fork: EBUSY/);
  const used = `import { randomUUID } from 'node:crypto'; randomUUID();`;
  assert.equal(judge({ before: used }), 'forked processes draw the same random numbers');
  const numbers = `import { randomInt } from 'node:crypto'; randomInt(9);`;
  assert.equal(judge({ before: numbers }), 'forked processes draw the same random numbers');
  const files = (reading: string) => `
    import files from 'node:fs/promises';
    import { syncBuiltinESMExports } from 'node:module';
    files.readFile = () => { ${reading} };
    syncBuiltinESMExports();`;
  const failing = files(`throw new Error('nothing can be read');`);
  assert.equal(judge({ before: failing }), 'a forked process failed: nothing can be read');
  const crashing = files(`process.kill(process.pid, 'SIGSEGV');`);
  assert.equal(judge({ before: crashing }), 'a forked process ended by signal 11');
});
