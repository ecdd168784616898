import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { BootstrapParams, BootstrapResult, LogLevel } from '../proto/gen/containerd/runtime/bootstrap.ts';
import { Options } from '../proto/gen/containerd/runtime/runc.ts';
import { Any } from '../proto/gen/google/protobuf/any.ts';
import { pack } from './any.ts';
import { encodeResult, parseBootstrap } from './bootstrap.ts';
import { parseOptions } from './options.ts';

const task = { id: 'i', namespace: 'n' };
const options = pack(
  'containerd.runc.v1.Options',
  Options.encode(Options.fromPartial({ shimCgroup: '/group' })).finish(),
);

afterEach(() => {
  delete process.env['MAX_SHIM_VERSION'];
});

test('a daemon that writes nothing, or bare options, gets a bare address', () => {
  assert.equal(parseBootstrap(Buffer.alloc(0), task).options, undefined);
  const { dialect, options: found } = parseBootstrap(Any.encode(options).finish(), task);
  assert.equal(parseOptions(found).shimCgroup, '/group');
  assert.equal(Buffer.from(encodeResult('unix:///s', dialect, 2)).toString(), 'unix:///s');
});

test('a daemon of version 3 gets JSON', () => {
  process.env['MAX_SHIM_VERSION'] = '3';
  const { dialect } = parseBootstrap(Any.encode(options).finish(), task);
  const answer = JSON.parse(Buffer.from(encodeResult('unix:///s', dialect, 3)).toString()) as object;
  assert.deepEqual(answer, { version: 3, address: 'unix:///s', protocol: 'ttrpc' });
});

test('parameters in protobuf are answered in protobuf', () => {
  const params = BootstrapParams.fromPartial({
    instanceId: 'i',
    namespace: 'n',
    logLevel: LogLevel.LOG_LEVEL_DEBUG,
    containerdTtrpcAddress: '/t',
    containerdGrpcAddress: '/g',
    extensions: [{ value: pack('x.Other', Buffer.alloc(0)) }, { value: options }],
    socketDir: '/sockets',
  });
  const parsed = parseBootstrap(BootstrapParams.encode(params).finish(), task);
  assert.equal(parseOptions(parsed.options).shimCgroup, '/group');
  assert.deepEqual(
    [parsed.dialect, parsed.debug, parsed.ttrpcAddress, parsed.grpcAddress, parsed.socketDir],
    ['protobuf', true, '/t', '/g', '/sockets'],
  );
  const result = BootstrapResult.decode(encodeResult('unix:///s', parsed.dialect, 3));
  assert.deepEqual(result, { version: 3, address: 'unix:///s', protocol: 'ttrpc' });
});

test('parameters for another task are options that happen to decode', () => {
  const legacy = Any.encode(pack('i', Buffer.from('n'))).finish();
  assert.equal(parseBootstrap(legacy, { id: 'i', namespace: 'other' }).dialect, 'address');
});

test('parameters in JSON are understood and answered in JSON', () => {
  const text = JSON.stringify({
    instanceId: 'i',
    namespace: 'n',
    logLevel: 'LOG_LEVEL_TRACE',
    containerdTtrpcAddress: '/t',
    extensions: [
      { value: { '@type': 'type.googleapis.com/containerd.runc.v1.Options', shimCgroup: '/group' } },
    ],
  });
  const parsed = parseBootstrap(Buffer.from(text), task);
  assert.deepEqual([parsed.dialect, parsed.debug, parsed.ttrpcAddress], ['json', true, '/t']);
  assert.equal(parseOptions(parsed.options).shimCgroup, '/group');
});
