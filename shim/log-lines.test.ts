import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogLines } from './log-lines.ts';

const TIME = '2026-01-02T03:04:05.000000006Z';

/** What comes of chunks, and then of the end. */
function linesOf(limit: number, ...chunks: (string | Buffer)[]): string[] {
  const lines = new LogLines('stdout', limit);
  const records = [...chunks.map((chunk) => lines.take(Buffer.from(chunk), TIME)), lines.end(TIME)];
  const text = records.map(({ pieces }) => Buffer.concat(pieces).toString()).join('');
  const all = text.split('\n').slice(0, -1);
  assert.equal(
    records.reduce((sum, { lines }) => sum + lines, 0),
    all.length,
  );
  return all.map((line) => {
    assert.ok(line.startsWith(`${TIME} stdout `), line);
    return line.slice(TIME.length + ' stdout '.length);
  });
}

test('a line is one however it comes in', () => {
  assert.deepEqual(linesOf(100, 'one\ntwo\n'), ['F one', 'F two']);
  assert.deepEqual(linesOf(100, 'o', 'n', 'e\nt', 'wo', '\n'), ['F one', 'F two']);
  assert.deepEqual(linesOf(100, '\n\n', 'a\r\n'), ['F ', 'F ', 'F a\r']);
  assert.deepEqual(linesOf(100), []);
});

test('what is longer than the limit comes in parts; exactly as long is no part', () => {
  assert.deepEqual(linesOf(4, 'abcd\n'), ['F abcd']);
  assert.deepEqual(linesOf(4, 'abcdefghij\nk\n'), ['P abcd', 'P efgh', 'F ij', 'F k']);
  assert.deepEqual(linesOf(4, 'abcde', 'fgh', '\n'), ['P abcd', 'F efgh']);
  assert.deepEqual(linesOf(4, 'ab', 'cdefghi\n'), ['P abcd', 'P efgh', 'F i']);
});

test('a last line without an end is a part', () => {
  assert.deepEqual(linesOf(100, 'one\ntwo'), ['F one', 'P two']);
  assert.deepEqual(linesOf(4, 'abcdef'), ['P abcd', 'P ef']);
});

test('a limit of nothing is none, up to what fits into memory', () => {
  const long = 'x'.repeat(300_000);
  assert.deepEqual(linesOf(0, `${long}\n`), [`F ${long}`]);
  assert.equal(linesOf(-1, 'y'.repeat(2 ** 20 + 1), '\n').length, 2);
});

test('parts put together are what was written, whatever the cuts', () => {
  let seed = 7;
  const next = (below: number) => (seed = (seed * 48271) % 0x7fffffff) % below;
  for (let round = 0; round < 200; round += 1) {
    const written = Array.from({ length: next(60) }, () => 'ab\n'[next(3)]).join('');
    const chunks: string[] = [];
    for (let at = 0; at < written.length;) {
      const length = 1 + next(9);
      chunks.push(written.slice(at, at + length));
      at += length;
    }
    const back = linesOf(1 + next(5), ...chunks).map((line) => line.slice(2) + (line[0] === 'F' ? '\n' : ''));
    assert.equal(back.join(''), written);
  }
});
