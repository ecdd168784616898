import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { DEFAULT_CAPABILITIES } from '../../../oci/capability.ts';
import { RootDirectory } from '../../../oci/root-directory.ts';
import type { Spec } from '../../../oci/spec.ts';
import {
  ContainerConfig,
  MountPropagation,
  NamespaceMode,
  PodSandboxConfig,
  SecurityProfile_ProfileType,
  SupplementalGroupsPolicy,
} from '../../../proto/gen/runtime/v1/api.ts';
import { Code, isCode } from '../../../ttrpc/errors.ts';
import type { PartialMessage } from '../../../ttrpc/service.ts';
import { criSettings, runtimeOf } from '../settings.ts';
import { type ContainerBasis, containerSpec } from './container-spec.ts';

const home = mkdtempSync('/tmp/moor-pod-spec-');
const rootfs = join(home, 'rootfs');
mkdirSync(join(rootfs, 'etc'), { recursive: true });
writeFileSync(join(rootfs, 'etc/passwd'), 'root:x:0:0::/:\nsailor:x:1000:1001::/:\n');
writeFileSync(join(rootfs, 'etc/group'), 'root:x:0:\ncrew:x:1001:\nbilge:x:1002:sailor\n');
const root = RootDirectory.open(rootfs);
after(() => {
  root[Symbol.dispose]();
  rmSync(home, { recursive: true });
});

type Config = PartialMessage<ContainerConfig>;
const settings = criSettings.read({}, ['cri']);

/** The specification that comes of a configuration. */
function specOf(config: Config = {}, more: Partial<ContainerBasis> = {}): Spec {
  const full = ContainerConfig.fromPartial({ metadata: { name: 'box' }, command: ['sh'], ...config });
  return containerSpec({
    id: 'c1',
    config: full,
    mounts: full.mounts,
    podId: 'p1',
    pod: PodSandboxConfig.fromPartial({
      metadata: { name: 'pod', namespace: 'default', uid: 'u' },
      hostname: 'pod',
      linux: { cgroupParent: '/kubepods/pod1', securityContext: { privileged: true } },
    }),
    podMounts: [{ containerPath: '/dev/shm', hostPath: join(home, 'shm') }],
    neighbours: { pod: 77, target: undefined },
    image: {
      user: '',
      env: ['A=image', 'B=image'],
      entrypoint: [],
      cmd: [],
      workingDir: '',
      labels: {},
      stopSignal: '',
    },
    imageName: 'registry.example/box:1',
    root,
    runtime: runtimeOf(settings, '')!,
    features: { recursiveReadOnlyMounts: true, userNamespaces: true },
    vendorDevices: [],
    settings,
    ...more,
  });
}

const security = (securityContext: NonNullable<NonNullable<Config['linux']>['securityContext']>): Config => ({
  linux: { securityContext },
});

const refused =
  (code: Code, words: RegExp) =>
  (error: unknown): boolean =>
    isCode(error, code) && words.test(error.message);

test('a command replaces the entry point, arguments go behind either, the image’s own only behind its own', () => {
  const image = {
    entrypoint: ['entry'],
    cmd: ['image'],
    user: '',
    env: [],
    workingDir: '/srv',
    labels: {},
    stopSignal: '',
  };
  const argsOf = (command: string[], args: string[]) => specOf({ command, args }, { image }).process?.args;
  assert.deepEqual(argsOf([], []), ['entry', 'image']);
  assert.deepEqual(argsOf([], ['a']), ['entry', 'a']);
  assert.deepEqual(argsOf(['c'], []), ['c']);
  assert.deepEqual(argsOf(['c'], ['a']), ['c', 'a']);
  assert.throws(() => specOf({ command: [] }), refused(Code.InvalidArgument, /no command specified/));
  assert.equal(specOf({}, { image }).process?.cwd, '/srv');
  assert.equal(specOf({ workingDir: '/w' }, { image }).process?.cwd, '/w');
});

test('variables: the image’s, then the container’s, in order', () => {
  const envs = [
    { key: 'B', value: 'own' },
    { key: 'C', value: '1' },
    { key: 'C', value: '2=3' },
  ];
  const env = specOf({ envs }).process?.env ?? [];
  assert.deepEqual(env.slice(1), ['HOSTNAME=pod', 'A=image', 'B=own', 'C=2=3']);
  assert.match(env[0]!, /^PATH=/);
});

