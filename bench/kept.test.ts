import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keep, merge } from './kept.ts';
import { isMet, table, type Report, type Result } from './report.ts';
import { summarize, summarizeRatios } from './statistics.ts';

function row(name: string, ours: number[], options: { date?: string; most?: number } = {}): Result {
  const theirs = [100, 100, 100];
  return {
    topic: 'Containers',
    figure: { name, what: `what ${name} is`, unit: 'ms' },
    ...(options.most === undefined ? {} : { limit: { most: options.most, stretch: 0.5 } }),
    measured: { date: options.date ?? '2026-01-01', machine: 'a machine', versions: { moord: '1' } },
    ours: summarize(ours),
    theirs: summarize(theirs),
    ratio: summarizeRatios(ours, theirs),
  };
}

const report = (...results: Result[]): Report => ({ labels: { ours: 'Moor', theirs: 'peer' }, results });

test('fresh rows replace those of their name, the others stay as they were, in the order of the measures', () => {
  const kept = report(row('b', [50]), row('gone', [1]), row('a', [40]));
  const fresh = report(row('a', [30], { date: '2026-02-02' }));
  const { results } = merge(kept, fresh, ['a', 'b', 'c']);
  assert.deepEqual(
    results.map(({ figure, ours, measured }) => [figure.name, ours.median, measured.date]),
    [
      ['a', 30, '2026-02-02'],
      ['b', 50, '2026-01-01'],
    ],
  );
});

test('what is kept can be read again, and its page and picture tell met limits from missed ones', () => {
  const directory = mkdtempSync(join(tmpdir(), 'moor-kept-'));
  try {
    const order = ['good', 'bad', 'plain'];
    keep(directory, 'results', report(row('good', [40, 45, 50], { most: 0.75 }), row('plain', [130])), order);
    const page = keep(
      directory,
      'results',
      report(row('bad', [80], { most: 0.75, date: '2026-02-02' })),
      order,
    );
    const text = readFileSync(page, 'utf8');
    assert.match(text, /\| good \|.*\| 0\.45 \(.*\| 0\.75: met, and 0\.5 too \| a \|/);
    assert.match(text, /\| bad \|.*\| 0\.80 \(.*\| 0\.75: missed \| b \|/);
    assert.match(text, /- b: 2026-02-02: a machine; moord 1\./);
    assert.match(text, /Limits: 1 of 2 met\. Missed: bad 0\.80\./);
    assert.match(text, /above 1: plain 1\.30\./);
    const picture = readFileSync(join(directory, 'results.svg'), 'utf8');
    assert.match(picture, /#2e7d32">0\.45 \(≤ 0\.75\)/);
    assert.match(picture, /#b3261e">0\.80 \(≤ 0\.75\)/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a limit is met when it reads so', () => {
  assert.ok(isMet(row('at', [75.4], { most: 0.75 })));
  assert.ok(!isMet(row('above', [75.6], { most: 0.75 })));
  assert.ok(isMet(row('free', [500])));
  assert.doesNotMatch(
    table(report(row('free', [500]))),
    /Limits/,
    'nothing is said where nothing is asked for',
  );
});
