import assert from 'node:assert/strict';
import { test } from 'node:test';
import { timeoutOf } from './timeout.ts';

test('a timeout is read in every unit', () => {
  const read = ['2H', '3M', '4S', '50m', '1500u', '10n'].map(timeoutOf);
  assert.deepEqual(read, [7_200_000, 180_000, 4000, 50, 2, 1]);
});

test('a timeout beyond what timers can is none', () => {
  assert.equal(timeoutOf('99999999H'), undefined);
  assert.equal(timeoutOf('2147483S'), 2_147_483_000);
});

test('what is no timeout is none', () => {
  for (const header of [undefined, '', '5', '-1S', '123456789S', '5 S', '1S, 2S'])
    assert.equal(timeoutOf(header), undefined);
});
