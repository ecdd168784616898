import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import {
  parseAddress,
  parseDestination,
  parseHost,
  parseLinkName,
  parseMac,
  parseNetworkName,
} from './names.ts';

const refused = (parse: (value: string) => unknown, values: readonly string[]): void => {
  for (const value of values) {
    assert.throws(
      () => parse(value),
      (error) => isCode(error, Code.InvalidArgument),
      value,
    );
  }
};

test('links have names that no program takes for something else', () => {
  for (const name of ['lo', 'eth0', 'eth0.100', 'br-a1b2c3d4e5f6', 'veth_1', 'a@b', 'x'.repeat(15)])
    assert.equal(parseLinkName(name), name);
  refused(parseLinkName, ['', '.', '-a', 'a b', 'a\n', 'a/b', 'eth%d', 'a:1', 'ü', '"', '#', 'x'.repeat(16)]);
});

test('networks have names that are safe in paths, and none is called host', () => {
  assert.equal(parseNetworkName('blue-1.a_b'), 'blue-1.a_b');
  refused(parseNetworkName, ['', 'host', '..', 'a/b', 'a b', '-a', 'x'.repeat(77)]);
});

test('MAC addresses are those of one host', () => {
  assert.equal(parseMac('02:AB:cd:00:00:01'), '02:ab:cd:00:00:01');
  refused(parseMac, [
    '',
    '02:ab:cd:00:00',
    '02-ab-cd-00-00-01',
    '01:00:5e:00:00:01',
    '00:00:00:00:00:00',
    'ff:ff:ff:ff:ff:ff',
  ]);
});

test('addresses have a prefix that fits', () => {
  assert.deepEqual(parseAddress('10.0.0.1/8'), { text: '10.0.0.1/8', family: 'inet' });
  assert.deepEqual(parseAddress('fd00::1/128'), { text: 'fd00::1/128', family: 'inet6' });
  refused(parseAddress, [
    '',
    '10.0.0.1',
    '10.0.0.1/33',
    '10.0.0/24',
    'fd00::1/129',
    'fe80::1%eth0/64',
    '10.0.0.1/-1',
    '10.0.0.1/8/8',
    '10.0.0.1/ 8',
    '010.0.0.1/8',
  ]);
});

test('routes lead to prefixes, hosts or everything', () => {
  assert.equal(parseDestination('default'), 'default');
  assert.deepEqual(parseDestination('10.0.0.1'), { text: '10.0.0.1', family: 'inet' });
  refused(parseDestination, ['', 'all', '10.0.0.0/33', 'blackhole']);
  refused((value) => parseHost(value, 'gateway'), ['', '10.0.0.1/24', 'fe80::1%eth0', 'router']);
});