test('who it runs as: the user that is asked for or the image’s, with groups by the policy', () => {
  const userOf = (config: Config, user = '') => {
    const { process } = specOf(config, {
      image: { user, env: [], entrypoint: [], cmd: [], workingDir: '', labels: {}, stopSignal: '' },
    });
    return process?.user;
  };
  assert.deepEqual(userOf({}, 'sailor'), { uid: 1000, gid: 1001, additionalGids: [1001, 1002] });
  const asked = { runAsUsername: 'sailor', supplementalGroups: [5n, 1002n] };
  assert.deepEqual(userOf(security(asked)), { uid: 1000, gid: 1001, additionalGids: [1001, 1002, 5] });
  const strict = { ...asked, supplementalGroupsPolicy: SupplementalGroupsPolicy.Strict };
  assert.deepEqual(userOf(security(strict)), { uid: 1000, gid: 1001, additionalGids: [1001, 5, 1002] });
  const numbers = { runAsUser: { value: 7n }, runAsGroup: { value: 8n } };
  assert.deepEqual(userOf(security(numbers)), { uid: 7, gid: 8, additionalGids: [8] });
  const group = security({ runAsGroup: { value: 8n } });
  assert.throws(() => userOf(group), refused(Code.InvalidArgument, /group "8" is specified without user/));
  assert.throws(
    () => userOf(security({ runAsUsername: 'nobody' })),
    refused(Code.NotFound, /no user nobody/),
  );
  assert.throws(
    () => userOf(security({ runAsUser: { value: -1n } })),
    refused(Code.InvalidArgument, /no id/),
  );
});

test('capabilities: ALL comes before single ones, ambient ones are among the others', () => {
  const capabilitiesOf = (capabilities: object) =>
    specOf(security({ capabilities })).process?.capabilities ?? {};
  assert.deepEqual(capabilitiesOf({}).bounding, DEFAULT_CAPABILITIES);
  const one = capabilitiesOf({ dropCapabilities: ['all'], addCapabilities: ['net_admin'] });
  assert.deepEqual([one.bounding, one.ambient], [['CAP_NET_ADMIN'], undefined]);
  const most = capabilitiesOf({ addCapabilities: ['ALL'], dropCapabilities: ['CHOWN'] });
  assert.ok(most.bounding!.length > DEFAULT_CAPABILITIES.length && !most.bounding!.includes('CAP_CHOWN'));
  const ambient = capabilitiesOf({ addAmbientCapabilities: ['CAP_NET_RAW'] });
  assert.deepEqual([ambient.ambient, ambient.inheritable], [['CAP_NET_RAW'], ['CAP_NET_RAW']]);
  assert.throws(() => capabilitiesOf({ addCapabilities: ['FLY'] }), refused(Code.InvalidArgument, /"FLY"/));
});

test('a privileged container has it all, and only in a privileged pod', () => {
  const privileged = security({
    privileged: true,
    maskedPaths: ['/x'],
    seccompProfilePath: 'localhost/none',
  });
  const { mounts = [], linux, process } = specOf(privileged);
  assert.equal(linux?.seccomp, undefined);
  assert.equal(linux?.maskedPaths, undefined);
  assert.deepEqual(linux?.resources?.devices, [{ allow: true, access: 'rwm' }]);
  assert.ok(linux?.devices?.some(({ path }) => path === '/dev/null'));
  assert.ok(process?.capabilities?.bounding?.includes('CAP_SYS_ADMIN'));
  for (const type of ['sysfs', 'cgroup']) {
    assert.ok(mounts.find((mount) => mount.type === type)?.options?.includes('rw'), type);
  }
  const pod = PodSandboxConfig.fromPartial({});
  assert.throws(
    () => specOf(privileged, { pod }),
    refused(Code.FailedPrecondition, /no privileged container allowed/),
  );
});

test('seccomp by field and by the name of older releases; what is no profile is refused', () => {
  const path = join(home, 'profile.json');
  writeFileSync(path, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [] }));
  writeFileSync(join(home, 'bad.json'), '{"syscalls": []}');
  const filterOf = (config: Config): { defaultAction?: string } | undefined => specOf(config).linux?.seccomp;
  const named = (seccompProfilePath: string) => filterOf(security({ seccompProfilePath }));
  const typed = (profileType: SecurityProfile_ProfileType, localhostRef = '') =>
    filterOf(security({ seccomp: { profileType, localhostRef } }));
  assert.equal(named(''), undefined);
  assert.equal(named('unconfined'), undefined);
  assert.equal(named('docker/default')?.defaultAction, 'SCMP_ACT_ERRNO');
  assert.equal(named('runtime/default')?.defaultAction, 'SCMP_ACT_ERRNO');
  assert.equal(named(`localhost/${path}`)?.defaultAction, 'SCMP_ACT_ALLOW');
  assert.equal(typed(SecurityProfile_ProfileType.RuntimeDefault)?.defaultAction, 'SCMP_ACT_ERRNO');
  assert.equal(typed(SecurityProfile_ProfileType.Unconfined), undefined);
  assert.equal(typed(SecurityProfile_ProfileType.Localhost, path)?.defaultAction, 'SCMP_ACT_ALLOW');
  assert.throws(() => named(path), refused(Code.InvalidArgument, /invalid seccomp profile/));
  for (const file of ['none.json', 'bad.json']) {
    const wrong = () => typed(SecurityProfile_ProfileType.Localhost, join(home, file));
    assert.throws(wrong, refused(Code.InvalidArgument, /cannot load seccomp profile/));
  }
});

