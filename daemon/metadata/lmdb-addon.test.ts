import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { it } from 'node:test';
import loadAddon from './lmdb-addon.ts';

it('the addon that lmdb is handed is the one that it would find itself', () => {
  const near = createRequire(import.meta.url);
  const search = near('node-gyp-build-optional-packages') as { path(folder: string): string };
  const found = search.path(join(dirname(near.resolve('lmdb')), '..'));
  assert.equal(loadAddon(), near(found));
});
