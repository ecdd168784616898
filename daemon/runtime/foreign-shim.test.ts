import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { parseStartAnswer } from './foreign-shim.ts';

const read = (output: string) => parseStartAnswer('/shim', output);

test('the answer to start is an address, bare or in JSON', () => {
  assert.deepEqual(read('unix:///run/s/1\n'), { address: '/run/s/1', apiVersion: 2 });
  assert.deepEqual(read('abstract-name'), { address: '@abstract-name', apiVersion: 2 });
  assert.deepEqual(read('{"version":3,"address":"unix:///run/s/1","protocol":"ttrpc"}'), {
    address: '/run/s/1',
    apiVersion: 3,
  });
  assert.deepEqual(read('{"version":2,"address":"unix:///run/s/1"}').apiVersion, 2);
});

const refusals: [string, Code, RegExp][] = [
  ['', Code.Internal, /\/shim answered start without an address/],
  ['usage: shim [flags]', Code.Internal, /without an address: "usage/],
  ['{"version":', Code.Internal, /not JSON/],
  ['{"version":3,"protocol":"ttrpc"}', Code.Internal, /without an address/],
  ['{"version":9,"address":"unix:///s"}', Code.Unimplemented, /version 9/],
  ['{"version":3,"address":"unix:///s","protocol":"grpc"}', Code.Unimplemented, /"grpc"/],
  ['vsock://3:4', Code.Unimplemented, /vsock/],
];
for (const [output, code, text] of refusals) {
  test(`${JSON.stringify(output)} is refused, with the cause`, () => {
    assert.throws(
      () => read(output),
      (error: Error) => isCode(error, code) && text.test(error.message),
    );
  });
}