test(
  'AppArmor that is asked for where there is none is refused',
  { skip: existsSync('/sys/kernel/security/apparmor') },
  () => {
    const profile = (profileType: SecurityProfile_ProfileType) => security({ apparmor: { profileType } });
    assert.throws(
      () => specOf(profile(SecurityProfile_ProfileType.RuntimeDefault)),
      refused(Code.FailedPrecondition, /apparmor is not supported/),
    );
    assert.equal(specOf(profile(SecurityProfile_ProfileType.Unconfined)).process?.apparmorProfile, undefined);
    assert.equal(specOf().process?.apparmorProfile, undefined);
  },
);

test('paths that are masked or read-only are those that are asked for, and no others', () => {
  assert.deepEqual(specOf(security({ maskedPaths: ['/bin/ls'] })).linux?.maskedPaths, ['/bin/ls']);
  const unmasked = specOf(security({ maskedPaths: [], readonlyPaths: [] })).linux;
  assert.deepEqual([unmasked?.maskedPaths, unmasked?.readonlyPaths], [[], []]);
  const { root: readonly, process } = specOf(security({ readonlyRootfs: true, noNewPrivs: true }));
  assert.deepEqual([readonly?.readonly, process?.noNewPrivileges], [true, true]);
});

test('mounts: links are followed, directories made, the deeper ones come later, defaults give way', () => {
  const real = join(home, 'real');
  mkdirSync(real);
  symlinkSync(real, join(home, 'link'));
  const { mounts = [] } = specOf({
    mounts: [
      { containerPath: '/data/deep', hostPath: join(home, 'made/now') },
      { containerPath: '/data', hostPath: join(home, 'link'), readonly: true },
      { containerPath: '/dev/shm/', hostPath: real },
    ],
  });
  const bound = mounts.filter(({ type }) => type === 'bind');
  assert.deepEqual(
    bound.map(({ destination, source, options }) => [destination, source, options]),
    [
      ['/data', real, ['rbind', 'rprivate', 'ro']],
      ['/data/deep', join(home, 'made/now'), ['rbind', 'rprivate', 'rw']],
      ['/dev/shm/', real, ['rbind', 'rprivate', 'rw']],
    ],
  );
  assert.ok(
    !mounts.some(
      ({ destination, type }) => destination === '/run' || (type === 'tmpfs' && destination === '/dev/shm'),
    ),
  );
  assert.ok(mounts.some(({ destination }) => destination === '/sys/fs/cgroup'));
  assert.throws(
    () => specOf({ mounts: [{ containerPath: 'data', hostPath: real }] }),
    refused(Code.InvalidArgument, /not absolute/),
  );
});

test('propagation needs a mount that has it, and makes the root have it', () => {
  const shared = join(home, 'shared');
  mkdirSync(shared);
  execFileSync('mount', ['--bind', shared, shared]);
  after(() => execFileSync('umount', ['--lazy', shared]));
  const mount = (propagation: MountPropagation) =>
    specOf({ mounts: [{ containerPath: '/m', hostPath: shared, propagation }] });
  execFileSync('mount', ['--make-private', shared]);
  assert.throws(
    () => mount(MountPropagation.PROPAGATION_BIDIRECTIONAL),
    refused(Code.FailedPrecondition, /is mounted on ".*" but it is not a shared mount/),
  );
  assert.throws(
    () => mount(MountPropagation.PROPAGATION_HOST_TO_CONTAINER),
    refused(Code.FailedPrecondition, /not a shared or slave mount/),
  );
  assert.equal(mount(MountPropagation.PROPAGATION_PRIVATE).linux?.rootfsPropagation, undefined);
  execFileSync('mount', ['--make-shared', shared]);
  assert.equal(mount(MountPropagation.PROPAGATION_BIDIRECTIONAL).linux?.rootfsPropagation, 'rshared');
  assert.equal(mount(MountPropagation.PROPAGATION_HOST_TO_CONTAINER).linux?.rootfsPropagation, 'rslave');
});

