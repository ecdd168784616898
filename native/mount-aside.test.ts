import assert from 'node:assert/strict';
import { closeSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { mountAside } from './native.ts';

test('what is mounted aside is reached by its descriptor only, and is gone with it', (context) => {
  const base = mkdtempSync(join(tmpdir(), 'moor-aside-'));
  context.after(() => rmSync(base, { recursive: true }));
  for (const name of ['upper', 'lower', 'work', 'both']) mkdirSync(join(base, name));
  writeFileSync(join(base, 'lower/below'), 'low');
  writeFileSync(join(base, 'upper/above'), 'high');
  const before = readFileSync('/proc/self/mountinfo', 'utf8');
  const [folder, root] = [process.cwd(), readdirSync('/proc/self')];
  const cases: readonly (readonly [source: string, type: string, options: string[], names: string[]])[] = [
    [join(base, 'lower'), 'bind', ['rbind', 'ro'], ['below']],
    ['overlay', 'overlay', [`lowerdir=${base}/upper:${base}/lower`], ['above', 'below']],
    [
      'overlay',
      'overlay',
      [`workdir=${base}/work`, `upperdir=${base}/upper`, `lowerdir=${base}/lower`, 'ro'],
      ['above', 'below'],
    ],
    ['none', 'tmpfs', [], []],
  ];
  for (const [source, type, options, names] of cases) {
    const fd = mountAside(source, type, options);
    try {
      const path = `/proc/self/fd/${fd}`;
      assert.deepEqual(readdirSync(`${path}/`).sort(), names, type);
      if (names.length > 0) assert.equal(readFileSync(`${path}/below`, 'utf8'), 'low');
      assert.equal(readFileSync('/proc/self/mountinfo', 'utf8'), before);
    } finally {
      closeSync(fd);
    }
  }
  assert.equal(process.cwd(), folder);
  assert.deepEqual(readdirSync('/proc/self'), root);
  // What was in use can be removed: nothing holds it.
  rmSync(join(base, 'work'), { recursive: true });
});

test('failures name the source and the cause', () => {
  assert.throws(() => mountAside('/no/such', 'bind', ['bind']), { code: 'ENOENT', syscall: 'mount' });
  assert.throws(() => mountAside('none', 'no-such-filesystem', []), { code: 'ENODEV', syscall: 'mount' });
  assert.throws(() => mountAside('none', 'tmpfs', ['size=1'.repeat(1000)]), { code: 'E2BIG' });
});
