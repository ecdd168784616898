import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseFlags } from './flags.ts';

test("flags are taken in every way Go's programs take them", () => {
  const words = '-namespace n --id=i -address=/a -publish-binary /b -bundle /c -debug start'.split(' ');
  const flags = parseFlags(words);
  assert.deepEqual(
    [flags.namespace, flags.id, flags.address, flags.publishBinary, flags.bundle, flags.debug, flags.action],
    ['n', 'i', '/a', '/b', '/c', true, 'start'],
  );
});

test('flags may stand behind the action, and be empty', () => {
  const flags = parseFlags(['serve', '-id', 'i', '-socket=', '-debug=false', '-v', '-info']);
  assert.deepEqual(
    [flags.action, flags.id, flags.socket, flags.debug, flags.version, flags.info],
    ['serve', 'i', '', false, true, true],
  );
});

test('flags that nobody knows or that lack their value are refused by name', () => {
  assert.throws(() => parseFlags(['-nope']), /unknown flag -nope/);
  assert.throws(() => parseFlags(['-constructor', 'x']), /unknown flag -constructor/);
  assert.throws(() => parseFlags(['start', '-id']), /flag -id needs a value/);
});
