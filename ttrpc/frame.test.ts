import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { Code, isCode } from './errors.ts';
import { FrameDecoder, FrameError, HEADER_BYTES, MAX_FRAME_BYTES, sealFrame } from './frame.ts';

interface Frame {
  stream: number;
  type: number;
  flags: number;
  payload: Uint8Array;
}

/** A generator of the same numbers for the same seed (mulberry32). */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const seed = Number(process.env['TTRPC_SEED'] ?? randomInt(2 ** 31));

function encode({ stream, type, flags, payload }: Frame): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  frame.set(payload, HEADER_BYTES);
  return sealFrame(frame, stream, type, flags);
}

function collect(): { frames: Frame[]; decoder: FrameDecoder } {
  const frames: Frame[] = [];
  const decoder = new FrameDecoder((stream, type, flags, payload) => {
    frames.push({ stream, type, flags, payload });
  });
  return { frames, decoder };
}

/** Hands the bytes over in pieces of random sizes, tiny ones among them. */
function pushInPieces(decoder: FrameDecoder, bytes: Uint8Array, random: (below: number) => number): void {
  for (let at = 0; at < bytes.length;) {
    const size = random(3) === 0 ? random(4) : random(bytes.length - at + 1);
    decoder.push(bytes.subarray(at, at + size));
    at += size;
  }
}

test(`frames survive any cutting into pieces (TTRPC_SEED=${seed})`, () => {
  const random = randomOf(seed);
  for (let round = 0; round < 200; round += 1) {
    const sent = Array.from({ length: random(8) }, () => ({
      stream: random(2 ** 32),
      type: random(256),
      flags: random(256),
      payload: Uint8Array.from({ length: random(2) === 0 ? random(4) : random(3000) }, () => random(256)),
    }));
    const { frames, decoder } = collect();
    pushInPieces(decoder, Buffer.concat(sent.map(encode)), random);
    decoder.end();
    assert.deepEqual(
      frames.map((frame) => ({ ...frame, payload: Uint8Array.from(frame.payload) })),
      sent,
    );
  }
});

test(`random bytes end in whole frames or a FrameError, never in anything else (TTRPC_SEED=${seed})`, () => {
  const random = randomOf(seed + 1);
  for (let round = 0; round < 500; round += 1) {
    const bytes = Uint8Array.from({ length: random(200) }, () => (random(2) === 0 ? 0 : random(256)));
    const { frames, decoder } = collect();
    try {
      pushInPieces(decoder, bytes, random);
      decoder.end();
    } catch (error) {
      assert.ok(error instanceof FrameError, String(error));
    }
    const used = frames.reduce((sum, frame) => sum + HEADER_BYTES + frame.payload.length, 0);
    assert.ok(used <= bytes.length);
  }
});

test(`the first bytes of a frame are never taken for all of it (TTRPC_SEED=${seed})`, () => {
  const random = randomOf(seed + 2);
  const whole = encode({ stream: 1, type: 1, flags: 0, payload: new Uint8Array(20) });
  for (let length = 1; length < whole.length; length += 1) {
    const { frames, decoder } = collect();
    pushInPieces(decoder, whole.subarray(0, length), random);
    assert.throws(() => decoder.end(), /ended inside a frame/);
    assert.deepEqual(frames, []);
  }
});

test('a frame of exactly the limit passes, one byte more is refused with its stream', () => {
  const { frames, decoder } = collect();
  decoder.push(encode({ stream: 1, type: 2, flags: 0, payload: new Uint8Array(MAX_FRAME_BYTES) }));
  assert.equal(frames[0]?.payload.length, MAX_FRAME_BYTES);
  assert.throws(
    () => decoder.push(Uint8Array.of(0, 0x40, 0, 1, 0, 0, 0, 9, 1, 0)),
    (error) => error instanceof FrameError && error.stream === 9 && error.code === Code.ResourceExhausted,
  );
  decoder.push(encode({ stream: 3, type: 2, flags: 0, payload: new Uint8Array() }));
  assert.equal(frames.length, 1, 'nothing is read after a refused frame');
  const oversized = new Uint8Array(HEADER_BYTES + MAX_FRAME_BYTES + 1);
  assert.throws(
    () => sealFrame(oversized, 1, 1, 0),
    (error) => isCode(error, Code.ResourceExhausted),
  );
});

test('a payload that lies in one piece is not copied', () => {
  const { frames, decoder } = collect();
  const bytes = encode({ stream: 1, type: 1, flags: 0, payload: Uint8Array.of(1, 2, 3) });
  decoder.push(bytes);
  assert.equal(frames[0]?.payload.buffer, bytes.buffer);
});

test('a decoder that is stopped from within hands nothing more on', () => {
  const streams: number[] = [];
  const decoder: FrameDecoder = new FrameDecoder((stream) => {
    streams.push(stream);
    decoder.stop();
  });
  const empty = new Uint8Array();
  decoder.push(Buffer.concat([1, 3].map((stream) => encode({ stream, type: 1, flags: 0, payload: empty }))));
  decoder.end();
  assert.deepEqual(streams, [1]);
});
