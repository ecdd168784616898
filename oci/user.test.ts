import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Code, isCode } from '../ttrpc/errors.ts';
import { capabilitiesOf } from './capability.ts';
import { devicesAt } from './device.ts';
import { signalNumber } from './signal.ts';
import { withEnvironment } from './environment.ts';
import { lookUpUser } from './user.ts';

const rootfs = mkdtempSync('/tmp/moor-user-');
after(() => rmSync(rootfs, { recursive: true }));
mkdirSync(join(rootfs, 'real'));
symlinkSync('/real', join(rootfs, 'etc'));
symlinkSync('../../../../../../real/passwd.real', join(rootfs, 'real/passwd'));
writeFileSync(join(rootfs, 'real/passwd.real'), 'root:x:0:0::/:/bin/sh\nsailor:x:1000:1001::/:/bin/sh\n');
writeFileSync(join(rootfs, 'real/group'), 'crew:x:1001:\ndeck:x:1002:root,sailor\n');

test('users are those of the root filesystem, whose links never leave it', () => {
  assert.deepEqual(lookUpUser('sailor', rootfs), { uid: 1000, gid: 1001, additionalGids: [1001, 1002] });
  assert.deepEqual(lookUpUser('1000', rootfs), { uid: 1000, gid: 1001, additionalGids: [1001, 1002] });
  assert.deepEqual(lookUpUser('sailor:deck', rootfs), { uid: 1000, gid: 1002, additionalGids: [1002] });
  assert.deepEqual(lookUpUser('7', rootfs), { uid: 7, gid: 0, additionalGids: [0] });
  assert.deepEqual(lookUpUser('7:8', '/no/such'), { uid: 7, gid: 8, additionalGids: [8] });
  assert.throws(
    () => lookUpUser('nobody', rootfs),
    (error) => isCode(error, Code.NotFound),
  );
  assert.throws(
    () => lookUpUser('a:b:c', rootfs),
    (error) => isCode(error, Code.InvalidArgument),
  );
});

test('signals have names and numbers', () => {
  assert.equal(signalNumber('KILL'), 9);
  assert.equal(signalNumber('sigterm'), 15);
  assert.equal(signalNumber('10'), 10);
  assert.equal(signalNumber('RTMIN+3'), 37);
  assert.equal(signalNumber('SIGRTMAX-1'), 63);
  for (const wrong of ['', 'SIGNOTHING', '0', '65', 'RTMIN+40', -1, 1.5]) {
    assert.throws(
      () => signalNumber(wrong),
      (error) => isCode(error, Code.InvalidArgument),
    );
  }
});

test('environments are changed variable by variable', () => {
  assert.deepEqual(withEnvironment(['A=1', 'B=2'], ['A=3', 'B', 'C=x=y', '']), ['A=3', 'C=x=y']);
});

test('capabilities are read from a mask, devices from their nodes', () => {
  assert.deepEqual(capabilitiesOf('0000000000000021'), ['CAP_CHOWN', 'CAP_KILL']);
  const [device] = devicesAt('/dev/null');
  assert.deepEqual([device?.type, device?.major, device?.minor], ['c', 1, 3]);
  assert.throws(() => devicesAt('/etc/hostname'), /not a device/);
});
