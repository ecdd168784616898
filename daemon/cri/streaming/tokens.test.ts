import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, isCode } from '../../../ttrpc/errors.ts';
import { Tokens } from './tokens.ts';

test('a token is good once, and for a minute', () => {
  let now = 0;
  const tokens = new Tokens<string>(() => now);
  const first = tokens.issue('first');
  assert.match(first, /^[\w-]{32}$/);
  assert.equal(tokens.take(first), 'first');
  assert.equal(tokens.take(first), undefined);
  const second = tokens.issue('second');
  now = 59_999;
  const third = tokens.issue('third');
  now = 60_000;
  assert.equal(tokens.take(second), undefined);
  assert.equal(tokens.take(third), 'third');
});

test('not more than a thousand wait, and those that have expired make room', () => {
  let now = 0;
  const tokens = new Tokens<number>(() => now);
  for (let number = 0; number < 1000; number += 1) tokens.issue(number);
  assert.throws(
    () => tokens.issue(1000),
    (error) => isCode(error, Code.ResourceExhausted),
  );
  now = 60_000;
  tokens.issue(1001);
});
