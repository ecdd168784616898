import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Progress } from '../client/client.ts';
import { Board } from './progress-board.ts';
import { type Screen, showProgress } from './progress.ts';
import { binarySize, decimalSize, elapsed, roughAge } from './size.ts';

const LAYER = `layer-sha256:${'a'.repeat(64)}`;

function step(event: string, progress = 0, total = 0, name = LAYER): Progress {
  return { event, name, parents: [], progress, total, descriptor: undefined };
}

/** A stream that keeps what is written, and knows what a terminal would show of it. */
class Recorder implements Screen {
  readonly isTTY: boolean;
  columns = 80;
  rows = 24;
  writes: string[] = [];
  #lines: string[] = [];
  #row = 0;

  constructor(isTTY: boolean) {
    this.isTTY = isTTY;
  }

  write(text: string): void {
    this.writes.push(text);
    // eslint-disable-next-line no-control-regex -- these are what is looked for
    for (const [part, rows, code] of text.matchAll(/\u001B\[(\d*)([AKJ])|\r|\n|[^\u001B\r\n]+/g)) {
      if (code === 'A') this.#row -= Number(rows);
      else if (code === 'J') this.#lines.length = this.#row;
      else if (part === '\n') this.#row += 1;
      else if (part !== '\r' && code === undefined) this.#lines[this.#row] = part;
    }
  }

  get shown(): readonly string[] {
    return this.#lines;
  }
}

test('elsewhere than on a terminal a part has a line when it begins and one when it ends', () => {
  const screen = new Recorder(false);
  using display = showProgress(screen, { title: 'a.test/b:c' });
  for (const [event, progress] of [
    ['waiting', 0],
    ['downloading', 0],
    ['downloading', 512],
    ['downloading', 1024],
    ['complete', 1024],
    ['extracting', 0],
    ['extracted', 1024],
    ['extracted', 1024],
  ] as const)
    display.update(step(event, progress, 1024));
  display.update(step('already exists', 5, 5, `config-sha256:${'b'.repeat(64)}`));
  display.finish();
  const lines = screen.writes.join('').split('\n');
  assert.deepEqual(lines.slice(0, -2), [
    'a.test/b:c',
    'layer aaaaaaaaaaaa: downloading (1.0 KiB)',
    'layer aaaaaaaaaaaa: complete (1.0 KiB)',
    'layer aaaaaaaaaaaa: unpacked',
    'config bbbbbbbbbbbb: already here (5.0 B)',
  ]);
  assert.match(lines.at(-2)!, /^total 1\.0 KiB in [\d.]+ s \([\d.]+ \w+\/s\)$/);
});

test('a terminal is drawn in place, as wide as it is, and not for every event', async () => {
  const screen = new Recorder(true);
  {
    using display = showProgress(screen, { title: 'a.test/b:c' });
    for (let progress = 0; progress <= 1000; progress += 1)
      display.update(step('downloading', progress << 20, 1000 << 20));
    assert.equal(screen.writes.length, 1);
    await delay(250);
    assert.equal(screen.writes.length, 2);
    assert.match(screen.shown[1]!, /^layer a{12} +downloading +\[=+\] +1000\.0 MiB\/1000\.0 MiB$/);
    screen.columns = 40;
    display.update(step('complete', 1000 << 20, 1000 << 20));
    display.update(step('extracting'));
    await delay(250);
    assert.match(screen.shown.join('\n'), /unpacking/);
    assert.ok(screen.shown.every(({ length }) => length < 40));
    display.finish();
  }
  assert.equal(screen.shown.filter((line) => line.startsWith('layer')).length, 1);
  assert.match(screen.shown.at(-1)!, /^total 1000\.0 MiB in/);
});

test('a terminal without a size is taken for an ordinary one', () => {
  const screen = new Recorder(true);
  screen.columns = 0;
  screen.rows = 0;
  using display = showProgress(screen, { title: 'a.test/b:c' });
  display.update(step('downloading', 1, 2));
  assert.deepEqual(screen.shown.slice(0, 1), ['a.test/b:c']);
  assert.doesNotMatch(screen.writes.join(''), /Infinity/);
});

test('more parts than rows are counted', async () => {
  const screen = new Recorder(true);
  screen.rows = 6;
  using display = showProgress(screen, { title: 'x' });
  for (let number = 0; number < 20; number += 1)
    display.update(step('downloading', 1, 2, `layer-sha256:${String(number).padStart(64, '0')}`));
  await delay(250);
  assert.ok(screen.shown.length < screen.rows);
  assert.match(screen.shown.join('\n'), /… 18 more/);
});

test('what was there before the transfer is not counted as moved', () => {
  const board = new Board();
  board.update(step('waiting', 0, 100));
  board.update(step('downloading', 60, 100));
  board.update(step('downloading', 100, 100));
  board.update(step('complete', 100, 100));
  board.update(step('already exists', 7, 7, `layer-sha256:${'c'.repeat(64)}`));
  assert.equal(board.moved, 40);
});

test('a download that begins again goes back', () => {
  const board = new Board();
  board.update(step('downloading', 0, 100));
  board.update(step('downloading', 80, 100));
  board.update(step('downloading', 10, 100));
  assert.equal(board.items[0]!.progress, 10);
});

test('sizes and ages are as ctr has them', () => {
  assert.deepEqual([0, 1023, 1024, 1.5 * 1024 ** 3].map(binarySize), [
    '0.0 B',
    '1023.0 B',
    '1.0 KiB',
    '1.5 GiB',
  ]);
  assert.deepEqual([0, 343, 1080_000, 123_456_789].map(decimalSize), ['0B', '343B', '1.08MB', '123.5MB']);
  const second = 1000;
  const hour = 3600 * second;
  assert.deepEqual(
    [0, 1, 59, 60, 180, 3600, 7200].map((seconds) => roughAge(seconds * second)),
    [
      'Less than a second',
      '1 second',
      '59 seconds',
      'About a minute',
      '3 minutes',
      'About an hour',
      '2 hours',
    ],
  );
  assert.deepEqual(
    [47, 48, 24 * 14, 24 * 60, 24 * 730].map((hours) => roughAge(hours * hour)),
    ['47 hours', '2 days', '2 weeks', '2 months', '2 years'],
  );
  assert.deepEqual([2300, 125_000].map(elapsed), ['2.3 s', '2 min 05 s']);
});
