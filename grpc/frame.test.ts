import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code } from '../ttrpc/errors.ts';
import { FrameReader, frameHeader } from './frame.ts';

const framed = (...messages: string[]): Buffer =>
  Buffer.concat(messages.flatMap((text) => [frameHeader(Buffer.byteLength(text)), Buffer.from(text)]));

test('messages are found however they are cut', () => {
  const texts = ['', 'a', 'x'.repeat(1000), '', '', 'end'];
  const bytes = framed(...texts);
  for (const size of [1, 2, 4, 5, 6, 7, 999, bytes.length]) {
    const reader = new FrameReader(1000);
    const found: string[] = [];
    for (let start = 0; start < bytes.length; start += size)
      found.push(...reader.push(bytes.subarray(start, start + size)).map(String));
    reader.end();
    assert.deepEqual(found, texts, `in pieces of ${size}`);
  }
});

test('a message beyond the limit is refused by its header', () => {
  assert.throws(() => new FrameReader(10).push(frameHeader(11)), { code: Code.ResourceExhausted });
  assert.throws(() => new FrameReader(10).push(frameHeader(2 ** 32 - 1)), { code: Code.ResourceExhausted });
});

test('a compressed message is refused', () => {
  const header = frameHeader(3);
  header[0] = 1;
  assert.throws(() => new FrameReader(10).push(header), { code: Code.Unimplemented });
});

test('a stream that ends in the middle of a message is broken', () => {
  for (const cut of [1, 4, 5, 7]) {
    const reader = new FrameReader(10);
    reader.push(framed('hello').subarray(0, cut));
    assert.throws(() => reader.end(), { code: Code.InvalidArgument }, `after ${cut} bytes`);
  }
});
