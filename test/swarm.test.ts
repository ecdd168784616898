/** Docker Swarm schedules services onto Moor, and goes on with them when Moor is killed. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { IMAGE } from './harness/dockerd.ts';
import { dockerSuite } from './harness/peers.ts';
import { alive } from './harness/processes.ts';
import { eventually } from './harness/wait.ts';

/** Swarm looks every few seconds, and pulls, checks and starts one after the other: patience on a busy machine. */
const patience = { within: 90_000 };

dockerSuite('docker swarm', { peers: ['moord'], timeout: 400_000 }, (rig) => {
  /** Ids of the running containers of a service. */
  const containers = async (service: string): Promise<string[]> => {
    const filter = `label=com.docker.swarm.service.name=${service}`;
    const { stdout } = await rig.docker.call(['ps', '-q', '--no-trunc', '--filter', filter]);
    return stdout.split('\n').filter((id) => id !== '');
  };
  const runs = (service: string, count: number): Promise<string[]> =>
    eventually(
      `${count} of ${service} run`,
      async () => {
        const ids = await containers(service);
        if (ids.length !== count) throw new Error(`${ids.length} of ${service} run`);
        return ids;
      },
      patience,
    );
  const word = (id: string) => rig.docker.ok('exec', id, 'sh', '-c', 'echo $WORD');

  it('init makes a manager of one node', async () => {
    const { docker } = rig;
    await docker.ok('swarm', 'init', '--advertise-addr', '127.0.0.1', '--listen-addr', '127.0.0.1:2377');
    assert.match(await docker.ok('node', 'ls', '--format', '{{.Status}} {{.ManagerStatus}}'), /Ready Leader/);
  });

  it('a service runs and scales', async () => {
    const { docker } = rig;
    const settings = [
      '--stop-grace-period',
      '0s',
      '--restart-delay',
      '100ms',
      '--update-delay',
      '0s',
      '--update-monitor',
      '100ms',
    ];
    const container = [
      '--network',
      'host',
      '--env',
      'WORD=one',
      '--no-resolve-image',
      IMAGE,
      'sleep',
      '100000',
    ];
    await docker.ok('service', 'create', '-d', '--name', 'web', '--replicas', '3', ...settings, ...container);
    const first = await runs('web', 3);
    await docker.ok('service', 'scale', '-d', 'web=10');
    const ten = await runs('web', 10);
    for (const id of first) assert.ok(ten.includes(id), 'those that ran run on');
  });

  it('what is killed is replaced, also while Moor is killed and comes back', async () => {
    const { docker, daemon } = rig;
    const [one, two, ...others] = (await runs('web', 10)) as [string, string, ...string[]];
    const replaced = (id: string) =>
      eventually('it is replaced', async () => !(await containers('web')).includes(id), patience);
    process.kill((await docker.state(one)).Pid, 'SIGKILL');
    await replaced(one);
    await runs('web', 10);
    const { Pid: pid } = await docker.state(two);
    await daemon.kill9();
    process.kill(pid, 'SIGKILL');
    await eventually('it ends', () => !alive(pid));
    await daemon.start();
    await replaced(two);
    const again = await runs('web', 10);
    for (const id of others) assert.ok(again.includes(id), 'the others are left alone');
  });

  it('an update rolls over all while Moor is killed', async () => {
    const { docker, daemon } = rig;
    await docker.ok('service', 'scale', '-d', 'web=4');
    const before = await runs('web', 4);
    await docker.ok('service', 'update', '-d', '--env-add', 'WORD=two', '--no-resolve-image', 'web');
    await eventually(
      'it has begun',
      async () => (await containers('web')).some((id) => !before.includes(id)),
      patience,
    );
    await daemon.restart();
    const reached = async () => {
      const words = await Promise.all((await containers('web')).map(word));
      if (words.length === 4 && words.every((said) => said === 'two')) return true;
      throw new Error(words.join(' '));
    };
    await eventually('the update has reached all', reached, patience);
  });

  it('a network of the swarm joins services, and a port is published', async () => {
    const { docker } = rig;
    await docker.ok('network', 'create', '-d', 'overlay', '--attachable', 'mesh');
    const server = 'mkdir /w; echo served > /w/index.html; exec httpd -f -p 80 -h /w';
    // Without the kernel's IPVS there are no virtual addresses: names resolve to the tasks themselves.
    const network = ['--network', 'mesh', '--endpoint-mode', 'dnsrr'];
    const port = ['--publish', 'mode=host,target=80,published=8090', '--stop-grace-period', '0s'];
    const container = ['--no-resolve-image', IMAGE, 'sh', '-c', server];
    await docker.ok('service', 'create', '-d', '--name', 'api', ...network, ...port, ...container);
    await runs('api', 1);
    const ask = () => docker.call(['run', '--rm', '--network', 'mesh', IMAGE, 'wget', '-qO-', 'http://api/']);
    await eventually('it is found by its name', async () => (await ask()).stdout === 'served\n', patience);
    const { stdout } = await docker.inNetwork('curl', '-sS', '--max-time', '5', 'http://127.0.0.1:8090/');
    assert.equal(stdout, 'served\n');
    await docker.ok('service', 'rm', 'api');
    await runs('api', 0);
  });

  it('scaled to nothing, and the swarm left: no task remains', async () => {
    const { docker, daemon } = rig;
    await docker.ok('service', 'scale', '-d', 'web=0');
    await runs('web', 0);
    await docker.ok('service', 'rm', 'web');
    await docker.ok('swarm', 'leave', '--force');
    await eventually('no task is left', async () => (await daemon.ctr('moby').tasks()).size === 0, patience);
  });
});
