/** What the processes of a pod's containers may do, tried by processes that do it. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { SecurityProfile_ProfileType, SupplementalGroupsPolicy } from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import { type ContainerChanges, Kubelet, type RunningPod, security } from './harness/cri.ts';
import { busyboxImage, ociArchive } from './harness/image.ts';
import { failureOf } from './harness/rpc.ts';

const FOREVER = ['sleep', '1000000'];
const { RuntimeDefault, Unconfined, Localhost } = SecurityProfile_ProfileType;

describe('what containers may do', { timeout: 240_000 }, () => {
  let kubelet: Kubelet;
  let pod: RunningPod;
  before(async () => {
    kubelet = await Kubelet.start();
    pod = await kubelet.runPod('guarded', { linux: { sysctls: { 'kernel.shm_rmid_forced': '1' } } });
  });
  after(() => kubelet[Symbol.asyncDispose]());

  let count = 0;
  const run = (context: Parameters<typeof security>[0], changes: ContainerChanges = {}): Promise<string> =>
    kubelet.run(pod, `c${(count += 1)}`, FOREVER, { ...changes, ...security(context) });
  const refuses = async (code: Code, words: RegExp, context: Parameters<typeof security>[0]) => {
    const failure = await failureOf(kubelet.create(pod, 'refused', FOREVER, security(context)));
    assert.match(failure.message, words);
    assert.equal(failure.code, code, failure.message);
  };
  const statusLine = async (id: string, name: string): Promise<string> => {
    const status = await kubelet.exec(id, 'cat', '/proc/self/status');
    return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '';
  };

  it('seccomp: the default one stops what makes namespaces, a file’s what it names, none nothing', async () => {
    const byDefault = await run({ seccomp: { profileType: RuntimeDefault } });
    assert.match(await kubelet.complaint(byDefault, 'unshare', '-U', 'true'), /Operation not permitted/);
    await kubelet.exec(byDefault, 'chmod', '700', '/tmp');
    const free = await run({ seccomp: { profileType: Unconfined } });
    await kubelet.exec(free, 'unshare', '-U', 'true');
    assert.equal(await statusLine(free, 'Seccomp'), '0');
    const path = join(kubelet.daemon.directory, 'seccomp.json');
    const rule = { names: ['chmod', 'fchmod', 'fchmodat', 'fchmodat2'], action: 'SCMP_ACT_ERRNO' };
    writeFileSync(path, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] }));
    for (const context of [
      { seccomp: { profileType: Localhost, localhostRef: path } },
      { seccompProfilePath: `localhost/${path}` },
    ]) {
      const own = await run(context);
      assert.match(await kubelet.complaint(own, 'chmod', '700', '/tmp'), /Operation not permitted/);
      await kubelet.exec(own, 'unshare', '-U', 'true');
    }
    const missing = { profileType: Localhost, localhostRef: '/no/such.json' };
    await refuses(Code.InvalidArgument, /cannot load seccomp profile "\/no\/such.json"/, {
      seccomp: missing,
    });
    writeFileSync(path, 'not json');
    await refuses(Code.InvalidArgument, /cannot load seccomp profile/, {
      seccompProfilePath: `localhost/${path}`,
    });
  });

  it(
    'AppArmor that the host does not have is refused',
    { skip: existsSync('/sys/kernel/security/apparmor') },
    async () => {
      for (const apparmor of [
        { profileType: Localhost, localhostRef: 'box' },
        { profileType: RuntimeDefault },
      ])
        await refuses(Code.FailedPrecondition, /apparmor is not supported/, { apparmor });
      await kubelet.runtime.removeContainer({
        containerId: await run({ apparmor: { profileType: Unconfined } }),
      });
    },
  );

  it('capabilities are taken and given, also to who is not root', async () => {
    const none = await run({ capabilities: { dropCapabilities: ['ALL'] } });
    assert.equal(await statusLine(none, 'CapBnd'), '0000000000000000');
    await kubelet.complaint(none, 'chown', '1:1', '/tmp');
    const all = await run({ capabilities: { addCapabilities: ['ALL'], dropCapabilities: ['CHOWN'] } });
    await kubelet.complaint(all, 'chown', '1:1', '/tmp');
    await kubelet.exec(all, 'mount', '-t', 'tmpfs', 'tmpfs', '/tmp');
    const one = await run({ capabilities: { dropCapabilities: ['all'], addCapabilities: ['CAP_CHOWN'] } });
    assert.equal(await statusLine(one, 'CapEff'), '0000000000000001');
    await kubelet.exec(one, 'chown', '1:1', '/tmp');
    const user = { runAsUser: { value: 1000n } };
    const without = await run({ ...user, capabilities: { addCapabilities: ['CHOWN'] } });
    assert.equal(await statusLine(without, 'CapEff'), '0000000000000000');
    const ambient = await run({ ...user, capabilities: { addAmbientCapabilities: ['CHOWN'] } });
    assert.equal(await statusLine(ambient, 'CapAmb'), '0000000000000001');
    await kubelet.exec(ambient, 'chown', '1:1', '/tmp');
    await refuses(Code.InvalidArgument, /unknown capability "FLY"/, {
      capabilities: { addCapabilities: ['FLY'] },
    });
  });

  it('files: masked, read-only and neither; the root', async () => {
    const host = join(kubelet.daemon.directory, 'kept');
    mkdirSync(host);
    const guarded = await run(
      {
        maskedPaths: ['/proc/version', '/no/such', '/etc'],
        readonlyPaths: ['/tmp'],
        readonlyRootfs: true,
      },
      { mounts: [{ hostPath: host, containerPath: '/kept' }] },
    );
    assert.equal(await kubelet.exec(guarded, 'cat', '/proc/version'), '');
    assert.equal(await kubelet.exec(guarded, 'ls', '/etc'), '');
    for (const path of ['/tmp/x', '/x'])
      assert.match(await kubelet.complaint(guarded, 'touch', path), /Read-only/);
    await kubelet.exec(guarded, 'touch', '/kept/x', '/dev/shm/x');
    const open = await run({ maskedPaths: [], readonlyPaths: [] });
    assert.match(await kubelet.exec(open, 'cat', '/proc/version'), /Linux/);
    await kubelet.exec(open, 'sh', '-c', 'cat /proc/keys && echo 8192 > /proc/sys/kernel/msgmax');
    const usual = await run({ maskedPaths: ['/proc/keys'], readonlyPaths: ['/proc/sys'], noNewPrivs: true });
    assert.equal(await kubelet.exec(usual, 'cat', '/proc/keys'), '');
    const write = ['sh', '-c', 'echo 8192 > /proc/sys/kernel/msgmax'];
    assert.match(await kubelet.complaint(usual, ...write), /Read-only/);
    assert.equal(await statusLine(usual, 'NoNewPrivs'), '1');
    assert.equal(await statusLine(open, 'NoNewPrivs'), '0');
  });

  it('users and groups, by number and name, merged with the image’s or not', async () => {
    const ids = async (context: Parameters<typeof security>[0]): Promise<string> => {
      const id = await run(context);
      const seen = await kubelet.exec(id, 'sh', '-c', 'echo $(id -u) $(id -g) $(id -G)');
      const [uid, gid, ...groups] = seen.trim().split(' ').map(Number);
      const { user } = await kubelet.status(id);
      const told = user!.linux!;
      assert.deepEqual([told.uid, told.gid], [BigInt(uid!), BigInt(gid!)], 'as the status says');
      // The kernel sorts them, and busybox names the first one twice.
      const sorted = (numbers: readonly number[]) => [...new Set(numbers)].toSorted((a, b) => a - b);
      assert.deepEqual(sorted(groups), sorted([told.gid, ...told.supplementalGroups].map(Number)));
      return [uid, gid, ...sorted(groups)].join(' ');
    };
    const number = (value: bigint) => ({ value });
    assert.equal(await ids({}), '0 0 0');
    assert.equal(await ids({ runAsUser: number(4000n) }), '4000 0 0');
    assert.equal(await ids({ runAsUser: number(1000n) }), '1000 1001 1001 1002');
    assert.equal(await ids({ runAsUser: number(1000n), runAsGroup: number(7n) }), '1000 7 7 1002');
    const named = { runAsUsername: 'sailor', supplementalGroups: [99n] };
    assert.equal(await ids(named), '1000 1001 99 1001 1002');
    const { Strict } = SupplementalGroupsPolicy;
    assert.equal(await ids({ ...named, supplementalGroupsPolicy: Strict }), '1000 1001 99 1001');
    await refuses(Code.NotFound, /no user pirate in the container's \/etc\/passwd/, {
      runAsUsername: 'pirate',
    });
    await refuses(Code.InvalidArgument, /"7" is specified without user/, { runAsGroup: number(7n) });
    const ship = 'registry.example/ship:1';
    const image = await busyboxImage({ config: { User: 'pirate', Cmd: ['sh'], Env: ['PATH=/bin'] } });
    const archive = ociArchive(join(kubelet.daemon.directory, 'ship.tar'), [[ship], image]);
    await kubelet.ctr().ok('images', 'import', archive);
    const ofImage = await failureOf(kubelet.create(pod, 'ship', FOREVER, { image: { image: ship } }));
    assert.match(ofImage.message, /no user pirate in the container's \/etc\/passwd/);
  });

  it('privileges need a privileged pod; sysctls are the pod’s own; scores are kept', async () => {
    await refuses(Code.FailedPrecondition, /no privileged container allowed in sandbox/, {
      privileged: true,
    });
    const id = await kubelet.run(pod, 'scored', FOREVER, { linux: { resources: { oomScoreAdj: 567n } } });
    assert.equal(await kubelet.exec(id, 'cat', '/proc/1/oom_score_adj'), '567\n');
    assert.equal(await kubelet.exec(id, 'cat', '/proc/sys/kernel/shm_rmid_forced'), '1\n');
    assert.equal(await kubelet.exec(id, 'hostname'), 'guarded\n');
    assert.match(await kubelet.exec(id, 'cat', '/etc/hosts'), /localhost/);
    assert.equal(
      await kubelet.exec(id, 'cat', '/etc/resolv.conf'),
      'search default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n',
    );
    const wild = await failureOf(kubelet.runPod('wild', { linux: { sysctls: { 'kernel.panic': '1' } } }));
    assert.match(wild.message, /sysctl "kernel.panic" is not in a separate kernel namespace/);
  });
});
