/** `moor run IMAGE` beside `ctr run IMAGE`, with the same flags, on the same daemon. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { type BusyboxOptions, busyboxImage, multiPlatform, ociArchive } from './harness/image.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { Moor } from './harness/moor.ts';
import { suite } from './harness/peers.ts';
import type { Outcome } from './harness/program.ts';
import { expectSameSpec } from './harness/spec.ts';

const name = (tag: string) => `example.com/run:${tag}`;

/** What is to be seen of the process, whoever it is. */
const WHO = 'echo $(id -u) $(id -g) $(id -G); pwd; env | sort; cat /etc/greeting 2>/dev/null';

/** Images by their tag. */
const images: { readonly [tag: string]: BusyboxOptions } = {
  plain: {},
  sailor: { config: { User: 'sailor', Cmd: ['sh', '-c', WHO], Env: ['PATH=/bin', 'A=image', 'B=image'] } },
  number: { config: { User: '1000', Cmd: ['sh', '-c', WHO], WorkingDir: '/tmp', Env: ['PATH=/bin'] } },
  group: { config: { User: 'sailor:bilge', Cmd: ['sh', '-c', WHO], Env: ['PATH=/bin'] } },
  numbers: { config: { User: '1000:5', Cmd: ['sh', '-c', WHO], Env: ['PATH=/bin'] } },
  stranger: { config: { User: '4321', Cmd: ['sh', '-c', WHO], Env: ['PATH=/bin'] } },
  nobody: { config: { User: 'nobody-here', Cmd: ['true'], Env: ['PATH=/bin'] } },
  entry: { config: { Entrypoint: ['echo', 'entry'], Cmd: ['command'], Env: ['PATH=/bin'] } },
  labelled: {
    docker: true,
    config: {
      Cmd: ['sh', '-c', WHO],
      Env: ['PATH=/bin'],
      Labels: { 'org.example.part': 'hull' },
      StopSignal: 'SIGQUIT',
      Volumes: { '/data': {} },
    },
  },
  layers: {
    above: [
      { 'etc/greeting': 'first\n', 'etc/extra': 'x' },
      { 'etc/greeting': 'second\n', 'etc/.wh.extra': '' },
    ],
    config: { Cmd: ['sh', '-c', `${WHO}; ls /etc`], Env: ['PATH=/bin'] },
  },
  // Names that lead out of the image lead nowhere.
  escape: {
    above: [{ 'etc/.wh.passwd': '', 'etc/.wh.group': '' }],
    config: { User: '0', Cmd: ['sh', '-c', WHO], Env: ['PATH=/bin'] },
  },
};

