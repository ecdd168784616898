import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { syncFilesystem } from './native.ts';

const NATIVE = join(import.meta.dirname, 'native.ts');

function run(script: string): unknown {
  const result = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  assert.equal(result.status, 0, result.stderr);
  return JSON.parse(result.stdout);
}

test('a changed root is all there is, and links to above it stay inside', (context) => {
  const base = mkdtempSync(join(tmpdir(), 'moor-confinement-'));
  context.after(() => rmSync(base, { recursive: true }));
  writeFileSync(join(base, 'inside'), '');
  const seen = run(`
    import { readdirSync, symlinkSync, realpathSync, writeFileSync } from 'node:fs';
    import { chroot } from '${NATIVE}';
    chroot('${base}');
    process.chdir('/');
    symlinkSync('../../../../above', '/link');
    writeFileSync('/link', '');
    process.stdout.write(JSON.stringify(readdirSync('/').sort()));
  `);
  assert.deepEqual(seen, ['above', 'inside', 'link']);
});

test('a capability given up is gone, the others stay', () => {
  const seen = run(`
    import { readFileSync } from 'node:fs';
    import { capabilities, keepCapabilities, mount } from '${NATIVE}';
    keepCapabilities([capabilities.CAP_CHOWN, capabilities.CAP_MAC_ADMIN]);
    const status = readFileSync('/proc/thread-self/status', 'utf8');
    let refused = '';
    try { mount('x', '/tmp', 'tmpfs', 0, ''); } catch (error) { refused = error.code; }
    process.stdout.write(JSON.stringify([
      Number.parseInt(/CapEff:\\s*(\\w+)/.exec(status)[1], 16), /NoNewPrivs:\\s*(\\d)/.exec(status)[1], refused]));
  `);
  assert.deepEqual(seen, [1 + 2 ** 33, '1', 'EPERM']);
});

test('a filesystem is synced by any path on it', () => {
  syncFilesystem(tmpdir());
  assert.throws(() => syncFilesystem('/no/such/path'), { code: 'ENOENT' });
});
