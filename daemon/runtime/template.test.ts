import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { isCode, Code } from '../../ttrpc/errors.ts';
import { type ForkRequest, ShimTemplate } from './template.ts';

const request: ForkRequest = {
  namespace: 'n',
  id: 'i',
  address: '/nowhere',
  bundle: '/nowhere',
  socket: '/nowhere',
  debug: false,
};

const shim = join(import.meta.dirname, '../../shim/main.ts');

interface Stage {
  readonly template: ShimTemplate;
  /** Messages of the log. */
  readonly said: string[];
  readonly code: string;
}

/** A template of this program, of which `code` is the file that is watched. */
function stage(t: TestContext, program: string | readonly string[], env: Record<string, string> = {}): Stage {
  const folder = mkdtempSync(join(tmpdir(), 'moor-template-'));
  const code = join(folder, 'program.mjs');
  writeFileSync(code, typeof program === 'string' ? program : '');
  const said: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => void said.push(line) });
  const template = new ShimTemplate({
    command: [
      process.execPath,
      '--disable-warning=ExperimentalWarning',
      ...(typeof program === 'string' ? [code] : program),
    ],
    env: { PATH: process.env['PATH'] ?? '', ...env },
    log,
    scratch: join(folder, 'scratch'),
    code: [code],
  });
  t.after(() => {
    template.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { template, said, code };
}

/** Answers each line with its own pid. */
const FAITHFUL = `
  import { createInterface } from 'node:readline';
  import { Socket } from 'node:net';
  const daemon = new Socket({ fd: 3 });
  createInterface({ input: daemon }).on('line', (line) => {
    const { sequence, id } = JSON.parse(line);
    if (id === 'fatal') process.exit(3);
    daemon.write(JSON.stringify({ sequence, pid: process.pid }) + '\\n');
  });
  daemon.on('end', () => process.exit(0));
`;

/** Asks until it is answered: a template that has just died is not replaced at once. */
async function forkSoon(template: ShimTemplate): Promise<number | undefined> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await template.fork(request);
    } catch (error) {
      if (tries > 300) throw error;
      await delay(100);
    }
  }
}

test('a template whose code has changed is replaced, and serves what it was asked before', async (t) => {
  const { template, said, code } = stage(t, FAITHFUL);
  const first = await template.fork(request);
  assert.equal(await template.fork(request), first);
  const last = template.fork(request);
  appendFileSync(code, '// another version\n');
  const next = await template.fork(request);
  assert.equal(await last, first);
  assert.notEqual(next, first);
  assert.equal(await template.fork(request), next);
  assert.equal(said.filter((line) => line.includes('another template takes over')).length, 1);
});

test('a template that dies fails what it was asked, and another one comes', async (t) => {
  const { template } = stage(t, FAITHFUL);
  const first = await template.fork(request);
  const both = [template.fork({ ...request, id: 'fatal' }), template.fork(request)];
  for (const { status, reason } of (await Promise.allSettled(both)) as PromiseRejectedResult[]) {
    assert.equal(status, 'rejected');
    assert.ok(isCode(reason, Code.Unavailable), String(reason));
  }
  assert.notEqual(await forkSoon(template), first);
});

test('a program that cannot be run, or ends at once, is tried a few times and then left alone until it changes', async (t) => {
  const { template, said, code } = stage(t, 'process.exit(4)');
  assert.equal(await forkSoon(template), undefined);
  assert.equal(await template.fork(request), undefined);
  const reasons = said.filter((line) => line.includes('shims cannot be forked'));
  assert.equal(reasons.length, 1);
  assert.match(reasons[0]!, /the template has died: /);
  writeFileSync(code, FAITHFUL);
  assert.ok(((await forkSoon(template)) ?? 0) > 0);
});

test('the real template says why it cannot be forked, and is asked no more', async (t) => {
  const thread = `import { Worker } from 'node:worker_threads';
    new Worker('setInterval(() => {}, 1000)', { eval: true }).unref();`;
  const { template, said } = stage(t, [
    '--import',
    `data:text/javascript,${encodeURIComponent(thread)}`,
    shim,
  ]);
  // All who wait are told the same, and none has to wait for an answer in vain.
  assert.deepEqual(await Promise.all([template.fork(request), template.fork(request)]), [
    undefined,
    undefined,
  ]);
  assert.equal(await template.fork(request), undefined);
  const reasons = said.filter((line) => line.includes('shims cannot be forked'));
  assert.equal(reasons.length, 1);
  assert.match(reasons[0]!, /the thread WorkerThread would be missing/);
  assert.equal(said.length, 1, said.join(''));
});
