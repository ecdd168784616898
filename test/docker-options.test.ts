/** Settings of dockerd that reach Moor as options of the runtime: each has its effect, or a clear error. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { Dockerd, IMAGE } from './harness/dockerd.ts';
import { dockerSuite } from './harness/peers.ts';
import { processOf, commandLine } from './harness/processes.ts';

const folder = mkdtempSync(join(tmpdir(), 'runtime-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const wrapper = join(folder, 'wrapper');
const calls = join(folder, 'calls');
writeFileSync(wrapper, `#!/bin/sh\necho "$@" >> ${calls}\nexec runc "$@"\n`, { mode: 0o755 });

const flags = [`--add-runtime=wrapped=${wrapper}`, '--init', '--log-opt=max-size=4k', '--log-opt=max-file=2'];

dockerSuite("dockerd's options", { peers: ['moord'], flags }, (rig) => {
  it('a runtime by name is the program that is run, and its state is where dockerd says', async () => {
    const { docker } = rig;
    const id = await docker.ok(
      'run',
      '-d',
      '--runtime',
      'wrapped',
      '--name',
      'wrapped',
      IMAGE,
      'sleep',
      '1000',
    );
    assert.equal(await docker.ok('exec', 'wrapped', 'echo', 'here'), 'here');
    await docker.remove('wrapped');
    const said = readFileSync(calls, 'utf8');
    for (const command of ['create', 'start', 'exec', 'delete'])
      assert.match(said, new RegExp(`\\b${command}\\b`));
    const root = /--root (\S+)/.exec(said)?.[1] ?? assert.fail(said);
    assert.ok(root.startsWith(`${docker.directory}/exec/`), root);
    assert.ok(!existsSync(join(root, id)));
  });

  it('a runtime can be named by its type; that of the first generation is the same', async () => {
    const { docker } = rig;
    for (const runtime of ['io.containerd.runc.v2', 'io.containerd.runtime.v1.linux']) {
      const outcome = await docker.call(['run', '--rm', '--runtime', runtime, IMAGE, 'echo', 'ran']);
      assert.equal(outcome.stdout, 'ran\n', outcome.stderr);
    }
  });

  it("--init for all containers; a user's process can open its /dev/stdout again", async () => {
    const { docker } = rig;
    const script = 'echo out > /dev/stdout; echo err > /dev/stderr; cat /proc/1/comm';
    const outcome = await docker.call(['run', '--rm', '-u', '1234', IMAGE, 'sh', '-c', script]);
    assert.deepEqual([outcome.code, outcome.stdout, outcome.stderr], [0, 'out\ndocker-init\n', 'err\n']);
  });

  it('the shim is nobody of the container: its limits and its death by memory do not reach it', async () => {
    const { docker } = rig;
    const id = await docker.run('limited', 'sleep 1000', '--memory', '16m');
    const { Pid: pid } = await docker.state('limited');
    const shim = processOf(pid)?.parent ?? 0;
    assert.match(commandLine(shim), /shim/);
    assert.doesNotMatch(readFileSync(`/proc/${shim}/cgroup`, 'utf8'), new RegExp(id));
    await docker.remove('limited');
  });

  it('cgroups of systemd, where it does not run, are refused with the reason', async () => {
    await using docker = await Dockerd.start(rig.daemon, {
      flags: ['--exec-opt=native.cgroupdriver=systemd', '--cgroup-parent=m.slice'],
    });
    const outcome = await docker.call(['run', '--rm', IMAGE, 'true']);
    assert.notEqual(outcome.code, 0);
    assert.match(outcome.stderr, /systemd/);
  });
});
