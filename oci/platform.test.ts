import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hostPlatform, parsePlatform, platformText, rank } from './platform.ts';

test('a platform has one spelling', () => {
  const spelled = (text: string) => platformText(parsePlatform(text));
  assert.equal(spelled('linux/arm64/v8'), 'linux/arm64');
  assert.equal(spelled('linux/arm'), 'linux/arm/v7');
  assert.equal(spelled('aarch64'), 'linux/arm64');
  assert.equal(spelled('x86_64'), 'linux/amd64');
  assert.equal(spelled('linux'), platformText(hostPlatform()));
  for (const text of ['', 'a/b/c/d', 'linux/', 'a b']) assert.throws(() => parsePlatform(text), /platform/);
});

test('the nearest platform that runs here is best', () => {
  const arm = parsePlatform('linux/arm/v7');
  assert.equal(rank(arm, { os: 'linux', architecture: 'arm', variant: 'v7' }), 0);
  assert.ok(rank(arm, { os: 'linux', architecture: 'arm', variant: 'v6' })! > 0);
  assert.equal(rank(arm, { os: 'linux', architecture: 'arm', variant: 'v8' }), undefined);
  assert.equal(rank(arm, { os: 'windows', architecture: 'arm' }), undefined);
  assert.equal(rank(arm, { os: 'linux', architecture: 'amd64' }), undefined);
  assert.ok(rank(parsePlatform('amd64'), { os: 'linux', architecture: '386' })! > 0);
});
