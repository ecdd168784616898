import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { type Client, connect } from '../client/client.ts';
import { namespace, Peer, peers } from '../client/peer.test.ts';
import { ctr, moor, outcomeOf, spawnMoor, Terminal } from './moor.test.ts';

for (const name of peers) {
  suite(`moor with ${name}`, { timeout: 180_000 }, () => {
    let peer: Peer;
    let client: Client;
    before(async () => {
      peer = await Peer.start(name);
      client = await connect({ address: peer.address, namespace });
    });
    after(async () => {
      client?.close();
      await peer?.[Symbol.asyncDispose]();
    });

    const fifos = () => ['--fifo-dir', peer.fifoDirectory];
    const run = (args: string[], input?: string) =>
      moor(peer, ['run', '--rm', ...fifos(), '--rootfs', ...args], input);
    const nothingLeft = async () => {
      assert.deepEqual(await client.containers.list(), []);
      assert.deepEqual(await client.tasks(), []);
      assert.deepEqual(peer.fifoDirectories(), []);
    };

    test('run prints what the process prints and exits as it does', async () => {
      const outcome = await run([peer.rootfs, 'a', 'sh', '-c', 'cat; echo err >&2; exit 42'], 'given\n');
      assert.deepEqual(outcome, { status: 42, stdout: 'given\n', stderr: 'err\n' });
      assert.equal((await run([peer.rootfs, 'b', 'sh', '-c', "sh -c 'kill -9 $$'; exit $?"])).status, 137);
      await nothingLeft();
    });

    test('a process that cannot be run is told apart from one that fails', async () => {
      const absent = await run([peer.rootfs, 'a', 'no-such-command']);
      assert.equal(absent.status, 127);
      assert.match(absent.stderr, /^moor: .*exec: "no-such-command": executable file not found/);
      assert.equal((await run([peer.rootfs, 'a', '/etc/passwd'])).status, 126);
      const nowhere = await run(['/no/such/directory', 'a', 'true']);
      assert.equal(nowhere.status, 125);
      assert.match(nowhere.stderr, /no\/such\/directory/);
      assert.equal((await moor(peer, ['run', '--rootfs', peer.rootfs])).status, 125);
      await nothingLeft();
    });

    test('flags shape the container', async () => {
      const script = 'id -u; hostname; pwd; echo $A $B; cat /marker; touch /x 2>/dev/null || echo read-only';
      const flags = [
        '--user',
        'sailor',
        '--hostname',
        'boat',
        '--cwd',
        '/tmp',
        '--env',
        'A=1',
        '--read-only',
      ];
      const more = ['--mount', 'type=bind,src=/etc/hostname,dst=/marker,options=bind:ro', '--env', 'B=2'];
      const { stdout } = await moor(peer, [
        'run',
        '--rm',
        ...fifos(),
        ...flags,
        ...more,
        '--rootfs',
        peer.rootfs,
        'shaped',
        'sh',
        '-c',
        script,
      ]);
      const marker = readFileSync('/etc/hostname', 'utf8');
      assert.equal(stdout, `1000\nboat\n/tmp\n1 2\n${marker}read-only\n`);
    });

    test('a detached container is listed, executed in, signalled and removed', async () => {
      const pidFile = join(peer.directory, 'pid');
      const detached = ['run', '-d', ...fifos(), '--pid-file', pidFile, '--rootfs', peer.rootfs];
      const loop = 'trap "exit 7" TERM; while :; do sleep 0.1; done';
      const started = await moor(peer, [...detached, 'bg', 'sh', '-c', loop]);
      assert.deepEqual(started, { status: 0, stdout: '', stderr: '' });
      const pid = readFileSync(pidFile, 'utf8');
      assert.match((await moor(peer, ['tasks', 'ls'])).stdout, new RegExp(`^bg +${pid} +RUNNING$`, 'm'));
      const json = JSON.parse((await moor(peer, ['t', 'ls', '--format', 'json'])).stdout) as object[];
      assert.deepEqual(json, [{ id: 'bg', pid: Number(pid), status: 'RUNNING', exitStatus: 0 }]);
      const exec = ['task', 'exec', ...fifos(), '--exec-id', 'e1', 'bg', 'sh', '-c', 'cat; exit 5'];
      assert.deepEqual(await moor(peer, exec, 'in\n'), { status: 5, stdout: 'in\n', stderr: '' });
      assert.match((await moor(peer, ['tasks', 'ps', 'bg'])).stdout, new RegExp(`^${pid} +-$`, 'm'));
      const again = await run([peer.rootfs, 'bg', 'true']);
      assert.equal(again.status, 125);
      assert.match(again.stderr, /already exists\nhint: .*containers rm bg\n$/);
      const busy = await moor(peer, ['containers', 'rm', 'bg']);
      assert.equal(busy.status, 1);
      assert.match(busy.stderr, /non stopped container.*\nhint: /);
      assert.equal((await moor(peer, ['tasks', 'pause', 'bg'])).status, 0);
      assert.match((await moor(peer, ['tasks', 'ls'])).stdout, /PAUSED/);
      assert.equal((await moor(peer, ['tasks', 'resume', 'bg'])).status, 0);
      const task = await (await client.containers.get('bg')).task();
      assert.equal((await moor(peer, ['tasks', 'kill', 'bg'])).status, 0);
      assert.equal((await task.wait()).code, 7);
      assert.equal((await moor(peer, ['containers', 'rm', 'bg'])).status, 0);
      await nothingLeft();
    });

    test('create, start and attach', async () => {
      await moor(peer, [
        'c',
        'create',
        '--rootfs',
        peer.rootfs,
        'made',
        'sh',
        '-c',
        'read x; echo got $x; exit 4',
      ]);
      assert.equal((await moor(peer, ['tasks', 'start', '-d', ...fifos(), 'made'])).status, 0);
      const attached = await moor(peer, ['tasks', 'attach', 'made'], 'line\n');
      assert.deepEqual(attached, { status: 4, stdout: 'got line\n', stderr: '' });
      assert.deepEqual(await moor(peer, ['tasks', 'start', ...fifos(), 'made'], 'x\n'), {
        status: 4,
        stdout: 'got x\n',
        stderr: '',
      });
      assert.equal((await moor(peer, ['containers', 'label', 'made', 'a=1', 'b'])).stdout, 'a=1,b=true\n');
      assert.equal((await moor(peer, ['containers', 'delete', 'made'])).status, 0);
      await nothingLeft();
    });

    test('signals reach the process, and three interrupts end one that ignores them', async () => {
      const script = 'trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.1; done';
      const child = spawnMoor(peer, [
        'run',
        '--rm',
        ...fifos(),
        '--rootfs',
        peer.rootfs,
        'sig',
        'sh',
        '-c',
        script,
      ]);
      child.stdout!.once('data', () => child.kill('SIGTERM'));
      assert.equal((await outcomeOf(child)).status, 9);

      const deaf = 'trap "" INT; echo ready; while :; do sleep 0.1; done';
      const stubborn = spawnMoor(peer, [
        'run',
        '--rm',
        ...fifos(),
        '--rootfs',
        peer.rootfs,
        'deaf',
        'sh',
        '-c',
        deaf,
      ]);
      let interrupts = 0;
      let timer: NodeJS.Timeout | undefined;
      // Three, and another where two that came too close were one. What comes after the third ends this command at once.
      const interrupt = () => {
        stubborn.kill('SIGINT');
        interrupts += 1;
        timer = setTimeout(interrupt, interrupts < 3 ? 200 : 15_000);
      };
      stubborn.stdout!.once('data', interrupt);
      assert.equal((await outcomeOf(stubborn)).status, 137);
      clearTimeout(timer);
      assert.ok(interrupts >= 3, `${interrupts} interrupts`);
      await nothingLeft();
    });

    test('a reader that has seen enough ends the process', async () => {
      const child = spawnMoor(peer, [
        'run',
        '--rm',
        ...fifos(),
        '--rootfs',
        peer.rootfs,
        'flood',
        'sh',
        '-c',
        'while :; do echo y; done',
      ]);
      child.stdout!.once('data', () => child.stdout!.destroy());
      const status = await new Promise((done) => child.once('exit', done));
      assert.ok(status === 137 || status === 141, String(status));
      await nothingLeft();
    });

    test('on a terminal: its size, its resizes, its Ctrl-C, and as before afterwards', async () => {
      const script =
        'trap "echo bye; exit 130" INT; tty; stty size; ' +
        'until [ "$(stty size)" = "37 101" ]; do sleep 0.1; done; echo resized; while :; do sleep 0.1; done';
      const terminal = new Terminal(peer, [
        'run',
        '-t',
        '--rm',
        ...fifos(),
        '--rootfs',
        peer.rootfs,
        'tty',
        'sh',
        '-c',
        script,
      ]);
      await terminal.shows(/\/dev\/pts\/\d+\r\n24 80\r\n/);
      terminal.resize(101, 37);
      await terminal.shows(/resized/);
      terminal.write('\x03');
      assert.equal(await terminal.ended, 130);
      assert.match(terminal.shown, /bye\r\n$/);
      assert.doesNotMatch(terminal.shown, /\r\r\n/);
      await nothingLeft();
    });

    test('exec on a terminal', async () => {
      await moor(peer, ['run', '-d', '--null-io', '--rootfs', peer.rootfs, 'host', 'sleep', '100']);
      const terminal = new Terminal(peer, [
        'tasks',
        'exec',
        '-t',
        ...fifos(),
        '--exec-id',
        'x',
        'host',
        'sh',
        '-c',
        'tty; read x; echo got $x; exit 6',
      ]);
      await terminal.shows(/\/dev\/pts/);
      terminal.write('word\r');
      assert.equal(await terminal.ended, 6);
      assert.match(terminal.shown, /got word/);
      assert.equal((await moor(peer, ['tasks', 'rm', '--force', 'host'])).status, 0);
      assert.equal((await moor(peer, ['containers', 'rm', 'host'])).status, 0);
      await nothingLeft();
    });

    test('a container on a terminal is left and attached to again', async () => {
      const script = 'while read line; do echo got $line; done';
      const run = ['run', '-d', '-t', ...fifos(), '--rootfs', peer.rootfs, 'kept', 'sh', '-c', script];
      assert.equal((await moor(peer, run)).status, 0);
      for (const word of ['one', 'two']) {
        const terminal = new Terminal(peer, ['tasks', 'attach', 'kept']);
        // Typed before it is connected, it is typed into the kernel's buffer.
        terminal.write(`${word}\r`);
        await terminal.shows(new RegExp(`got ${word}`));
        terminal.hangUp();
        await terminal.ended;
      }
      assert.equal((await (await client.containers.get('kept')).task()).pid > 0, true);
      assert.equal((await moor(peer, ['tasks', 'rm', '-f', 'kept'])).status, 0);
      assert.equal((await moor(peer, ['containers', 'rm', 'kept'])).status, 0);
      await nothingLeft();
    });

    test('a run outlasts the daemon', async () => {
      const child = spawnMoor(peer, [
        'run',
        '--rm',
        ...fifos(),
        '--rootfs',
        peer.rootfs,
        'moored',
        'sh',
        '-c',
        'echo ready; read x; echo $x; exit 8',
      ]);
      child.stdout!.once('data', () => {
        void (async () => {
          await peer.kill();
          await peer.start();
          child.stdin!.end('on\n');
        })();
      });
      assert.deepEqual(await outcomeOf(child), { status: 8, stdout: 'ready\non\n', stderr: '' });
      await client.ready(10_000);
      await nothingLeft();
    });

    test('events are printed as they happen', async () => {
      const child = spawnMoor(peer, ['events', '--format', 'json', `namespace==${namespace}`]);
      const lines: { topic: string; event: Record<string, unknown> }[] = [];
      const seen = new Promise<void>((done) => {
        let text = '';
        child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
          const complete = text.split('\n');
          text = complete.pop()!;
          lines.push(...complete.map((line) => JSON.parse(line) as (typeof lines)[number]));
          if (lines.some(({ topic }) => topic === '/containers/delete')) done();
        });
      });
      // Nothing tells when the subscription is in place: the first event that comes does.
      const knocking = setInterval(
        () =>
          void client.containers
            .create('knock', { spec: { ociVersion: '1.0.2' } })
            .then((each) => each.delete())
            .catch(() => {}),
        200,
      );
      await seen;
      clearInterval(knocking);
      const from = lines.length;
      await run([peer.rootfs, 'watched', 'sh', '-c', 'exit 3']);
      while (
        !lines
          .slice(from)
          .some(({ topic, event }) => topic === '/containers/delete' && event['id'] === 'watched')
      ) {
        await new Promise((done) => child.stdout!.once('data', done));
      }
      child.kill();
      const tasks = lines.slice(from).filter(({ topic }) => topic.startsWith('/tasks/'));
      assert.deepEqual(
        tasks.map(({ topic }) => topic),
        ['/tasks/create', '/tasks/start', '/tasks/exit', '/tasks/delete'],
      );
      assert.equal(tasks[2]!.event['exit_status'], 3);
    });

    test('namespaces, leases and the daemon are shown', async () => {
      assert.equal((await moor(peer, ['ns', 'create', 'harbour', 'a=1'])).status, 0);
      await moor(peer, ['ns', 'label', 'harbour', 'b=2']);
      assert.match((await moor(peer, ['namespaces', 'ls'])).stdout, /^harbour +a=1,b=2 *$/m);
      assert.equal((await moor(peer, ['ns', 'rm', 'harbour'])).stdout, 'harbour\n');
      assert.equal(
        (await moor(peer, ['leases', 'create', '--id', 'hold', '--expires', '1h'])).stdout,
        'hold\n',
      );
      assert.equal((await moor(peer, ['leases', 'ls', '-q'])).stdout, 'hold\n');
      assert.equal((await moor(peer, ['leases', 'rm', 'hold'])).stdout, 'hold\n');
      assert.match(
        (await moor(peer, ['version'])).stdout,
        /^Client:\n {2}Version: .*\n[^]*Server:\n {2}Version: .+\n/,
      );
      const info = JSON.parse((await moor(peer, ['info', '--format', 'json'])).stdout) as { address: string };
      assert.equal(info.address, peer.address);
      assert.match((await moor(peer, ['plugins', 'ls', '--format', 'table'])).stdout, /│ tasks /);
    });

    test('the shim answers past the daemon', async () => {
      await moor(peer, ['run', '-d', '--null-io', '--rootfs', peer.rootfs, 'direct', 'sleep', '100']);
      const shim = ['shim', '--id', 'direct', '--state', join(peer.directory, 'state'), 'state'];
      await peer.kill();
      const { stdout, stderr } = await moor(peer, shim);
      assert.match(stdout, /"status": "RUNNING"/, stderr);
      await peer.start();
      await client.ready(10_000);
      await using _ = await client.containers.get('direct');
    });

    test('listings are ctr’s to the byte', { skip: !existsSync('/usr/bin/ctr') }, async () => {
      await using container = await client.containers.create('listed', {
        spec: client.spec('listed', { rootfs: peer.rootfs, args: ['sleep', '100'] }),
        labels: { a: '1' },
      });
      const task = await container.createTask({ stdio: 'null' });
      await task.start();
      await using exec = await task.exec({ id: 'nap', args: ['sleep', '100'], stdio: 'null' });
      await exec.start();
      const same = [
        'tasks ls',
        'tasks ls -q',
        'tasks ps listed',
        'containers ls',
        'containers ls -q',
        'namespaces ls',
        'namespaces ls -q',
        'plugins ls',
        'plugins ls -q',
        'leases ls',
      ];
      await Promise.all(
        same.map(async (line) => {
          const args = line.split(' ');
          assert.equal((await moor(peer, args)).stdout, await ctr(peer, args), line);
        }),
      );
      // In theirs the exports of a plugin come in any order.
      const sorted = (text: string) => text.split('\n').sort();
      const detailed = ['plugins', 'ls', '-d'];
      assert.deepEqual(sorted((await moor(peer, detailed)).stdout), sorted(await ctr(peer, detailed)));
      const json = async (...args: string[]) => [
        JSON.parse((await moor(peer, args)).stdout) as object,
        JSON.parse(await ctr(peer, args)) as object,
      ];
      for (const args of [
        ['containers', 'info', 'listed'],
        ['containers', 'info', '--spec', 'listed'],
      ]) {
        const [ours, theirs] = await json(...args);
        assert.deepEqual(ours, theirs, args.join(' '));
      }
      const [ours, theirs] = await json('tasks', 'metrics', '--format', 'json', 'listed');
      assert.deepEqual(shapeOf(ours), shapeOf(theirs));
    });
  });
}

/** The names in a message, without the values, which change between two readings. */
function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.length;
  if (typeof value !== 'object' || value === null) return typeof value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, shapeOf(each)]));
}