test('recursively read-only is private and read-only, and needs a runtime that can', () => {
  const mount = { containerPath: '/m', hostPath: home, readonly: true, recursiveReadOnly: true };
  const spec = specOf({ mounts: [mount] });
  assert.ok(spec.mounts?.find(({ destination }) => destination === '/m')?.options?.includes('rro'));
  assert.throws(
    () => specOf({ mounts: [{ ...mount, readonly: false }] }),
    refused(Code.InvalidArgument, /conflicts with RW/),
  );
  assert.throws(
    () =>
      specOf({ mounts: [mount] }, { features: { recursiveReadOnlyMounts: false, userNamespaces: false } }),
    refused(Code.FailedPrecondition, /RROUnsupported/),
  );
  const propagation = MountPropagation.PROPAGATION_HOST_TO_CONTAINER;
  execFileSync('mount', ['--bind', rootfs, rootfs]);
  after(() => execFileSync('umount', ['--lazy', rootfs]));
  execFileSync('mount', ['--make-shared', rootfs]);
  assert.throws(
    () => specOf({ mounts: [{ ...mount, hostPath: rootfs, propagation }] }),
    refused(Code.InvalidArgument, /needs private propagation/),
  );
});

test('devices have the permissions that are asked for', () => {
  const { linux } = specOf({
    devices: [{ hostPath: '/dev/zero', containerPath: '/dev/nought', permissions: 'r' }],
  });
  assert.ok(
    linux?.devices?.some(({ path, major, minor }) => path === '/dev/nought' && major === 1 && minor === 5),
  );
  assert.deepEqual(linux?.resources?.devices?.at(-1), {
    allow: true,
    type: 'c',
    major: 1,
    minor: 5,
    access: 'r',
  });
  const wrong = (device: object) => () => specOf({ devices: [{ hostPath: '/dev/zero', ...device }] });
  assert.throws(wrong({ permissions: 'x' }), refused(Code.InvalidArgument, /permissions/));
  assert.throws(wrong({ hostPath: join(home, 'none') }), refused(Code.InvalidArgument, /device/));
});

test('namespaces are the pod’s, but for the PID namespace, which is by the mode', () => {
  const listOf = (pid: NamespaceMode, target?: number) =>
    specOf(security({ namespaceOptions: { pid } }), { neighbours: { pod: 77, target } }).linux?.namespaces ??
    [];
  const pidOf = (...args: Parameters<typeof listOf>) => listOf(...args).find(({ type }) => type === 'pid');
  assert.deepEqual(
    listOf(NamespaceMode.NODE).map(({ type, path }) => [type, path]),
    [
      ['mount', undefined],
      ['ipc', '/proc/77/ns/ipc'],
      ['uts', '/proc/77/ns/uts'],
      ['network', '/proc/77/ns/net'],
    ],
  );
  assert.deepEqual(pidOf(NamespaceMode.POD), { type: 'pid', path: '/proc/77/ns/pid' });
  assert.deepEqual(pidOf(NamespaceMode.CONTAINER), { type: 'pid' });
  assert.deepEqual(pidOf(NamespaceMode.TARGET, 99), { type: 'pid', path: '/proc/99/ns/pid' });
  assert.throws(() => pidOf(NamespaceMode.TARGET), refused(Code.InvalidArgument, /must be named/));
});

test('resources, and the cgroup below the pod’s', () => {
  const resources = {
    cpuPeriod: 100_000n,
    cpuQuota: 50_000n,
    cpuShares: 512n,
    cpusetCpus: '0',
    memoryLimitInBytes: 64n << 20n,
  };
  const { linux, process } = specOf({
    linux: { resources: { ...resources, oomScoreAdj: 500n, unified: { 'pids.max': '9' } } },
  });
  assert.deepEqual(linux?.resources?.cpu, { period: 100_000, quota: 50_000, shares: 512, cpus: '0' });
  assert.equal(linux?.resources?.memory?.limit, 64 << 20);
  assert.deepEqual(linux?.resources?.unified, { 'pids.max': '9' });
  assert.equal(process?.oomScoreAdj, 500);
  assert.equal(linux?.cgroupsPath, '/kubepods/pod1/c1');
});

test('annotations are handed on as the handler’s patterns say', () => {
  const runtime = { ...runtimeOf(settings, '')!, container_annotations: ['example.com/*', 'plain'] };
  const annotations = { 'example.com/a': '1', plain: '2', 'other.com/a': '3' };
  const { annotations: kept = {} } = specOf({ annotations }, { runtime });
  assert.deepEqual([kept['example.com/a'], kept['plain'], kept['other.com/a']], ['1', '2', undefined]);
  assert.equal(kept['io.kubernetes.cri.container-type'], 'container');
  assert.equal(kept['io.kubernetes.cri.sandbox-id'], 'p1');
});
