import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { resolveRuntime } from './runtime-name.ts';

const directory = mkdtempSync('/tmp/moor-runtime-');
after(() => rmSync(directory, { recursive: true }));
const shim = join(directory, 'containerd-shim-kata-v2');
writeFileSync(shim, '#!/bin/sh\n');
chmodSync(shim, 0o755);
const path = `relative:/nowhere:${directory}`;

test("runc's shims of all versions, and no name, are Moor's own", () => {
  for (const name of ['', 'io.containerd.runc.v2', 'io.containerd.runc.v1', 'io.containerd.moor.v1']) {
    assert.deepEqual(resolveRuntime(name, path), { kind: 'own' });
  }
});

test('a dotted name is looked for on PATH by its last two parts', () => {
  assert.deepEqual(resolveRuntime('io.containerd.kata.v2', path), { kind: 'foreign', binary: shim });
  assert.deepEqual(resolveRuntime('kata.v2', path), { kind: 'foreign', binary: shim });
});

test('an absolute path is the program itself', () => {
  assert.deepEqual(resolveRuntime(shim, ''), { kind: 'foreign', binary: shim });
});

const refusals: [string, Code, RegExp][] = [
  [
    'io.containerd.none.v1',
    Code.NotFound,
    /"io.containerd.none.v1": containerd-shim-none-v1 is not installed/,
  ],
  ['/nowhere/shim', Code.InvalidArgument, /\/nowhere\/shim: no such file/],
  ['/etc', Code.InvalidArgument, /\/etc: not a file/],
  ['/etc/passwd', Code.InvalidArgument, /\/etc\/passwd: not executable/],
  ['runc', Code.InvalidArgument, /invalid runtime name "runc"/],
  ['a../../bin/sh', Code.InvalidArgument, /invalid runtime name/],
  ['x.'.repeat(1000), Code.InvalidArgument, /invalid runtime name/],
];
for (const [name, code, text] of refusals) {
  test(`${JSON.stringify(name.slice(0, 30))} is refused, with the cause`, () => {
    assert.throws(
      () => resolveRuntime(name, path),
      (error: Error) => isCode(error, code) && text.test(error.message) && error.message.length < 300,
    );
  });
}
