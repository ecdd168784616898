import assert from 'node:assert/strict';
import { test } from 'node:test';
import { releaseMemory } from './native.ts';

const MIB = 1 << 20;

/** Objects of the JavaScript heap, some 100 bytes each. */
const objects = (count: number) => Array.from({ length: count }, (_, index) => ({ text: `${index}`, index }));

test('what is not needed any more is handed back to the kernel', () => {
  const before = process.memoryUsage.rss();
  let held: unknown[] = objects(1_000_000);
  const amid = process.memoryUsage.rss();
  assert.equal(held.length, 1_000_000);
  held = [];
  releaseMemory();
  const after = process.memoryUsage.rss();
  assert.equal(held.length, 0);
  assert.ok(amid - before > 60 * MIB, `${before} and ${amid}`);
  assert.ok(after - before < (amid - before) / 4, `${before}, ${amid} and ${after}`);
});

test('nobody else is shown the collector', () => {
  releaseMemory();
  assert.equal(globalThis.gc, undefined);
});
