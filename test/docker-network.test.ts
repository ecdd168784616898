/** Containers of dockerd on networks, through Moor: namespaces that dockerd makes and the runtime joins. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { IMAGE } from './harness/dockerd.ts';
import { dockerSuite } from './harness/peers.ts';
import { eventually } from './harness/wait.ts';

/** A web server that answers with the container's own name. */
const SERVER = 'mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w';

dockerSuite('docker networks', { peers: ['moord'], liveRestore: true }, (rig) => {
  const fetched = async (url: string) => {
    const { code, stdout } = await rig.docker.inNetwork('curl', '-sS', '--max-time', '5', url);
    return code === 0 ? stdout.trim() : undefined;
  };

  it('the default bridge: a published port is reached, and goes with the container', async () => {
    const { docker } = rig;
    const published = ['-p', '127.0.0.1:8080:80', '-p', '8081:80', '-h', 'web'];
    await docker.run('web', SERVER, ...published);
    assert.match(await docker.ok('port', 'web', '80'), /127\.0\.0\.1:8080/);
    for (const port of [8080, 8081])
      await eventually(
        `port ${port} answers`,
        async () => (await fetched(`http://127.0.0.1:${port}/`)) === 'web',
      );
    const address = await docker.inspect<string>('web', '.NetworkSettings.IPAddress');
    assert.equal(await fetched(`http://${address}/`), 'web');
    assert.equal(await docker.ok('run', '--rm', IMAGE, 'wget', '-qO-', `http://${address}/`), 'web');
    await docker.remove('web');
    assert.equal(await fetched('http://127.0.0.1:8080/'), undefined);
  });

  it('the port is reached while Moor is dead, and after dockerd and Moor were', async () => {
    const { docker, daemon } = rig;
    await docker.run('web', SERVER, '-p', '8082:80', '-h', 'web');
    const answers = () => fetched('http://127.0.0.1:8082/');
    await eventually('it answers', async () => (await answers()) === 'web');
    await daemon.kill9();
    assert.equal(await answers(), 'web');
    await docker.kill9();
    await daemon.start();
    await docker.start();
    await eventually('it answers again', async () => (await answers()) === 'web');
    assert.match(await docker.ok('port', 'web'), /80\/tcp -> 0\.0\.0\.0:8082/);
    await docker.remove('web');
  });

  it("none has the loopback alone, host has dockerd's own network", async () => {
    const { docker } = rig;
    assert.equal(await docker.ok('run', '--rm', '--network', 'none', IMAGE, 'ls', '/sys/class/net'), 'lo');
    const { stdout } = await docker.inNetwork('readlink', '/proc/self/ns/net');
    const own = await docker.ok('run', '--rm', '--network', 'host', IMAGE, 'readlink', '/proc/self/ns/net');
    assert.equal(own, stdout.trim());
  });

  it('a network of their own: containers find each other by name, join it and leave it', async () => {
    const { docker } = rig;
    await docker.ok('network', 'create', '--subnet', '10.77.0.0/24', 'own');
    await docker.run('named', SERVER, '--network', 'own', '--ip', '10.77.0.9', '-h', 'named');
    const ask = () =>
      docker.call(['run', '--rm', '--network', 'own', IMAGE, 'wget', '-qO-', 'http://named/']);
    await eventually('it is found', async () => (await ask()).stdout === 'named\n');
    await docker.run('guest', 'sleep 1000');
    const addresses = () => docker.ok('exec', 'guest', 'ip', '-4', 'addr');
    assert.doesNotMatch(await addresses(), /10\.77\.0\./);
    await docker.ok('network', 'connect', 'own', 'guest');
    assert.match(await addresses(), /10\.77\.0\./);
    assert.equal(await docker.ok('exec', 'guest', 'wget', '-qO-', 'http://named/'), 'named');
    await docker.ok('network', 'disconnect', 'own', 'guest');
    assert.doesNotMatch(await addresses(), /10\.77\.0\./);
    await docker.remove('named', 'guest');
    await docker.ok('network', 'rm', 'own');
  });

  it('a container shares the network of another, which it outlives', async () => {
    const { docker } = rig;
    await docker.run('first', SERVER, '-h', 'first');
    await docker.run('second', 'sleep 1000', '--network', 'container:first');
    await eventually('one serves the other', async () => {
      const { stdout } = await docker.call(['exec', 'second', 'wget', '-qO-', 'http://127.0.0.1/']);
      return stdout === 'first\n';
    });
    await docker.remove('first');
    assert.equal((await docker.state('second')).Status, 'running');
    await docker.remove('second');
  });
});