suite('moor run of an image', { timeout: 600_000 }, (rig) => {
  let moor: Moor;
  let count = 0;

  before(async () => {
    moor = new Moor(rig.daemon, rig.ctr.namespace);
    const named = await Promise.all(
      Object.entries(images).map(
        async ([tag, options]) => [[name(tag)], await busyboxImage(options)] as const,
      ),
    );
    const architectures = multiPlatform({
      amd64: await busyboxImage({ config: { Cmd: ['echo', 'amd64'], Env: ['PATH=/bin'] } }),
      arm64: await busyboxImage({
        architecture: 'arm64',
        config: { Cmd: ['echo', 'arm64'], Env: ['PATH=/bin'] },
      }),
    });
    const file = ociArchive(join(rig.daemon.directory, 'images.tar'), ...named, [
      [name('multi')],
      architectures,
    ]);
    await rig.ctr.ok('images', 'import', '--all-platforms', '--no-unpack', file);
    // A daemon may open its files with the first container.
    await rig.ctr.ok('run', '--rm', name('plain'), 'first', 'true');
  });

  /** The same with both clients; their outcomes. */
  const both = async (flags: readonly string[], tag: string, command: readonly string[] = []) => {
    count += 1;
    const args = (client: string) => ['run', '--rm', ...flags, name(tag), `${client}-${count}`, ...command];
    const ctr = await rig.ctr.call(args('ctr'));
    return { ctr, moor: await moor.call(args('moor')) };
  };

  const lost = ({ ctr, moor }: { ctr: Outcome; moor: Outcome }) =>
    ctr.stdout === '' && ctr.stderr === '' && ctr.code === moor.code && moor.stdout !== '';

  /** Both clients see the same. @returns what that is */
  const same = async (
    flags: readonly string[],
    tag: string,
    command: readonly string[] = [],
  ): Promise<string> => {
    let outcomes = await both(flags, tag, command);
    // Once in a long while Debian's ctr prints nothing of a process that ends at once, on containerd too: it opens the output in
    // the background, and gives that up when it is told of the end first.
    for (let again = 0; again < 3 && lost(outcomes); again += 1) outcomes = await both(flags, tag, command);
    const seen = ({ code, stdout }: Outcome) => ({ code, stdout });
    assert.deepEqual(seen(outcomes.moor), seen(outcomes.ctr), outcomes.moor.stderr + outcomes.ctr.stderr);
    return outcomes.moor.stdout;
  };

  it('users, groups, environment and directory are the image’s', async () => {
    const held = holdings(rig.daemon);
    assert.match(await same([], 'sailor'), /^1000 1001 1001 1002\n\/\nA=image\nB=image\n/);
    assert.match(await same([], 'number'), /^1000 1001 1001 1002\n\/tmp\n/);
    assert.match(await same([], 'group'), /^1000 1002 1002\n/);
    assert.match(await same([], 'numbers'), /^1000 5 5 1002\n/);
    assert.match(await same([], 'stranger'), /^4321 0 0\n/);
    assert.match(await same([], 'layers'), /second\n/);
    assert.match(await same([], 'escape'), /^0 0 0\n/);
    await same([], 'labelled');
    await expectNothingLeft(rig.daemon, held);
  });

  it('what is asked for takes the place of what the image says', async () => {
    assert.equal(await same([], 'entry'), 'entry command\n');
    assert.equal(await same([], 'entry', ['echo', 'mine']), 'mine\n');
    assert.equal(await same(['--cwd', '/etc'], 'number', ['pwd']), '/etc\n');
    const file = join(rig.daemon.directory, 'env');
    writeFileSync(file, 'C=file\nA=file\n');
    const env = await same(['--env-file', file, '--env', 'A=flag', '--env', 'D=x y'], 'sailor');
    assert.match(env, /\nA=flag\nB=image\nC=file\nD=x y\n/);
    const user = await moor.call(['run', '--rm', '--user', 'root', name('sailor'), 'user', 'id', '-u']);
    assert.equal(user.stdout, '0\n', user.stderr);
  });

  it('exit codes are the process’s, and nothing is left', async () => {
    const held = holdings(rig.daemon);
    await same([], 'plain', ['sh', '-c', 'exit 42']);
    await same([], 'plain', ['true']);
    const killed = await both([], 'plain', ['sh', '-c', 'sleep 100 & kill -9 $!; wait $!']);
    assert.deepEqual([killed.moor.code, killed.ctr.code], [137, 137]);
    const missing = await moor.call(['run', '--rm', name('plain'), 'missing', 'no-such-command']);
    assert.equal(missing.code, 127);
    await expectNothingLeft(rig.daemon, held);
    assert.equal((await rig.ctr.ok('containers', 'ls', '-q')).trim(), '');
    assert.doesNotMatch(await rig.ctr.ok('snapshots', 'ls'), / Active/);
    assert.deepEqual((await rig.ctr.ok('leases', 'ls')).trim().split('\n').slice(1), []);
  });

  it('files, mounts and limits', async () => {
    const write = ['sh', '-c', 'echo x > /file && echo written'];
    assert.equal(await same([], 'plain', write), 'written\n');
    assert.equal((await both(['--read-only'], 'plain', write)).moor.stdout, '');
    await same(['--read-only'], 'plain', write);
    const folder = join(rig.daemon.directory, 'shared');
    mkdirSync(folder);
    writeFileSync(join(folder, 'note'), 'from the host\n');
    const mount = ['--mount', `type=bind,src=${folder},dst=/mnt,options=rbind:ro`];
    assert.equal(await same(mount, 'plain', ['cat', '/mnt/note']), 'from the host\n');
    assert.equal(await same(mount, 'plain', ['sh', '-c', 'echo x > /mnt/note || echo refused']), 'refused\n');
    assert.equal(readFileSync(join(folder, 'note'), 'utf8'), 'from the host\n');
    const fill = ['sh', '-c', 'dd if=/dev/zero of=/dev/shm/fill bs=1M count=60 2>/dev/null; echo $?'];
    assert.equal(await same([], 'plain', fill), '0\n');
    assert.equal(await same(['--memory-limit', '20000000'], 'plain', fill), '137\n');
    const capabilities = ['sh', '-c', 'grep -E "Cap|Seccomp:|NoNewPrivs" /proc/self/status'];
    for (const flags of [
      [],
      ['--privileged'],
      ['--cap-add', 'CAP_SYS_ADMIN', '--cap-drop', 'CAP_CHOWN'],
      ['--seccomp'],
      ['--allow-new-privs'],
      ['--net-host'],
    ]) {
      await same(flags, 'plain', capabilities);
    }
    await same(['--net-host'], 'plain', ['sh', '-c', 'echo $HOSTNAME; cat /etc/hosts']);
    await same(['--device', '/dev/fuse'], 'plain', ['sh', '-c', 'ls -l /dev/fuse 2>&1 | cut -c1-10']);
    assert.equal(
      await same(['--seccomp'], 'plain', ['sh', '-c', 'unshare -m true 2>/dev/null || echo no']),
      'no\n',
    );
  });

  it('platforms: the host’s, one that is asked for, one that is not there', async () => {
    assert.equal(await same([], 'multi'), 'amd64\n');
    assert.equal(await same(['--platform', 'linux/arm64'], 'multi'), 'arm64\n');
    const { ctr, moor } = await both(['--platform', 'linux/s390x'], 'multi');
    assert.notEqual(ctr.code, 0);
    assert.equal(moor.code, 125);
    assert.match(moor.stderr, /multi cannot be run: no match for platform linux\/s390x .*: not found/);
  });

  it('what cannot be run says why, and leaves nothing', async () => {
    const held = holdings(rig.daemon);
    const refused = async (args: string[], message: RegExp) => {
      const { code, stderr } = await moor.call(['run', ...args]);
      assert.equal(code, 125);
      assert.match(stderr, message);
    };
    await refused(
      [name('none'), 'x'],
      /image "example.com\/run:none": not found[^]*hint: .*image pull example.com/,
    );
    await refused([name('nobody'), 'x'], /no user nobody-here in the container's \/etc\/passwd/);
    await refused(['--snapshotter', 'none', name('plain'), 'x'], /none/);
    await refused(
      ['--platform', 'a/b/c/d', name('plain'), 'x'],
      /platform "a\/b\/c\/d" is not OS\/ARCHITECTURE/,
    );
    await refused(['--rootfs', '--platform', 'linux/amd64', '/', 'x'], /--platform is for images/);
    await refused(['--gpus', '0', name('plain'), 'x'], /GPUs are not supported/);
    await refused(
      ['--uidmap', '1:1000:10', '--gidmap', '0:1000:10', name('plain'), 'x'],
      /one mapping, from 0/,
    );
    await expectNothingLeft(rig.daemon, held);
    assert.doesNotMatch(await rig.ctr.ok('snapshots', 'ls'), / Active/);
    assert.equal((await rig.ctr.ok('containers', 'ls', '-q')).trim(), '');
  });

  it('a container is stored as ctr stores it, with its specification', async () => {
    const same = (flags: Parameters<typeof expectSameSpec>[3], tag = 'plain') =>
      expectSameSpec(rig.ctr, moor, name(tag), flags);
    await same({ run: [] });
    await same({ run: ['--seccomp'] });
    await same({ run: ['--privileged'] });
    await same({ create: ['--privileged', '--seccomp', '--tty'] });
    await same({ run: ['--seccomp', '--cap-add', 'CAP_SYS_ADMIN', '--cap-add', 'CAP_SYS_TIME'] });
    await same({ run: ['--seccomp', '--cap-drop', 'CAP_SYS_CHROOT', '--cap-add', 'CAP_SYS_PTRACE'] });
    await same({ run: ['--cpus', '0.5', '--memory-limit', '67108864', '--read-only', '--allow-new-privs'] });
    await same({
      run: ['--net-host', '--cpu-shares', '100', '--cpu-quota', '5000', '--cpu-period', '20000'],
    });
    await same({ run: ['--cgroup', `/${rig.ctr.namespace}/elsewhere`, '--rootfs-propagation', 'shared'] });
    await same({ create: ['--device', '/dev/full', '--annotation', 'a=b', '--label', 'c=d', '--tty'] });
    await same({ create: ['--rdt-class', 'gold', '--apparmor-profile', 'loaded'] });
    await same({ create: ['--with-ns', 'network:/proc/1/ns/net', '--with-ns', 'user:/proc/1/ns/user'] });
    await same({ create: ['--mount', 'type=tmpfs,src=tmpfs,dst=/mnt,options=size=1m:nosuid'] });
    await same({ run: ['--env', 'A=mine', '--cwd', '/tmp'] }, 'sailor');
    await same({ create: ['--snapshotter', 'native', '--snapshotter-label', 'x=y'] }, 'labelled');
  });

  it('containers rm removes the snapshot unless it is to be kept; one that runs is left alone', async () => {
    const active = async () => (await rig.ctr.ok('snapshots', 'ls')).match(/^\S+(?=.* Active)/gm) ?? [];
    await moor.ok('containers', 'create', name('plain'), 'kept', 'true');
    await moor.ok('containers', 'create', name('plain'), 'gone', 'true');
    assert.deepEqual((await active()).sort(), ['gone', 'kept']);
    const again = await moor.call(['containers', 'create', name('plain'), 'kept', 'true']);
    assert.match(again.stderr, /container "kept": already exists/);
    await moor.ok('containers', 'rm', 'gone');
    await moor.ok('containers', 'rm', '--keep-snapshot', 'kept');
    await rig.ctr.ok('snapshots', 'rm', 'kept').catch(() => {}); // unless it was collected meanwhile
    assert.deepEqual(await active(), []);
    await moor.ok('run', '--detach', '--null-io', name('plain'), 'runs', 'sleep', '1000');
    const refused = await moor.call(['containers', 'rm', 'runs']);
    assert.match(refused.stderr, /cannot delete a non stopped container/);
    assert.deepEqual(await active(), ['runs']);
    await moor.ok('tasks', 'rm', '--force', 'runs');
    await rig.ctr.ok('containers', 'rm', 'runs');
    assert.deepEqual(await active(), []);
  });
});
