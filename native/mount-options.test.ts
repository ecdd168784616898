import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compactLowerDirectories, constants, parseMountOptions } from './native.ts';

test('flags are told from the options of the filesystem', () => {
  assert.deepEqual(parseMountOptions(['ro', 'rbind', 'nosuid', 'lowerdir=/a:/b', 'index=off', 'defaults']), {
    flags: constants.MS_RDONLY | constants.MS_BIND | constants.MS_REC | constants.MS_NOSUID,
    data: ['lowerdir=/a:/b', 'index=off'],
    loop: false,
  });
  assert.deepEqual(parseMountOptions(['loop', 'constructor']), {
    flags: 0,
    data: ['constructor'],
    loop: true,
  });
});

test('the last of two opposite options wins', () => {
  assert.equal(parseMountOptions(['ro', 'rw']).flags, 0);
  assert.equal(parseMountOptions(['rw', 'ro']).flags, constants.MS_RDONLY);
});

test('lower directories are named relative to the deepest folder they share', () => {
  assert.deepEqual(compactLowerDirectories(['index=off', 'lowerdir=/r/s/12/fs:/r/s/1/fs']), {
    folder: '/r/s',
    data: ['index=off', 'lowerdir=12/fs:1/fs'],
  });
  assert.equal(compactLowerDirectories(['lowerdir=/r/s/1/fs']), undefined);
  assert.equal(compactLowerDirectories(['lowerdir=/a/x:/b/x']), undefined);
  assert.equal(compactLowerDirectories(['lowerdir=a/x:a/y']), undefined);
  assert.equal(compactLowerDirectories(['size=1m']), undefined);
});
