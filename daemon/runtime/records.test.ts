import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { formatBootstrap, parseBootstrap } from './bootstrap.ts';
import { formatExit, formatTime, parseExit, parseTime } from './exit.ts';

test('an exit record is read as it was written, to the nanosecond', () => {
  const record = { pid: 4, status: 137, exitedAt: { seconds: 1700000000n, nanos: 5 }, published: true };
  assert.deepEqual(parseExit(formatExit(record), 'x'), record);
  assert.equal(formatTime(record.exitedAt), '2023-11-14T22:13:20.000000005Z');
});

test('times of others are read: fewer digits, none, another zone', () => {
  assert.deepEqual(parseTime('2023-11-14T22:13:20.5Z'), { seconds: 1700000000n, nanos: 500_000_000 });
  assert.deepEqual(parseTime('2023-11-14T23:13:20+01:00'), { seconds: 1700000000n, nanos: 0 });
  for (const text of [
    '',
    'yesterday',
    '2023-11-14',
    '2023-13-41T99:00:00Z',
    '2023-11-14T22:13:20.1234567890Z',
  ])
    assert.equal(parseTime(text), undefined);
});

test('a damaged exit record is none', () => {
  const good = formatExit({ pid: 4, status: 0, exitedAt: { seconds: 0n, nanos: 0 }, published: false });
  for (let length = 0; length < good.length - 2; length += 1)
    assert.equal(parseExit(good.slice(0, length), 'x'), undefined);
  for (const text of ['null', '[]', '{"pid":-1}', good.replace('4', '"4"'), good.replace('4', '1e99')])
    assert.equal(parseExit(text, 'x'), undefined);
});

test('a bootstrap record is read as it was written; a damaged one is none; a newer one is refused by its number', () => {
  const bootstrap = { runtime: 'x', binary: '/b', apiVersion: 3, address: '/s' } as const;
  const text = formatBootstrap(bootstrap);
  assert.deepEqual(parseBootstrap(text, 'f'), bootstrap);
  // One that knows of no sandboxes has to refuse a sandbox's, and nothing else.
  const sandboxed = formatBootstrap({ ...bootstrap, sandbox: 'pod' });
  assert.deepEqual(parseBootstrap(sandboxed, 'f'), { ...bootstrap, sandbox: 'pod' });
  assert.deepEqual(
    [text, sandboxed].map((each) => /"version":(\d)/.exec(each)?.[1]),
    ['1', '2'],
  );
  for (let length = 0; length < text.length - 2; length += 1)
    assert.equal(parseBootstrap(text.slice(0, length), 'f'), undefined);
  assert.equal(parseBootstrap(text.replace('3', '4'), 'f'), undefined);
  assert.throws(
    () => parseBootstrap(text.replace('"version":1', '"version":3'), '/f'),
    (error: Error) => isCode(error, Code.FailedPrecondition) && /\/f has format 3/.test(error.message),
  );
});
