import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lastError } from './runc.ts';

test("the runtime's last error is found among warnings and what hooks print", () => {
  const text = [
    '{"level":"warning","msg":"odd","time":"t"}',
    'a hook says this',
    '{"level":"error","msg":"first"}',
    '{"level":"error","msg":" exec: \\"nope\\": not found\\n"}',
    '{"level":"error","msg":"cut o',
  ].join('\n');
  assert.equal(lastError(text), 'exec: "nope": not found');
});

test('without a log, the last line counts', () => {
  assert.equal(lastError('one\n  two \n\n'), 'two');
  assert.equal(lastError(''), undefined);
});
