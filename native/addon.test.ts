import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from 'esbuild';

const native = join(import.meta.dirname, 'native.ts');

test('a bundle finds the addon beside its folder, and importing it without one does no harm', async () => {
  const root = mkdtempSync(join(tmpdir(), 'moor-bundle-'));
  const source = `
    import { getPid } from '${native}';
    process.stdout.write('imported ');
    process.stdout.write(String(getPid() === process.pid));
  `;
  const outfile = join(root, 'dist/bundle.js');
  const stdin = { contents: source, resolveDir: root };
  await build({ stdin, outfile, bundle: true, platform: 'node', format: 'esm' });
  writeFileSync(join(root, 'package.json'), '{ "type": "module" }');
  const run = () => spawnSync(process.execPath, [outfile], { encoding: 'utf8' });

  const without = run();
  assert.equal(without.stdout, 'imported ');
  assert.match(without.stderr, /the native addon .*\/native\/build\/moor\.node cannot be loaded/);
  symlinkSync(import.meta.dirname, join(root, 'native'));
  assert.equal(run().stdout, 'imported true');
  rmSync(root, { recursive: true });
});
