/** Containers of dockerd live through kill -9 of Moor, of dockerd, and of both; nothing that happens meanwhile is lost. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { pidsIn } from './harness/cgroups.ts';
import { IMAGE } from './harness/dockerd.ts';
import { dockerSuite } from './harness/peers.ts';
import { alive } from './harness/processes.ts';
import { eventually } from './harness/wait.ts';

type Victims = readonly ('Moor' | 'dockerd')[];

dockerSuite('docker when daemons are killed', { peers: ['moord'], liveRestore: true }, (rig) => {
  const kill = async (victims: Victims) => {
    if (victims.includes('dockerd')) await rig.docker.kill9();
    if (victims.includes('Moor')) await rig.daemon.kill9();
  };
  const startAgain = async (victims: Victims) => {
    if (victims.includes('Moor')) await rig.daemon.start();
    if (victims.includes('dockerd')) await rig.docker.start();
  };

  const cases: Victims[] = [['Moor'], ['dockerd'], ['dockerd', 'Moor']];
  for (const victims of cases) {
    const name = victims.join(' and ');
    const tag = victims.join('-').toLowerCase();

    it(`kill -9 of ${name}: containers run on, logs have no gap, and ends are known`, async () => {
      const { docker } = rig;
      const counter = `${tag}-counter`;
      const leaver = `${tag}-leaver`;
      const iced = `${tag}-iced`;
      await docker.run(counter, 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done');
      await docker.run(leaver, `echo begin; ${docker.waitFor(tag)}; echo end; exit 42`);
      await docker.run(iced, 'sleep 1000');
      await docker.ok('pause', iced);
      const { Pid: running } = await docker.state(counter);
      const { Pid: leaving } = await docker.state(leaver);
      const counted = async () => (await docker.ok('logs', counter)).split('\n').map(Number);
      await eventually('it counts', async () => (await counted()).length > 5);

      await kill(victims);
      assert.ok(alive(running), 'the container runs while nobody watches');
      docker.open(tag);
      await eventually('the other ends', () => !alive(leaving));
      await startAgain(victims);

      assert.equal((await docker.state(counter)).Pid, running);
      const left = await docker.reaches(leaver, 'exited');
      assert.equal(left.ExitCode, 42);
      assert.equal(await docker.ok('logs', leaver), 'begin\nend');
      assert.equal((await docker.state(iced)).Status, 'paused');
      const listed = await docker.ok('ps', '-a', '--format', '{{.Names}} {{.Status}}');
      assert.match(listed, new RegExp(`${counter} Up`));
      assert.match(listed, new RegExp(`${iced} Up .*Paused`));
      assert.match(listed, new RegExp(`${leaver} Exited \\(42\\)`));

      const before = (await counted()).length;
      await eventually('the logs go on', async () => (await counted()).length > before + 5);
      const numbers = await counted();
      assert.deepEqual(
        numbers,
        numbers.map((_, index) => index + 1),
        'no line is missing or doubled',
      );

      assert.equal((await docker.call(['exec', counter, 'sh', '-c', 'exit 8'])).code, 8);
      await docker.ok('unpause', iced);
      await docker.ok('stop', '-t', '0', iced);
      const waiting = docker.ok('wait', counter);
      await docker.ok('kill', counter);
      assert.equal(await waiting, '137');
      await docker.ok('start', leaver);
      assert.equal(await docker.ok('wait', leaver), '42');
      await docker.remove(counter, leaver, iced);
    });
  }

  it('clients that follow a container go on when Moor is killed: run, attach, exec, logs -f', async () => {
    const { docker, daemon } = rig;
    const script = `echo begin; ${docker.waitFor('followed')}; echo end; exit 7`;
    const shared = ['-v', `${docker.shared}:/shared`];
    const run = docker.call(['run', '--name', 'followed', ...shared, IMAGE, 'sh', '-c', script]);
    await eventually('it runs', async () => (await docker.call(['logs', 'followed'])).stdout === 'begin\n');
    const exec = docker.call([
      'exec',
      'followed',
      'sh',
      '-c',
      `${docker.waitFor('followed')}; echo exec; exit 6`,
    ]);
    const logs = docker.call(['logs', '-f', 'followed']);
    await eventually(
      'the exec runs',
      async () => (await docker.ok('top', 'followed')).split('\n').length > 3,
    );
    await daemon.restart();
    docker.open('followed');
    const [ran, followed] = [await run, await logs];
    assert.deepEqual([ran.code, ran.stdout], [7, 'begin\nend\n']);
    assert.equal(followed.stdout, 'begin\nend\n');
    const { code } = await exec;
    // It ends with the container or before it; its start can have been cut off, which dockerd tells as 126.
    assert.ok([6, 126, 137].includes(code), `${code}`);
    await docker.remove('followed');
  });

  it('a container that is to restart does so while Moor comes and goes', async () => {
    const { docker, daemon } = rig;
    await docker.run('phoenix', 'sleep 1000', '--restart', 'always');
    const { Pid: first } = await docker.state('phoenix');
    await daemon.kill9();
    process.kill(first, 'SIGKILL');
    await eventually('it ends', () => !alive(first));
    await daemon.start();
    const second = await eventually('it is up again', async () => {
      const { Status: status, Pid: pid } = await docker.state('phoenix');
      return status === 'running' && pid !== first && pid;
    });
    assert.ok(alive(second));
    await docker.remove('phoenix');
  });

  it('again and again in the middle of everything: docker ps and the host agree in the end', async () => {
    const { docker, daemon } = rig;
    const names = Array.from({ length: 8 }, (_, index) => `churn-${index}`);
    const churn = names.map(async (name, index) => {
      await docker.call(['run', '-d', '--name', name, IMAGE, 'sleep', '1000']);
      if (index % 2 === 0) await docker.call(['kill', name]);
      if (index % 4 === 0) await docker.call(['start', name]);
    });
    for (let round = 0; round < 3; round += 1) await daemon.restart();
    await Promise.all(churn);
    // What was cut off may have failed; what is said to run runs, and everything can be removed.
    for (const name of names) {
      const inspected = await docker.call(['inspect', '-f', '{{.State.Status}} {{.State.Pid}}', name]);
      if (inspected.code !== 0) continue;
      const [status, pid] = inspected.stdout.trim().split(' ');
      assert.equal(alive(Number(pid)), status === 'running', `${name} ${inspected.stdout}`);
      await docker.remove(name);
    }
    assert.equal(await docker.ok('ps', '-aq', '--filter', 'name=churn'), '');
    // Its own record of a container that it could not start dockerd does not remove when the daemon is away just then.
    const moby = daemon.ctr('moby');
    await eventually('no task and no process is left', async () => {
      const left = [...(await moby.tasks()).values(), ...pidsIn(docker.cgroup)];
      if (left.length > 0) throw new Error(JSON.stringify(left));
      return true;
    });
  });
});
