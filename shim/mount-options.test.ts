import assert from 'node:assert/strict';
import { test } from 'node:test';
import { constants } from '../native/native.ts';
import { compactLowerDirs, parseMountOptions } from './mount-options.ts';

test('options become flags, and what is left belongs to the filesystem', () => {
  const { flags, data, loop } = parseMountOptions([
    'rbind',
    'ro',
    'nosuid',
    'mode=755',
    'size=64k',
    'defaults',
  ]);
  const { MS_BIND, MS_REC, MS_RDONLY, MS_NOSUID } = constants;
  assert.equal(flags, MS_BIND | MS_REC | MS_RDONLY | MS_NOSUID);
  assert.deepEqual(data, ['mode=755', 'size=64k']);
  assert.equal(loop, false);
});

test('the last of two that contradict each other counts', () => {
  assert.equal(parseMountOptions(['ro', 'rw']).flags, 0);
  assert.equal(parseMountOptions(['rw', 'ro']).flags, constants.MS_RDONLY);
  assert.equal(parseMountOptions(['noexec', 'exec', 'loop']).loop, true);
});

test('names that every object has are no options', () => {
  assert.deepEqual(parseMountOptions(['constructor', 'toString']).data, ['constructor', 'toString']);
});

test('lower directories are named from the deepest folder they share', () => {
  const lower = 'lowerdir=/var/lib/s/12/fs:/var/lib/s/1/fs:/var/lib/s/123/fs';
  assert.deepEqual(compactLowerDirs(['index=off', lower, 'upperdir=/u']), {
    folder: '/var/lib/s',
    data: ['index=off', 'lowerdir=12/fs:1/fs:123/fs', 'upperdir=/u'],
  });
});

test('what shares nothing but the root is left as it is', () => {
  assert.equal(compactLowerDirs(['lowerdir=/a/x:/b/y']), undefined);
  assert.equal(compactLowerDirs(['lowerdir=/a/x']), undefined);
  assert.equal(compactLowerDirs(['upperdir=/a/x']), undefined);
  assert.equal(compactLowerDirs(['lowerdir=a/x:a/y']), undefined);
});
