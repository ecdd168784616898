/** `ctr run IMAGE`: what the image's configuration says and what the flags say instead, as on containerd. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { busyboxImage, ociArchive } from './harness/image.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { snapshotsOnDisk } from './harness/storage.ts';
import { eventually } from './harness/wait.ts';

let images = 0;

suite('ctr run of an image', {}, (rig) => {
  /** An image with this configuration, and its name. */
  const imported = async (config: object): Promise<string> => {
    images += 1;
    const name = `example.com/run:${images}`;
    const image = await busyboxImage({ config: { Env: ['PATH=/bin'], ...config } });
    await rig.ctr.ok('images', 'import', ociArchive(join(rig.daemon.directory, 'i.tar'), [[name], image]));
    return name;
  };
  const output = async (name: string, command: string[], flags: string[] = []): Promise<string> => {
    const { code, stdout, stderr } = await rig.ctr.runImage(name, 'box', command, flags);
    assert.equal(code, 0, stderr);
    return stdout;
  };

  it('entrypoint and arguments are the image’s, and given arguments replace both', async () => {
    const name = await imported({ Entrypoint: ['echo', 'one'], Cmd: ['two'] });
    assert.equal(await output(name, []), 'one two\n');
    assert.equal(await output(name, ['echo', 'mine']), 'mine\n');
  });

  it('environment and working directory are the image’s, and flags win', async () => {
    const name = await imported({ Env: ['PATH=/bin', 'A=image', 'B=image'], WorkingDir: '/etc' });
    const show = ['sh', '-c', 'echo $A $B $C; pwd'];
    assert.equal(await output(name, show), 'image image\n/etc\n');
    const flags = ['--env', 'B=flag', '--env', 'C=flag', '--cwd', '/tmp'];
    assert.equal(await output(name, show, flags), 'image flag flag\n/tmp\n');
  });

  for (const [user, id] of [
    ['sailor', 'uid=1000(sailor) gid=1001(crew) groups=1001(crew),1002(bilge)'],
    ['1000', 'uid=1000(sailor) gid=1001(crew) groups=1001(crew),1002(bilge)'],
    ['sailor:bilge', 'uid=1000(sailor) gid=1002(bilge) groups=1002(bilge)'],
    ['4711:4712', 'uid=4711 gid=4712 groups=4712'],
    ['', 'uid=0(root) gid=0(root) groups=0(root)'],
  ] as const)
    it(`runs as the image’s user “${user}”`, async () => {
      const seen = (await output(await imported({ User: user }), ['id'])).trim();
      // Whether the main group is repeated among the others differs between versions of the client, not of the daemon.
      const plain = (text: string) =>
        text
          .replaceAll('(', ' ')
          .split(/[ ,)=]+/)
          .sort()
          .filter((part, at, all) => part !== all[at - 1]);
      assert.deepEqual(plain(seen), plain(id), seen);
    });

  it('a user that the image does not have is refused', async () => {
    const outcome = await rig.ctr.runImage(await imported({ User: 'pirate' }), 'box', ['id']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /no users found/);
    assert.equal((await rig.ctr.ok('containers', 'ls', '-q')).trim(), '');
  });

  it('is written for itself alone, and --rm removes what it wrote', async () => {
    const name = await imported({});
    const before = snapshotsOnDisk(rig.daemon).length;
    const held = holdings(rig.daemon);
    assert.equal(await output(name, ['sh', '-c', 'echo x > /etc/motd; rm /bin/ls; cat /etc/motd']), 'x\n');
    // containerd may still be at it.
    await eventually('its snapshot is gone', async () => !/^box/m.test(await rig.ctr.ok('snapshots', 'ls')));
    assert.equal(await output(name, ['sh', '-c', 'cat /etc/motd 2>/dev/null; ls -d /bin']), '/bin\n');
    await expectNothingLeft(rig.daemon, held);
    assert.doesNotMatch(await rig.ctr.ok('snapshots', 'ls'), /^box/m);
    if (rig.peer === 'moord') assert.equal(snapshotsOnDisk(rig.daemon).length, before);
  });

  it('--read-only, --mount and --memory-limit', async () => {
    const name = await imported({});
    const given = join(rig.daemon.directory, 'given');
    writeFileSync(given, 'from the host\n');
    const mounts = [
      ['--mount', `type=bind,src=${given},dst=/tmp/given,options=rbind:ro`],
      ['--mount', 'type=tmpfs,src=tmpfs,dst=/run/here,options=mode=0700:size=64k'],
      ['--mount', 'type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro'],
    ].flat();
    const script =
      'cat /tmp/given; touch /run/here/x && echo tmpfs; touch /x 2>/dev/null || echo fixed; cat /sys/fs/cgroup/memory/memory.limit_in_bytes';
    const flags = ['--read-only', '--memory-limit', '33554432', ...mounts];
    assert.equal(await output(name, ['sh', '-c', script], flags), 'from the host\ntmpfs\nfixed\n33554432\n');
    const greedy = await rig.ctr.runImage(name, 'box', ['tail', '/dev/zero'], ['--memory-limit', '16777216']);
    assert.equal(greedy.code, 137);
  });

  it('the container knows its image, its labels and its stop signal', async () => {
    const name = await imported({ Labels: { 'com.example.from': 'image' }, StopSignal: 'SIGUSR1' });
    await rig.ctr.ok('run', '-d', '--null-io', '--label', 'by=flag', name, 'known', 'sleep', '100');
    const info = JSON.parse(await rig.ctr.ok('containers', 'info', 'known')) as {
      Image: string;
      Labels: Record<string, string>;
      SnapshotKey: string;
      Snapshotter: string;
    };
    assert.equal(info.Image, name);
    assert.deepEqual([info.Snapshotter, info.SnapshotKey], ['overlayfs', 'known']);
    assert.equal(info.Labels['com.example.from'], 'image');
    assert.equal(info.Labels['by'], 'flag');
    assert.equal(info.Labels['io.containerd.image.config.stop-signal'], 'SIGUSR1');
    assert.match(await rig.ctr.ok('containers', 'ls'), new RegExp(`known +${name}`));
    // The image may go while its container runs: the container holds the snapshot.
    await rig.ctr.ok('images', 'rm', '--sync', name);
    assert.equal((await rig.ctr.exec('known', ['echo', 'still'])).stdout, 'still\n');
    await rig.ctr.remove('known');
  });
});
