/** `docker run`, `exec` and what they print, on Moor as on containerd. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { IMAGE } from './harness/dockerd.ts';
import { dockerSuite } from './harness/peers.ts';
import { eventually } from './harness/wait.ts';

dockerSuite('docker run', {}, (rig) => {
  it('in the foreground: both streams, the exit code, and nothing is left of --rm', async () => {
    const { docker } = rig;
    const outcome = await docker.call(['run', '--rm', IMAGE, 'sh', '-c', 'echo out; echo err >&2; exit 7']);
    assert.deepEqual([outcome.code, outcome.stdout, outcome.stderr], [7, 'out\n', 'err\n']);
    await eventually('it is removed', async () => (await docker.ok('ps', '-aq')) === '');
  });

  it('stdin reaches the container, and so does its end', async () => {
    const { docker } = rig;
    const input = 'a line of text\n'.repeat(20_000);
    const outcome = await docker.call(['run', '--rm', '-i', IMAGE, 'md5sum'], { input });
    const expected = await docker.call(['run', '--rm', '-i', IMAGE, 'sh', '-c', 'wc -c; exit 4'], { input });
    assert.match(outcome.stdout, /^[0-9a-f]{32} {2}-\n$/);
    assert.deepEqual([outcome.code, expected.stdout, expected.code], [0, `${input.length}\n`, 4]);
  });

  it('more output than pipes hold arrives whole', async () => {
    const lines = 200_000;
    const { stdout, code } = await rig.docker.call(['run', '--rm', IMAGE, 'seq', '1', `${lines}`]);
    assert.equal(code, 0);
    assert.ok(stdout.startsWith('1\n2\n3\n') && stdout.endsWith(`\n${lines}\n`));
    assert.equal(stdout.split('\n').length, lines + 1);
  });

  it('a command that cannot be run: 127 and 126, with the reason', async () => {
    const { docker } = rig;
    const missing = await docker.call(['run', '--rm', IMAGE, 'nope']);
    assert.equal(missing.code, 127);
    assert.match(
      missing.stderr,
      /OCI runtime create failed: .*exec: "nope": executable file not found in \$PATH/,
    );
    const directory = await docker.call(['run', '--rm', IMAGE, '/etc']);
    assert.equal(directory.code, 126);
    assert.match(directory.stderr, /permission denied/);
    await eventually('both are removed', async () => (await docker.ok('ps', '-aq')) === '');
  });

  it('a signal that ends the container is in its exit code', async () => {
    const { docker } = rig;
    // The first process of a PID namespace would not be hurt by it.
    const faulty = ['run', '--rm', '--pid=host', IMAGE, 'sh', '-c', 'kill -SEGV $$'];
    assert.equal((await docker.call(faulty)).code, 139);
    await docker.run('struck', 'sleep 1000');
    await docker.ok('kill', 'struck');
    assert.equal((await docker.reaches('struck', 'exited')).ExitCode, 137);
    await docker.remove('struck');
  });

  it('on a terminal: its size, a change of its size, what is typed, and ^C', async () => {
    const { docker } = rig;
    const terminal = docker.terminal(['run', '--rm', '-it', '--name', 'tty', IMAGE, 'sh'], {
      cols: 91,
      rows: 31,
    });
    await terminal.sees(/# /);
    await eventually('the size arrives', async () => {
      const { stdout } = await docker.call(['exec', 'tty', 'sh', '-c', 'stty size < /dev/pts/0']);
      return stdout === '31 91\n';
    });
    terminal.resize(70, 20);
    await eventually('the new size arrives', async () => {
      const { stdout } = await docker.call(['exec', 'tty', 'sh', '-c', 'stty size < /dev/pts/0']);
      return stdout === '20 70\n';
    });
    terminal.type('sleep 1000\r');
    await eventually('it sleeps', async () => /sleep 1000/.test(await docker.ok('top', 'tty')));
    terminal.type('\x03');
    terminal.type('echo said-$((40+2)); exit 9\r');
    await terminal.sees(/said-42/);
    assert.equal(await terminal.exited(), 9);
  });

  it('detached: attach sees it and its end, and the keys ^P^Q leave it running', async () => {
    const { docker } = rig;
    await docker.ok('run', '-dit', '--name', 'seen', IMAGE, 'sh');
    const first = docker.terminal(['attach', 'seen']);
    await eventually('the shell answers', () => {
      first.type('echo at-$((1+1))\r');
      return /at-2/.test(first.shown);
    });
    first.type('\x10\x11');
    await first.exited();
    assert.equal((await docker.state('seen')).Status, 'running');
    const second = docker.terminal(['attach', 'seen']);
    await eventually('the shell answers again', () => {
      second.type('echo at-$((2+2))\r');
      return /at-4/.test(second.shown);
    });
    second.type('exit 3\r');
    assert.equal(await second.exited(), 3);
    await docker.remove('seen');
  });

  it('exec: streams, exit codes, stdin, user, directory and environment', async () => {
    const { docker } = rig;
    await docker.run('host', 'sleep 1000');
    const both = await docker.call(['exec', 'host', 'sh', '-c', 'echo out; echo err >&2; exit 5']);
    assert.deepEqual([both.code, both.stdout, both.stderr], [5, 'out\n', 'err\n']);
    const fed = await docker.call(['exec', '-i', 'host', 'cat'], { input: 'fed\n' });
    assert.deepEqual([fed.code, fed.stdout], [0, 'fed\n']);
    const flags = ['-u', '99:98', '-w', '/tmp', '-e', 'A=b'];
    const { stdout } = await docker.call([
      'exec',
      ...flags,
      'host',
      'sh',
      '-c',
      'id -u; id -g; pwd; echo $A',
    ]);
    assert.equal(stdout, '99\n98\n/tmp\nb\n');
    const missing = await docker.call(['exec', 'host', 'nope']);
    assert.equal(missing.code, 126);
    assert.match(missing.stdout + missing.stderr, /"nope": executable file not found in \$PATH/);
    await docker.remove('host');
  });

  it('exec on a terminal and detached; an exec ends with its container', async () => {
    const { docker } = rig;
    await docker.run('guest', 'sleep 1000');
    const terminal = docker.terminal([
      'exec',
      '-it',
      'guest',
      'sh',
      '-c',
      'tty; read line; echo got $line; exit 6',
    ]);
    await terminal.sees(/\/dev\/pts\/\d/);
    terminal.type('this\r');
    await terminal.sees(/got this/);
    assert.equal(await terminal.exited(), 6);
    await docker.ok('exec', '-d', 'guest', 'sh', '-c', 'sleep 777');
    await eventually('the detached one runs', async () => /sleep 777/.test(await docker.ok('top', 'guest')));
    const lasting = docker.call(['exec', 'guest', 'sleep', '1000']);
    await eventually(
      'the other runs',
      async () => (await docker.ok('top', 'guest')).match(/sleep 1000/g)?.length === 2,
    );
    await docker.ok('kill', 'guest');
    assert.equal((await lasting).code, 137);
    await docker.remove('guest');
  });

  it('logs: both streams, the last lines, and following to the end', async () => {
    const { docker } = rig;
    const script = 'i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo $i; done; echo e >&2; ';
    await docker.run('told', `${script} ${docker.waitFor('more')}; echo last`);
    await eventually('it has printed', async () => (await docker.ok('logs', 'told')).endsWith('50'));
    await eventually(
      'both streams are kept',
      async () => (await docker.call(['logs', 'told'])).stderr === 'e\n',
    );
    const lastLines = await docker.call(['logs', '--tail', '3', 'told']);
    assert.equal((lastLines.stdout + lastLines.stderr).match(/\n/g)?.length, 3);
    const following = docker.call(['logs', '-f', 'told']);
    docker.open('more');
    const { stdout, stderr } = await following;
    assert.equal(stdout.split('\n').length, 52);
    assert.ok(stdout.endsWith('50\nlast\n'));
    assert.equal(stderr, 'e\n');
    await docker.remove('told');
  });

  it('--init reaps the orphans and passes signals on', async () => {
    const { docker } = rig;
    await docker.run('kept', '(sleep 0.1 &); trap "exit 12" TERM; while :; do sleep 0.05; done', '--init');
    await eventually('init is the first process', async () =>
      /docker-init/.test(await docker.ok('exec', 'kept', 'cat', '/proc/1/cmdline')),
    );
    await docker.ok('stop', '-t', '20', 'kept');
    assert.equal((await docker.state('kept')).ExitCode, 12);
    await docker.remove('kept');
  });
});
