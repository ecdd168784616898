/** Load, short. `npm run soak` has the long runs, and prints what all of it holds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isForking } from '../harness/daemon.ts';
import { manyAtOnce, manyCycles } from './load.ts';

const CONTAINERS = 60;
/** The daemon has 25 to 35 MiB more after so many. */
const CYCLES = 300;

test(`${CONTAINERS} containers at once leave nothing`, { timeout: 300_000 }, async (t) => {
  const { took, weights } = await manyAtOnce(CONTAINERS);
  t.diagnostic(JSON.stringify({ took, weights }));
  const [before, after] = ['before', 'in the end'].map((when) => weights[`the daemon ${when}`]!);
  // The journal of events has opened another file, or a connection of the measuring is not closed yet.
  assert.ok(after!.descriptors <= before!.descriptors + 2);
});

test(`the daemon hands back what ${CYCLES} containers have taken`, { timeout: 300_000 }, async (t) => {
  const { took, weights } = await manyCycles(CYCLES);
  t.diagnostic(JSON.stringify({ took, weights }));
  const [before, after] = ['before', 'after'].map((when) => weights[`the template ${when}`]!);
  assert.equal(before !== undefined, isForking);
  assert.equal(after?.threads, before?.threads);
  assert.equal(after?.descriptors, before?.descriptors);
});
