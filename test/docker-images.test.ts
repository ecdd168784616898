/** Files, images, volumes and the settings of a container, as dockerd asks for them. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { IMAGE } from './harness/dockerd.ts';
import { dockerSuite } from './harness/peers.ts';
import { eventually } from './harness/wait.ts';

dockerSuite('docker images and settings', { peers: ['moord'] }, (rig) => {
  const sh = async (script: string, ...flags: string[]) =>
    rig.docker.ok('run', '--rm', ...flags, IMAGE, 'sh', '-c', script);

  it('info and version name the daemon below', async () => {
    const { docker } = rig;
    const { Components: components } = JSON.parse(await docker.ok('version', '-f', '{{json .Server}}')) as {
      Components: { Name: string; Version: string }[];
    };
    assert.match(components.find(({ Name: name }) => name === 'containerd')?.Version ?? '', /^\d+\.\d+\.\d+/);
    assert.match(await docker.ok('info'), /Default Runtime: runc[^]*containerd version: \S+\n/);
  });

  it('cp both ways, diff and commit', async () => {
    const { docker } = rig;
    await docker.run('work', 'echo inside > /made; sleep 1000');
    await eventually(
      'it is made',
      async () => (await docker.call(['exec', 'work', 'cat', '/made'])).code === 0,
    );
    const host = join(docker.directory, 'copied');
    await docker.ok('cp', 'work:/made', host);
    assert.equal(readFileSync(host, 'utf8'), 'inside\n');
    writeFileSync(host, 'outside\n');
    await docker.ok('cp', host, 'work:/tmp/given');
    assert.equal(await docker.ok('exec', 'work', 'cat', '/tmp/given'), 'outside');
    assert.match(await docker.ok('diff', 'work'), /^A \/made$/m);
    await docker.ok('commit', '-c', 'CMD ["cat", "/made", "/tmp/given"]', 'work', 'committed');
    assert.equal(await docker.ok('run', '--rm', 'committed'), 'inside\noutside');
    await docker.remove('work');
  });

  for (const [builder, buildkit] of Object.entries({ 'the classic builder': '0', BuildKit: '1' })) {
    it(`build of a Dockerfile without network by ${builder}`, async () => {
      const { docker } = rig;
      const context = join(docker.directory, `context-${buildkit}`);
      mkdirSync(context);
      const lines = [`FROM ${IMAGE}`, 'ARG word=none', 'COPY given /given', 'RUN echo "$word" >> /given'];
      writeFileSync(
        join(context, 'Dockerfile'),
        [...lines, 'USER 99', 'CMD ["cat", "/given"]', ''].join('\n'),
      );
      writeFileSync(join(context, 'given'), 'copied\n');
      const tag = `built-${buildkit}`;
      const build = ['build', '--network', 'none', '--build-arg', 'word=run', '-t', tag, context];
      const outcome = await docker.call(build, { env: { DOCKER_BUILDKIT: buildkit } });
      assert.equal(outcome.code, 0, outcome.stderr);
      assert.equal(await docker.ok('run', '--rm', tag), 'copied\nrun');
      writeFileSync(join(context, 'Dockerfile'), `FROM ${IMAGE}\nRUN exit 9\n`);
      const failed = await docker.call(build, { env: { DOCKER_BUILDKIT: buildkit } });
      assert.notEqual(failed.code, 0);
      assert.match(failed.stderr + failed.stdout, /exit 9.*non-zero code: 9|exit code: 9/);
    });
  }

  it('save and load bring an image back', async () => {
    const { docker } = rig;
    const archive = join(docker.directory, 'saved.tar');
    await docker.ok('tag', IMAGE, 'other:1');
    await docker.ok('save', '-o', archive, 'other:1');
    await docker.ok('rmi', 'other:1');
    await docker.ok('load', '-i', archive);
    assert.equal(await docker.ok('run', '--rm', 'other:1', 'echo', 'back'), 'back');
  });

  it('user, groups, directory, environment and host name', async () => {
    const flags = ['-u', '1000:1001', '--group-add', '77', '-w', '/tmp', '-e', 'A=b', '-h', 'named'];
    assert.equal(
      await sh('id -u; id -g; id -G; pwd; echo $A; hostname', ...flags),
      '1000\n1001\n1001 77\n/tmp\nb\nnamed',
    );
  });

  it('capabilities, privileges and the read-only root', async () => {
    const capabilities = async (...flags: string[]) =>
      parseInt(await sh("sed -n 's/^CapEff:.//p' /proc/self/status", ...flags), 16);
    const [usual, added, dropped] = [
      await capabilities(),
      await capabilities('--cap-add', 'SYS_TIME'),
      await capabilities('--cap-drop', 'ALL'),
    ];
    assert.equal(added - usual, 2 ** 25);
    assert.equal(dropped, 0);
    assert.equal(
      await sh('cat /proc/self/status | grep -c "NoNewPrivs:.1"', '--security-opt', 'no-new-privileges'),
      '1',
    );
    const readonly = ['--read-only', '--tmpfs', '/scratch:size=64k'];
    assert.equal(
      await sh('touch /x 2>/dev/null || echo refused; echo a > /scratch/a && cat /scratch/a', ...readonly),
      'refused\na',
    );
    assert.match(await sh('df -k /scratch | tail -1', ...readonly), / 64 /);
  });

  it('volumes: named, of the host, read-only, and taken from another container', async () => {
    const { docker } = rig;
    await docker.ok('volume', 'create', 'kept');
    await sh('echo one > /v/file', '-v', 'kept:/v');
    assert.equal(
      await sh('cat /v/file; touch /v/x 2>/dev/null || echo refused', '-v', 'kept:/v:ro'),
      'one\nrefused',
    );
    await docker.ok('create', '--name', 'holder', '-v', 'kept:/v', IMAGE, 'true');
    assert.equal(await sh('cat /v/file', '--volumes-from', 'holder'), 'one');
    await sh('echo host > /h/from-container', '-v', `${docker.shared}:/h`);
    assert.equal(readFileSync(join(docker.shared, 'from-container'), 'utf8'), 'host\n');
    await docker.remove('holder');
    await docker.ok('volume', 'rm', 'kept');
  });

  it('sysctls, limits, shared memory, devices and labels', async () => {
    const flags = ['--sysctl', 'net.ipv4.ip_unprivileged_port_start=81', '--ulimit', 'nofile=123:456'];
    const script = 'cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ulimit -n; ulimit -Hn';
    assert.equal(await sh(script, ...flags), '81\n123\n456');
    assert.match(await sh('df -k /dev/shm | tail -1', '--shm-size', '1m'), / 1024 /);
    assert.equal(await sh('head -c 4 /dev/zero2 | wc -c', '--device', '/dev/zero:/dev/zero2:r'), '4');
  });

  it("the host's and another container's namespaces", async () => {
    const { docker } = rig;
    for (const kind of ['pid', 'ipc', 'uts'])
      assert.equal(
        await sh(`readlink /proc/self/ns/${kind}`, `--${kind}=host`),
        readlinkSync(`/proc/self/ns/${kind}`),
      );
    await docker.run('leader', 'sleep 1000', '--ipc', 'shareable');
    const { Pid: pid } = await docker.state('leader');
    const join = ['--pid=container:leader', '--ipc=container:leader', '--network=container:leader'];
    for (const kind of ['pid', 'ipc', 'net'])
      assert.equal(
        await sh(`readlink /proc/self/ns/${kind}`, ...join),
        readlinkSync(`/proc/${pid}/ns/${kind}`),
      );
    await docker.remove('leader');
  });

  it('what cannot be is refused with a reason', async () => {
    const { docker } = rig;
    const refused = async (reason: RegExp, ...flags: string[]) => {
      const outcome = await docker.call(['run', '--rm', ...flags, IMAGE, 'true']);
      assert.ok(outcome.code === 125 || outcome.code === 127, `${outcome.code}`);
      assert.match(outcome.stderr, reason);
    };
    await refused(/unknown or invalid runtime|Unknown runtime/i, '--runtime', 'nothing');
    await refused(/no such file or directory/, '--device', '/dev/nothing');
    // The client knows which sysctls there may be; that this one is nobody's is the runtime's to say.
    await refused(/net\/nothing: no such file or directory/, '--sysctl', 'net.nothing=1');
  });

  it('dockerd and ctr at once do not see each other', async () => {
    const { docker, daemon, ctr } = rig;
    const id = await docker.run('mine', 'sleep 1000');
    await ctr.runDetached('theirs', ['/bin/sleep', '1000']);
    assert.ok((await daemon.ctr('moby').tasks()).has(id));
    assert.deepEqual([...(await ctr.tasks()).keys()], ['theirs']);
    assert.equal(await docker.ok('ps', '-q', '--no-trunc'), id);
    assert.notEqual((await ctr.call(['tasks', 'kill', id])).code, 0);
    assert.notEqual((await docker.call(['kill', 'theirs'])).code, 0);
    // The same name twice is no conflict, and an end is told to its own side only.
    await ctr.runDetached(id, ['/bin/sleep', '1000']);
    await ctr.ok('tasks', 'kill', '-s', 'SIGKILL', id);
    await eventually('it ended', async () => (await ctr.task(id))?.status === 'STOPPED');
    assert.equal((await docker.state('mine')).Status, 'running');
    await Promise.all([ctr.remove(id), ctr.remove('theirs')]);
    assert.equal(await docker.ok('exec', 'mine', 'echo', 'here'), 'here');
    await docker.remove('mine');
  });
});
