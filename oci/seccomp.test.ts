import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_CAPABILITIES } from './capability.ts';
import { defaultSeccompProfile, type SyscallRule } from './seccomp.ts';

const ALLOW = 'SCMP_ACT_ALLOW';

/** What is allowed whatever the arguments are. */
const free = (rules: readonly SyscallRule[]) =>
  new Set(
    rules.filter(({ action, args }) => action === ALLOW && args === undefined).flatMap(({ names }) => names),
  );

test('what is not listed is refused; capabilities list what they are good for', () => {
  const plain = defaultSeccompProfile(DEFAULT_CAPABILITIES, 'x64', '6.1.0');
  assert.equal(plain.defaultAction, 'SCMP_ACT_ERRNO');
  assert.deepEqual(plain.architectures, ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32']);
  const calls = free(plain.syscalls);
  for (const name of ['read', 'execve', 'chroot', 'arch_prctl', 'ptrace']) assert.ok(calls.has(name), name);
  for (const name of [
    'mount',
    'unshare',
    'bpf',
    'reboot',
    'kexec_load',
    'keyctl',
    'clone',
    'clone3',
    'set_tls',
  ]) {
    assert.ok(!calls.has(name), name);
  }
  const admin = free(defaultSeccompProfile(['CAP_SYS_ADMIN'], 'x64', '6.1.0').syscalls);
  for (const name of ['mount', 'unshare', 'clone', 'clone3']) assert.ok(admin.has(name), name);
  assert.ok(!admin.has('chroot'));
});

test('without CAP_SYS_ADMIN no namespace is made: clone is seen through, clone3 is said not to exist', () => {
  const rulesOf = (name: string, arch: string) =>
    defaultSeccompProfile([], arch, '6.1.0').syscalls.filter(({ names }) => names.includes(name));
  const mask = { value: 0x7e020000, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' };
  assert.deepEqual(rulesOf('clone', 'arm64'), [
    { names: ['clone'], action: ALLOW, args: [{ index: 0, ...mask }] },
  ]);
  assert.deepEqual(rulesOf('clone', 's390x')[0]?.args, [{ index: 1, ...mask }]);
  assert.deepEqual(rulesOf('clone3', 'x64'), [{ names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 }]);
});

test('processors and kernels differ', () => {
  assert.ok(free(defaultSeccompProfile([], 'arm64', '6.1.0').syscalls).has('set_tls'));
  assert.ok(!free(defaultSeccompProfile([], 'x64', '4.7.9').syscalls).has('ptrace'));
  assert.ok(free(defaultSeccompProfile([], 'x64', '4.10').syscalls).has('ptrace'));
  assert.deepEqual(defaultSeccompProfile([], 'unheard-of').architectures, []);
});
