import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { Turnstile } from './turnstile.ts';

/** An operation that ends when told to. */
function operation(): { run: () => Promise<void>; end: () => void; begun: () => boolean } {
  const { promise, resolve } = Promise.withResolvers<void>();
  let begun = false;
  const run = () => {
    begun = true;
    return promise;
  };
  return { run, end: resolve, begun: () => begun };
}

test('lets in as many as it may, and the others in the order they came', async () => {
  const turnstile = new Turnstile(2);
  const operations = [operation(), operation(), operation(), operation()] as const;
  const passes = operations.map(({ run }) => turnstile.pass(run));
  await Promise.resolve();
  assert.deepEqual(
    operations.map(({ begun }) => begun()),
    [true, true, false, false],
  );
  operations[1].end();
  await passes[1];
  await Promise.resolve();
  assert.deepEqual(
    operations.map(({ begun }) => begun()),
    [true, true, true, false],
  );
  for (const { end } of operations) end();
  await Promise.all(passes);
});

test('one that fails makes room for the next', async () => {
  const turnstile = new Turnstile(1);
  const failed = turnstile.pass(async () => {
    throw new Error('no');
  });
  const next = turnstile.pass(async () => 'yes');
  await assert.rejects(failed, /no/);
  assert.equal(await next, 'yes');
});

test('who gives up waiting loses the place, and nobody else does', async () => {
  const turnstile = new Turnstile(1);
  const first = operation();
  const passing = turnstile.pass(first.run);
  const patience = new AbortController();
  const impatient = operation();
  const given = turnstile.pass(impatient.run, patience.signal);
  const last = turnstile.pass(async () => 'passed');
  patience.abort();
  await assert.rejects(given, (error) => isCode(error, Code.Cancelled));
  first.end();
  await passing;
  assert.equal(await last, 'passed');
  assert.equal(impatient.begun(), false);
});
