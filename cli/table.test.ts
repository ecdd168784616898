import assert from 'node:assert/strict';
import { test } from 'node:test';
import { goMessage, goTime, rfc3339 } from './json.ts';
import { parseDuration } from './duration.ts';
import { explain, launchStatus } from './failure.ts';
import { tabulate } from './table.ts';

test('columns are as wide as their widest cell, in neighbouring lines that have them', () => {
  assert.deepEqual(
    tabulate(
      [
        ['A', 'BB', ''],
        ['longer', 'x'],
      ],
      [1, 2],
    ),
    ['A       BB  ', 'longer  x'],
  );
  assert.deepEqual(tabulate([['a', 'b', ''], [''], ['longer', 'b', '']], [0, 1]), ['a b ', '', 'longer b ']);
});

test('times and messages read as Go writes them', () => {
  assert.equal(goTime({ seconds: 0n, nanos: 120_000_000 }), '1970-01-01 00:00:00.12 +0000 UTC');
  assert.equal(rfc3339(undefined), '0001-01-01T00:00:00Z');
  const message = {
    containerId: 'x',
    pid: 0,
    exitedAt: { seconds: 1n, nanos: 0 },
    large: 2n ** 64n - 1n,
    empty: [],
    bytes: Buffer.from('hi'),
    inner: {},
    perCpu: [0n, 1n],
  };
  assert.equal(
    JSON.stringify(goMessage(message)),
    '{"container_id":"x","exited_at":"1970-01-01T00:00:01Z","large":18446744073709551615,"bytes":"aGk=","inner":{},"per_cpu":[0,1]}',
  );
});

test('durations are Go’s', () => {
  assert.equal(parseDuration('1h30m'), 5_400_000);
  assert.equal(parseDuration('1.5s'), 1500);
  assert.equal(parseDuration('0'), 0);
  for (const wrong of ['', '5', 's', '1x', '1s2', '-1s']) assert.throws(() => parseDuration(wrong));
});

test('a failure to launch has the exit status that shells give it', () => {
  assert.equal(launchStatus(new Error('exec: "x": executable file not found in $PATH')), 127);
  assert.equal(launchStatus(new Error('exec: "/x": stat /x: no such file or directory')), 127);
  assert.equal(launchStatus(new Error('exec: "/x": permission denied')), 126);
  assert.equal(launchStatus(new Error('anything')), 125);
});

test('a missing container is looked for where it could be', () => {
  const globals = { address: '/s', namespace: 'n', timeout: 0, connectTimeout: 0 };
  const lines = explain(new Error('container "x" in namespace "n": not found'), globals);
  assert.equal(lines[0], 'moor: container "x" in namespace "n": not found');
  assert.match(lines[1]!, /moor --namespace n containers ls/);
  assert.deepEqual(explain(new Error('something else'), globals), ['moor: something else']);
});
