import assert from 'node:assert/strict';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { sealedCopy } from './native.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'moor-sealed-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

function copyOf(path: string): number {
  const file = openSync(path, 'r');
  try {
    return sealedCopy(file, 'a name');
  } finally {
    closeSync(file);
  }
}

test('a sealed copy has the content of the file, and cannot be changed', () => {
  const path = join(folder, 'file');
  const content = 'x'.repeat(3_000_000);
  writeFileSync(path, content);
  const copy = copyOf(path);
  writeFileSync(path, 'changed');
  assert.equal(readFileSync(`/proc/self/fd/${copy}`, 'utf8'), content);
  assert.match(readlinkSync(`/proc/self/fd/${copy}`), /^\/memfd:a name/);
  for (const change of [
    () => writeSync(copy, 'y', 0),
    () => ftruncateSync(copy, 1),
    () => ftruncateSync(copy, 4_000_000),
  ])
    assert.throws(change, { code: 'EPERM' });
  closeSync(copy);
});

test('what is no open file cannot be copied', () => {
  assert.throws(() => sealedCopy(9999, 'x'), { code: 'EBADF', syscall: 'fstat' });
});
