/** What a pod's containers have mounted, with real mounts of the host: read-only trees, propagation both ways, owners, sub-paths. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { MountPropagation } from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import { BUSYBOX, type ContainerChanges, Kubelet, type RunningPod, security } from './harness/cri.ts';
import { mountsBelow } from './harness/daemon.ts';
import { list } from './harness/leftovers.ts';
import { failureOf } from './harness/rpc.ts';

const FOREVER = ['sleep', '1000000'];
const { PROPAGATION_PRIVATE, PROPAGATION_HOST_TO_CONTAINER, PROPAGATION_BIDIRECTIONAL } = MountPropagation;

describe('mounts of containers', { timeout: 240_000 }, () => {
  let kubelet: Kubelet;
  let pod: RunningPod;
  /** A mount of its own that is shared, as a node's root is. */
  let shared: string;
  let plain: string;

  const tmpfs = (path: string): string => {
    mkdirSync(path, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', path]);
    return path;
  };
  const refuses = async (
    code: Code,
    words: RegExp,
    mount: NonNullable<ContainerChanges['mounts']>[number],
  ) => {
    const failure = await failureOf(kubelet.create(pod, 'refused', FOREVER, { mounts: [mount] }));
    assert.match(failure.message, words);
    assert.equal(failure.code, code, failure.message);
  };

  before(async () => {
    kubelet = await Kubelet.start();
    pod = await kubelet.runPod('mounts', { linux: { securityContext: { privileged: true } } });
    shared = tmpfs(join(kubelet.daemon.directory, 'shared'));
    execFileSync('mount', ['--make-shared', shared]);
    plain = tmpfs(join(kubelet.daemon.directory, 'plain'));
    execFileSync('mount', ['--make-private', plain]);
  });
  after(async () => {
    for (const path of [shared, plain])
      for (const mount of mountsBelow(path).toReversed()) execFileSync('umount', ['-l', mount]);
    await kubelet[Symbol.asyncDispose]();
  });

  it('read-only is of one mount, recursively read-only of all below it', async () => {
    const below = tmpfs(join(plain, 'tree/below'));
    writeFileSync(join(below, 'file'), 'seen');
    const tree = join(plain, 'tree');
    const containerId = await kubelet.run(pod, 'read-only', FOREVER, {
      mounts: [
        { hostPath: tree, containerPath: '/ro', readonly: true },
        { hostPath: tree, containerPath: '/rro', readonly: true, recursiveReadOnly: true },
        { hostPath: tree, containerPath: '/rw' },
      ],
    });
    assert.match(await kubelet.complaint(containerId, 'touch', '/ro/x'), /Read-only/);
    await kubelet.exec(containerId, 'touch', '/ro/below/through');
    assert.ok(existsSync(join(below, 'through')));
    assert.equal(await kubelet.exec(containerId, 'cat', '/rro/below/file'), 'seen');
    assert.match(await kubelet.complaint(containerId, 'touch', '/rro/x'), /Read-only/);
    assert.match(await kubelet.complaint(containerId, 'touch', '/rro/below/x'), /Read-only/);
    await kubelet.exec(containerId, 'touch', '/rw/x', '/rw/below/x');
    const { mounts } = await kubelet.status(containerId);
    assert.deepEqual(
      mounts.map(({ containerPath, readonly, recursiveReadOnly }) => [
        containerPath,
        readonly,
        recursiveReadOnly,
      ]),
      [
        ['/ro', true, false],
        ['/rro', true, true],
        ['/rw', false, false],
      ],
    );
    await kubelet.runtime.removeContainer({ containerId });
    const { runtimeHandlers } = await kubelet.runtime.status({});
    assert.ok(runtimeHandlers.every(({ features }) => features?.recursiveReadOnlyMounts === true));
    const both = { hostPath: tree, containerPath: '/x', recursiveReadOnly: true };
    await refuses(Code.InvalidArgument, /conflicts with RW mount \(hostPath=/, both);
    const spreading = {
      ...both,
      hostPath: shared,
      readonly: true,
      propagation: PROPAGATION_HOST_TO_CONTAINER,
    };
    await refuses(Code.InvalidArgument, /needs private propagation/, spreading);
  });

  it('mounts made later are seen on the other side as the propagation has it', async () => {
    const mighty = security({ privileged: true });
    const containerId = await kubelet.run(pod, 'propagation', FOREVER, {
      ...mighty,
      mounts: [
        { hostPath: shared, containerPath: '/private', propagation: PROPAGATION_PRIVATE },
        { hostPath: shared, containerPath: '/slave', propagation: PROPAGATION_HOST_TO_CONTAINER },
        { hostPath: shared, containerPath: '/shared', propagation: PROPAGATION_BIDIRECTIONAL },
      ],
    });
    writeFileSync(join(tmpfs(join(shared, 'late')), 'file'), 'seen');
    assert.equal(await kubelet.exec(containerId, 'cat', '/slave/late/file'), 'seen');
    assert.equal(await kubelet.exec(containerId, 'cat', '/shared/late/file'), 'seen');
    assert.equal(await kubelet.exec(containerId, 'ls', '/private/late'), '');
    for (const side of ['private', 'slave', 'shared'])
      await kubelet.exec(
        containerId,
        'sh',
        '-c',
        `mkdir /${side}/${side} && mount -t tmpfs own /${side}/${side}`,
      );
    assert.deepEqual(
      mountsBelow(shared).filter((path) => /\/(?:private|slave|shared)$/.test(path.slice(shared.length))),
      [join(shared, 'shared')],
    );
    await kubelet.exec(containerId, 'umount', '/shared/shared', '/slave/late');
    assert.ok(!mountsBelow(shared).includes(join(shared, 'shared')));
    assert.ok(mountsBelow(shared).includes(join(shared, 'late')));
    await kubelet.runtime.removeContainer({ containerId });
    const bound = { hostPath: plain, containerPath: '/x' };
    const words = (kind: string) => new RegExp(`is mounted on "${plain}" but it is not ${kind}`);
    await refuses(Code.FailedPrecondition, words('a shared mount'), {
      ...bound,
      propagation: PROPAGATION_BIDIRECTIONAL,
    });
    await refuses(Code.FailedPrecondition, words('a shared or slave mount'), {
      ...bound,
      propagation: PROPAGATION_HOST_TO_CONTAINER,
    });
  });

  it('sub-paths, files, links and what is missing; labels that no kernel here knows', async () => {
    const host = join(kubelet.daemon.directory, 'volume');
    mkdirSync(join(host, 'sub/deep'), { recursive: true });
    writeFileSync(join(host, 'sub/deep/file'), 'deep');
    symlinkSync('sub/deep', join(host, 'link'));
    const containerId = await kubelet.run(pod, 'paths', FOREVER, {
      mounts: [
        { hostPath: join(host, 'sub/deep'), containerPath: '/a/b' },
        { hostPath: join(host, 'sub'), containerPath: '/a' },
        { hostPath: join(host, 'link'), containerPath: '/linked', selinuxRelabel: true },
        { hostPath: join(host, 'sub/deep/file'), containerPath: '/etc/one', readonly: true },
        { hostPath: join(host, 'made/by/it'), containerPath: '/made' },
        { hostPath: join(host, 'sub'), containerPath: '/etc/hosts.d/' },
      ],
    });
    assert.equal(await kubelet.exec(containerId, 'cat', '/a/deep/file', '/a/b/file'), 'deepdeep');
    assert.equal(await kubelet.exec(containerId, 'cat', '/linked/file', '/etc/one'), 'deepdeep');
    assert.match(await kubelet.complaint(containerId, 'sh', '-c', 'echo x > /etc/one'), /Read-only/);
    await kubelet.exec(containerId, 'test', '-d', '/etc/hosts.d/deep');
    const made = lstatSync(join(host, 'made/by/it'));
    assert.deepEqual([made.isDirectory(), made.mode & 0o777], [true, 0o755]);
    await kubelet.runtime.removeContainer({ containerId });
    assert.ok(existsSync(join(host, 'made/by/it')), 'it is the client’s');
    await refuses(Code.InvalidArgument, /host path "volume" is not absolute/, {
      hostPath: 'volume',
      containerPath: '/x',
    });
    await refuses(Code.InvalidArgument, /mount path "x" is not absolute/, {
      hostPath: host,
      containerPath: 'x',
    });
  });

  it('of an image only what is in it', async () => {
    const mounted = (imageSubPath: string) => ({
      image: { image: BUSYBOX },
      imageSubPath,
      containerPath: '/v',
    });
    await refuses(Code.InvalidArgument, /no\/such/, mounted('no/such'));
    await refuses(Code.InvalidArgument, /is no directory/, mounted('etc/passwd'));
    await refuses(Code.InvalidArgument, /leads out of it/, mounted('../../..'));
    await refuses(Code.NotFound, /none:1/, {
      image: { image: 'registry.example/none:1' },
      containerPath: '/v',
    });
    assert.deepEqual(list(join(kubelet.daemon.state, 'cri/volumes')), []);
  });
});
