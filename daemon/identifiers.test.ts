import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, isCode } from '../ttrpc/errors.ts';
import { checkLabels, parseExecId, parseId, parseNamespace } from './identifiers.ts';

for (const value of ['a', '0', 'default', 'k8s.io', 'a-b_c.d', 'A'.repeat(76), 'x86_64']) {
  test(`${value} is an identifier`, () => {
    assert.equal(parseId(value), value);
    assert.equal(parseNamespace(value), value);
    assert.equal(parseExecId(value), value);
  });
}

for (const [value, message] of [
  ['', 'container id: identifier must not be empty: invalid argument'],
  ['../etc', /^container id: identifier "\.\.\/etc" must match \^\[A-Za-z0-9\]\+.*: invalid argument$/],
  ['a/b', /must match/],
  ['.', /must match/],
  ['a..b', /must match/],
  ['a-', /must match/],
  ['-a', /must match/],
  ['a\n', /identifier "a\\n" must match/],
  ['ä', /must match/],
  ['a\0', /must match/],
  ['a'.repeat(77), /greater than maximum length \(76 characters\)/],
  ['a'.repeat(300), /^container id: identifier "a{96}…" greater than maximum length/],
  [`${'a'.repeat(75)}!`, /must match/],
] as const) {
  test(`${JSON.stringify(value)} is none`, () => {
    assert.throws(
      () => parseId(value),
      (error) =>
        isCode(error, Code.InvalidArgument) &&
        (typeof message === 'string' ? error.message === message : message.test(error.message)),
    );
  });
}

test('the message says what the identifier is for', () => {
  assert.throws(() => parseNamespace('a/b'), /^RpcError: namespace: identifier/);
  assert.throws(() => parseExecId('a/b'), /^RpcError: exec id: identifier/);
});

test('a label holds 4096 bytes, key and value together', () => {
  checkLabels('x', { key: 'v'.repeat(4093) });
  checkLabels('x', { ö: 'v'.repeat(4094) });
  assert.throws(
    () => checkLabels('container.Labels', { ok: 'x', ö: 'v'.repeat(4095) }),
    (error) =>
      isCode(error, Code.InvalidArgument) &&
      /^container\.Labels: .*\(4096 bytes\), key: ö:/.test(error.message),
  );
});
