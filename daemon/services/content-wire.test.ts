import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ReadContentResponse,
  WriteAction,
  WriteContentRequest,
} from '../../proto/gen/containerd/services/content.ts';
import { definition } from './content-wire.ts';

const { read, write } = definition.methods;

test('what is read is on the wire as the generated code would have it', () => {
  for (const message of [
    { offset: 0n, data: Buffer.from('abc') },
    { offset: 5_000_000_000n, data: Buffer.alloc(100_000, 'x') },
  ]) {
    const bytes = read.responseType.encode(message).finish();
    assert.deepEqual(Buffer.from(bytes), Buffer.from(ReadContentResponse.encode(message).finish()));
  }
  const empty = read.responseType.encode({ offset: 1n, data: Buffer.alloc(0) }).finish();
  assert.deepEqual(ReadContentResponse.decode(empty), { offset: 1n, data: Buffer.alloc(0) });
});

test('what is written is understood, its bytes being those that came in', () => {
  const message: WriteContentRequest = {
    action: WriteAction.COMMIT,
    ref: 'layer ü',
    total: 7n,
    expected: 'sha256:x',
    offset: 3n,
    data: Buffer.from('bytes'),
    labels: { a: 'b', c: '' },
  };
  const encoded = Buffer.from(WriteContentRequest.encode(message).finish());
  const decoded = write.requestType.decode(encoded);
  assert.deepEqual({ ...decoded, labels: { ...decoded.labels } }, message);
  assert.equal(decoded.data.buffer, encoded.buffer);
  assert.equal(write.requestType.decode(Buffer.alloc(0)).data.length, 0);
  assert.throws(() => write.requestType.decode(encoded.subarray(0, encoded.length - 3)));
});
