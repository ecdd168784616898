import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, notFound, RpcError } from './errors.ts';
import { FrameType, HEADER_BYTES } from './frame.ts';
import { Note } from './fixture.test.ts';
import {
  dataFrame,
  decodeRequest,
  decodeResponse,
  errorFrame,
  lastDataFrame,
  requestFrame,
  requestPrefix,
  responseFrame,
} from './message.ts';
import { metadataOf } from './metadata.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** The bytes in hexadecimal; spaces in what is expected are for the reader. */
const assertBytes = (bytes: Uint8Array, expected: string) =>
  assert.equal(hex(bytes), expected.replaceAll(' ', ''));

const bodyOf = (frame: Uint8Array) => frame.subarray(HEADER_BYTES);
const note = (partial: Partial<Note>) => ({ type: Note, message: Note.fromPartial(partial) });

const request = (parts: {
  timeout?: number;
  metadata?: [string, string][];
  payload?: ReturnType<typeof note>;
}) =>
  requestFrame({
    stream: 5,
    flags: 2,
    prefix: requestPrefix('s', 'M'),
    payload: parts.payload,
    timeout: parts.timeout,
    metadata: parts.metadata,
  });

test('a request has the bytes that the protocol says', () => {
  const frame = request({ payload: note({ text: 'hi' }), timeout: 1.5, metadata: [['Key', 'v']] });
  assertBytes(
    frame,
    // length, stream, type, flags; service and method; payload; 1500000 ns; metadata
    '0000001a 00000005 01 02  0a0173 12014d  1a04 0a026869  20 e0c65b  2a08 0a036b6579 120176',
  );
});

test('a request comes back as it was written', () => {
  const body = new Uint8Array(70_000).fill(9);
  const decoded = decodeRequest(
    bodyOf(request({ payload: note({ body }), timeout: 20, metadata: [['a', 'é']] })),
  );
  assert.equal(decoded.service, 's');
  assert.equal(decoded.method, 'M');
  assert.equal(decoded.timeoutNano, 20e6);
  assert.deepEqual(decoded.metadata, [['a', 'é']]);
  assert.deepEqual(Note.decode(decoded.payload!).body, body);
  assert.equal(decodeRequest(bodyOf(request({}))).payload, undefined);
});

test('a timeout of any length is sent as well as 64 bits can', () => {
  const nanoseconds = (timeout: number) => decodeRequest(bodyOf(request({ timeout }))).timeoutNano;
  assert.equal(nanoseconds(1e-9), 1, 'a timeout is never sent as none');
  assert.equal(nanoseconds(2 ** 40), 2 ** 40 * 1e6);
  assert.equal(nanoseconds(Number.MAX_VALUE), Number(2n ** 63n - 1n));
});

test('responses say how the call ended', () => {
  assertBytes(responseFrame(1, note({ count: 3 })), '00000006 00000001 0200 0a00 12021003');
  assert.deepEqual(decodeResponse(bodyOf(errorFrame(1, notFound('task ü')))), {
    code: Code.NotFound,
    message: 'task ü',
    payload: undefined,
  });
  assert.deepEqual(decodeResponse(new Uint8Array()), { code: Code.Ok, message: '', payload: undefined });
});

test('a status code that nobody knows is Unknown', () => {
  assert.equal(decodeResponse(Uint8Array.of(0x0a, 2, 8, 99)).code, Code.Unknown);
  const negative = Uint8Array.of(0x0a, 11, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1);
  assert.equal(decodeResponse(negative).code, Code.Unknown);
});

test('a failure is never sent as a success', () => {
  assert.equal(decodeResponse(bodyOf(errorFrame(1, new RpcError(Code.Ok, 'odd')))).code, Code.Unknown);
});

test('a failure with endless words still fits a frame', () => {
  const frame = errorFrame(1, notFound('x'.repeat(10 << 20)));
  assert.equal(decodeResponse(bodyOf(frame)).message.length, 1 << 16);
});

test('data frames carry bare messages, the last one none', () => {
  const frame = dataFrame(7, note({ count: 1 }));
  assertBytes(frame, '00000002 00000007 0300 1001');
  assertBytes(lastDataFrame(7), '00000000 00000007 0305');
});

test('fields of later versions are passed over', () => {
  const later = Uint8Array.of(0x0a, 1, 0x73, 0x78, 5, 0x7a, 2, 1, 2, 0x12, 1, 0x4d);
  const { service, method } = decodeRequest(later);
  assert.deepEqual({ service, method }, { service: 's', method: 'M' });
  // A status with details (field 3), and a pair with a third field.
  assert.equal(decodeResponse(Uint8Array.of(0x0a, 5, 8, 5, 0x1a, 1, 0)).code, Code.NotFound);
  assert.deepEqual(decodeRequest(Uint8Array.of(0x2a, 6, 0x0a, 1, 0x6b, 0x1a, 1, 0)).metadata, [['k', '']]);
});

test('what is cut short or malformed throws', () => {
  const whole = bodyOf(request({ payload: note({ text: 'hello' }), metadata: [['k', 'v']] }));
  for (const broken of [
    whole.subarray(0, 4),
    whole.subarray(0, whole.length - 1),
    Uint8Array.of(0),
    Uint8Array.of(0x0e),
  ]) {
    assert.throws(() => decodeRequest(broken), hex(broken));
  }
  assert.throws(() => decodeResponse(Uint8Array.of(0x0a, 9, 8)));
  assert.throws(() => decodeResponse(Uint8Array.of(0x0a, 1, 0x12)));
});

test('an encoder that throws leaves nothing behind in the next frame', () => {
  const throwing = {
    type: {
      ...Note,
      encode: () => {
        throw new Error('no');
      },
    },
    message: Note.fromPartial({}),
  };
  assert.throws(() => dataFrame(1, throwing), /no/);
  assertBytes(dataFrame(1, note({})), '00000000 00000001 0300');
  assert.equal(dataFrame(1, note({ body: new Uint8Array(1 << 19) })).length, HEADER_BYTES + 4 + (1 << 19));
  assert.equal(FrameType.Data, dataFrame(1, note({}))[8]);
});

test('metadata is one map of lower-case keys', () => {
  assert.deepEqual(
    [
      ...metadataOf([
        ['A', '1'],
        ['b', '2'],
        ['a', '3'],
      ]),
    ],
    [
      ['a', ['1', '3']],
      ['b', ['2']],
    ],
  );
  assert.equal(metadataOf([]).size, 0);
});
