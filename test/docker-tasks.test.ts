/** What dockerd does to running containers: signals, stops, pauses, limits, measurements, restarts, health. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { dockerSuite } from './harness/peers.ts';
import { processOf } from './harness/processes.ts';
import { eventually } from './harness/wait.ts';

dockerSuite('docker and a running container', { peers: ['moord'] }, (rig) => {
  const cgroupFile = (id: string, controller: string, file: string) =>
    readFileSync(`/sys/fs/cgroup/${controller}/${rig.docker.cgroup}/${id}/${file}`, 'utf8').trim();

  it('kill sends the signal that was asked for', async () => {
    const { docker } = rig;
    await docker.run(
      'hears',
      'trap "echo usr1" USR1; trap "exit 33" HUP; echo up; while :; do sleep 0.02; done',
    );
    await eventually('the traps are set', async () => (await docker.ok('logs', 'hears')) === 'up');
    await docker.ok('kill', '-s', 'USR1', 'hears');
    await eventually('it heard', async () => (await docker.ok('logs', 'hears')) === 'up\nusr1');
    await docker.ok('kill', '-s', '1', 'hears');
    assert.equal((await docker.reaches('hears', 'exited')).ExitCode, 33);
    const again = await docker.call(['kill', 'hears']);
    assert.match(again.stderr, /is not running/);
    await docker.remove('hears');
  });

  it('stop waits for the process, and kills it when its time is over; wait tells the code', async () => {
    const { docker } = rig;
    await docker.run('polite', 'trap "sleep 0.2; exit 21" TERM; echo up; while :; do sleep 0.02; done');
    await docker.run('deaf', 'trap "" TERM; echo up; while :; do sleep 0.02; done');
    for (const name of ['polite', 'deaf'])
      await eventually(`${name} is up`, async () => (await docker.ok('logs', name)) === 'up');
    const waited = docker.ok('wait', 'polite', 'deaf');
    await docker.ok('stop', '-t', '30', 'polite');
    await docker.ok('stop', '-t', '1', 'deaf');
    assert.equal(await waited, '21\n137');
    await docker.ok('start', 'polite');
    assert.equal((await docker.state('polite')).Status, 'running');
    const { Pid: before } = await docker.state('polite');
    await docker.ok('restart', '-t', '0', 'polite');
    assert.notEqual((await docker.state('polite')).Pid, before);
    await docker.remove('polite', 'deaf');
  });

  it('pause freezes every process, unpause lets them go on', async () => {
    const { docker } = rig;
    const id = await docker.run('iced', 'while :; do sleep 0.02; done');
    await docker.ok('pause', 'iced');
    assert.equal((await docker.state('iced')).Status, 'paused');
    assert.equal(cgroupFile(id, 'freezer', 'freezer.state'), 'FROZEN');
    assert.match((await docker.call(['exec', 'iced', 'true'])).stderr, /is paused/);
    assert.match(await docker.ok('ps'), /\(Paused\)/);
    await docker.ok('unpause', 'iced');
    assert.equal((await docker.call(['exec', 'iced', 'true'])).code, 0);
    await docker.ok('pause', 'iced');
    await docker.remove('iced');
  });

  it('update changes the limits of a running container', async () => {
    const { docker } = rig;
    const id = await docker.run('grows', 'sleep 1000', '--memory', '64m', '--memory-swap', '64m');
    assert.equal(cgroupFile(id, 'memory', 'memory.limit_in_bytes'), String(64 << 20));
    await docker.ok(
      'update',
      '--memory',
      '96m',
      '--memory-swap',
      '96m',
      '--cpus',
      '0.5',
      '--pids-limit',
      '33',
      'grows',
    );
    assert.equal(cgroupFile(id, 'memory', 'memory.limit_in_bytes'), String(96 << 20));
    assert.equal(cgroupFile(id, 'cpu', 'cpu.cfs_quota_us'), '50000');
    assert.equal(cgroupFile(id, 'pids', 'pids.max'), '33');
    await docker.ok('update', '--cpu-shares', '512', '--cpuset-cpus', '0', 'grows');
    assert.equal(cgroupFile(id, 'cpu', 'cpu.shares'), '512');
    assert.equal(cgroupFile(id, 'cpuset', 'cpuset.cpus'), '0');
    const refused = await docker.call(['update', '--cpuset-cpus', '4000', 'grows']);
    assert.notEqual(refused.code, 0);
    await docker.remove('grows');
  });

  it('out of memory: OOMKilled is true, and only of those it happened to', async () => {
    const { docker } = rig;
    const small = ['--memory', '16m', '--memory-swap', '16m'];
    const greed = 'dd if=/dev/zero of=/dev/null bs=64M count=1';
    await docker.run('greedy', `exec ${greed}`, ...small);
    await docker.run('modest', 'exit 137', ...small);
    const greedy = await docker.reaches('greedy', 'exited');
    assert.deepEqual([greedy.OOMKilled, greedy.ExitCode], [true, 137]);
    assert.equal((await docker.reaches('modest', 'exited')).OOMKilled, false);
    // The container outlives a child that is killed, and an exec that is.
    await docker.run('parent', `${greed}; echo child: $?; sleep 1000`, ...small);
    await eventually('the child was killed', async () =>
      /child: 137/.test(await docker.ok('logs', 'parent')),
    );
    assert.equal((await docker.state('parent')).Status, 'running');
    assert.equal((await docker.call(['exec', 'parent', 'sh', '-c', `exec ${greed}`])).code, 137);
    await docker.remove('greedy', 'modest', 'parent');
  });

  it('top and stats tell what is', async () => {
    const { docker } = rig;
    await docker.run('busy', 'sleep 1000 & while :; do :; done', '--memory', '100m', '--cpus', '0.2');
    const { Pid: pid } = await docker.state('busy');
    const [title, ...rows] = (await docker.ok('top', 'busy', '-o', 'pid,ppid,args')).split('\n');
    assert.match(title ?? '', /PID +PPID +COMMAND/);
    assert.equal(rows.length, 2);
    assert.match(rows[0] ?? '', new RegExp(`^${pid} +${processOf(pid)?.parent} `));
    const format = '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}} {{.NetIO}}';
    const told = await docker.ok('stats', '--no-stream', '--format', format, 'busy');
    const [, cpu = '', , limit = '', pids = ''] =
      /^([\d.]+)% (\S+) \/ (\S+) (\d+) \S+ \/ \S+$/.exec(told) ?? assert.fail(told);
    assert.ok(Number(cpu) > 1 && Number(cpu) < 60, told);
    assert.deepEqual([limit, pids], ['100MiB', '2']);
    await docker.remove('busy');
  });

  it('restart policies: so many times on failure, always until it is stopped', async () => {
    const { docker } = rig;
    await docker.run('fails', 'echo once >> /shared/fails; exit 4', '--restart', 'on-failure:3');
    await eventually('it has given up', async () => {
      const { Status: status } = await docker.state('fails');
      return status === 'exited' && (await docker.inspect<number>('fails', '.RestartCount')) === 3;
    });
    assert.equal(readFileSync(`${docker.shared}/fails`, 'utf8'), 'once\n'.repeat(4));
    assert.equal((await docker.state('fails')).ExitCode, 4);
    await docker.run('lasts', 'sleep 1000', '--restart', 'always');
    const { Pid: before } = await docker.state('lasts');
    process.kill(before, 'SIGKILL');
    await eventually('it is back', async () => {
      const { Status: status, Pid: pid } = await docker.state('lasts');
      return status === 'running' && pid !== before;
    });
    await docker.ok('stop', '-t', '0', 'lasts');
    assert.equal((await docker.state('lasts')).Status, 'exited');
    await docker.remove('fails', 'lasts');
  });

  it('health checks are run, and seen to fail', async () => {
    const { docker } = rig;
    const check = [
      '--health-cmd',
      'test ! -e /shared/ill',
      '--health-interval',
      '200ms',
      '--health-retries',
      '2',
    ];
    await docker.run('patient', 'sleep 1000', ...check);
    const health = async () => (await docker.state('patient')).Health?.Status;
    await eventually('it is well', async () => (await health()) === 'healthy');
    docker.open('ill');
    await eventually('it is ill', async () => (await health()) === 'unhealthy');
    await docker.remove('patient');
  });

  it('events are told in order, and rename keeps the container', async () => {
    const { docker } = rig;
    const since = String(Date.now() / 1000);
    await docker.run('named', 'sleep 1000');
    await docker.ok('rename', 'named', 'renamed');
    await docker.ok('exec', 'renamed', 'true');
    await docker.ok('kill', 'renamed');
    await docker.reaches('renamed', 'exited');
    await docker.remove('renamed');
    const until = String(Date.now() / 1000);
    const filters = ['--since', since, '--until', until, '--filter', 'type=container'];
    const told = (await docker.ok('events', ...filters, '--format', '{{.Action}}')).split('\n');
    const actions = told.map((action) => action.replace(/: .*/, '')).filter((action) => action !== 'attach');
    const expected = 'create start rename exec_create exec_start exec_die kill die destroy'.split(' ');
    assert.deepEqual(
      actions.filter((action) => expected.includes(action)),
      expected,
    );
  });

  it('twenty at once: all start, all are told of their end', async () => {
    const { docker } = rig;
    const names = Array.from({ length: 20 }, (_, index) => `many-${index}`);
    await Promise.all(names.map((name, code) => docker.run(name, `${docker.waitFor('all')}; exit ${code}`)));
    assert.equal((await docker.ok('ps', '-q')).split('\n').length, 20);
    docker.open('all');
    assert.equal(await docker.ok('wait', ...names), names.map((_, code) => code).join('\n'));
    await docker.remove(...names);
  });
});
