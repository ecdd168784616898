import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import {
  type Client,
  Code,
  connect,
  isCode,
  type PipeOptions,
  type Process,
  type SpecOptions,
} from './client.ts';
import { namespace, Peer, peers, textOf } from './peer.test.ts';

const code = (expected: Code) => (error: unknown) => isCode(error, expected);

test('connecting to a socket that nobody serves fails with Unavailable and names it', async () => {
  using client = await connect({ address: '/tmp/moor-nobody.sock' });
  await assert.rejects(client.version(), (error) => {
    assert.ok(isCode(error, Code.Unavailable));
    assert.match(error.message, /^cannot connect to \/tmp\/moor-nobody\.sock: .*ENOENT/);
    return true;
  });
  await assert.rejects(connect({ address: '/tmp/moor-nobody.sock', patience: 100 }), code(Code.Unavailable));
});

for (const name of peers) {
  suite(`client of ${name}`, { timeout: 120_000 }, () => {
    let peer: Peer;
    let client: Client;
    before(async () => {
      peer = await Peer.start(name);
      client = await connect({ address: peer.address, namespace });
    });
    after(async () => {
      client?.close();
      assert.deepEqual(peer.fifoDirectories(), []);
      await peer?.[Symbol.asyncDispose]();
    });

    const create = (id: string, options: Partial<SpecOptions>) =>
      client.containers.create(id, { spec: client.spec(id, { rootfs: peer.rootfs, ...options }) });
    const piped = (options: PipeOptions = {}) => ({ ...options, fifoDirectory: peer.fifoDirectory });
    const outputOf = async (process: Process) => {
      const output = Promise.all([textOf(process.stdout), textOf(process.stderr)]);
      await process.start();
      return await output;
    };

    test('tells its version, its identity and its plugins', async () => {
      assert.notEqual((await client.version()).version, '');
      assert.match((await client.server()).uuid, /^[0-9a-f-]{36}$/);
      const plugins = await client.plugins();
      assert.ok(plugins.some(({ type, id }) => type === 'io.containerd.grpc.v1' && id === 'tasks'));
    });

    test('namespaces are created, labelled, listed and deleted', async () => {
      await client.namespaces.create('harbour', { a: '1' });
      await client.namespaces.label('harbour', { b: '2' });
      assert.deepEqual((await client.namespaces.get('harbour')).labels, { a: '1', b: '2' });
      await assert.rejects(client.namespaces.create('harbour'), code(Code.AlreadyExists));
      assert.ok((await client.namespaces.list()).some((namespace) => namespace.name === 'harbour'));
      await client.namespaces.delete('harbour');
      assert.ok(!(await client.namespaces.list()).some((namespace) => namespace.name === 'harbour'));
    });

    test('containers are created, labelled, found and deleted', async () => {
      const container = await create('stored', { args: ['true'] });
      assert.equal((await client.containers.get('stored')).spec.root?.path, peer.rootfs);
      assert.deepEqual(await container.label({ 'org.test/a': '1', b: '2' }), { 'org.test/a': '1', b: '2' });
      assert.deepEqual(await container.label({ b: '' }), { 'org.test/a': '1' });
      const found = await client.containers.list(['labels."org.test/a"==1']);
      assert.deepEqual(
        found.map(({ id }) => id),
        ['stored'],
      );
      await assert.rejects(create('stored', {}), code(Code.AlreadyExists));
      await assert.rejects(client.in('elsewhere').containers.get('stored'), code(Code.NotFound));
      await assert.rejects(container.task(), code(Code.NotFound));
      await container.delete();
      await assert.rejects(container.refresh(), code(Code.NotFound));
    });

    test('leases are created, listed and deleted', async () => {
      const lease = await client.leases.create({ id: 'hold', labels: { a: '1' }, expires: 60_000 });
      assert.ok(Date.parse(lease.labels['containerd.io/gc.expire']!) > Date.now());
      assert.ok((await client.leases.list()).some(({ id }) => id === 'hold'));
      await client.leases.delete('hold', { sync: true });
      assert.deepEqual(await client.leases.list(['id==hold']), []);
    });

    test('a task runs to its end: its output, its exit status, nothing left', async () => {
      await using container = await create('short', {
        args: ['sh', '-c', 'echo out; echo err >&2; exit 42'],
      });
      const task = await container.createTask({ stdio: piped() });
      const [stdout, stderr] = await outputOf(task);
      assert.equal(stdout, 'out\n');
      assert.equal(stderr, 'err\n');
      const exit = await task.wait();
      assert.equal(exit.code, 42);
      assert.ok(Math.abs(exit.exitedAt!.getTime() - Date.now()) < 60_000);
      assert.equal(await task.status(), 'STOPPED');
      assert.equal((await task.delete()).code, 42);
      await assert.rejects(task.state(), code(Code.NotFound));
      assert.deepEqual(peer.fifoDirectories(), []);
    });

    test('stdin reaches the process whole, and ending it closes the process’s', async () => {
      await using container = await create('stdin', { args: ['wc', '-c'] });
      await using task = await container.createTask({ stdio: piped() });
      const output = textOf(task.stdout);
      task.stdin!.write(Buffer.alloc(1 << 20, 'x'));
      task.stdin!.end('end');
      await task.start();
      assert.equal((await output).trim(), String((1 << 20) + 3));
      assert.equal((await task.wait()).code, 0);
    });

    test('a process that does not read its stdin is no failure', async () => {
      await using container = await create('deaf', { args: ['true'] });
      await using task = await container.createTask({ stdio: piped() });
      const closed = new Promise((done) => task.stdin!.once('close', done));
      task.stdin!.end(Buffer.alloc(1 << 20));
      await task.start();
      assert.equal((await task.wait()).code, 0);
      await closed;
    });

    test('64 MiB of output arrive whole', async () => {
      const bytes = 64 << 20;
      await using container = await create('flood', {
        args: ['head', '-c', String(bytes), '/dev/zero'],
      });
      await using task = await container.createTask({ stdio: piped({ stdin: false }) });
      await task.start();
      let received = 0;
      for await (const chunk of task.stdout!) received += (chunk as Buffer).length;
      assert.equal(received, bytes);
      assert.equal((await task.wait()).code, 0);
    });

    test('more processes are executed in a running container', async () => {
      await using container = await create('host', { args: ['sleep', '100'], env: ['A=1', 'PATH=/bin'] });
      await using task = await container.createTask({ stdio: 'null' });
      await task.start();
      const exec = await task.exec({
        id: 'look',
        stdio: piped(),
        args: ['sh', '-c', 'echo $A; cat; exit 7'],
      });
      exec.stdin!.end('given\n');
      const [stdout] = await outputOf(exec);
      assert.equal(stdout, '1\ngiven\n');
      assert.equal((await exec.wait()).code, 7);
      assert.equal((await exec.delete()).code, 7);

      await using waiting = await task.exec({ id: 'nap', args: ['sleep', '100'], stdio: 'null' });
      await waiting.start();
      const processes = await task.pids();
      assert.ok(processes.some(({ pid }) => pid === task.pid));
      assert.deepEqual(processes.find(({ pid }) => pid === waiting.pid)?.execId, 'nap');
      assert.equal((await task.process('nap')).pid, waiting.pid);
      await waiting.kill('SIGKILL');
      assert.equal((await waiting.wait()).code, 137);
      await assert.rejects(
        task.exec({ args: ['no-such-command'], stdio: piped() }).then((wrong) => wrong.start()),
        /executable file not found|no such file/,
      );
    });

    test('signals end a task with 128+n', async () => {
      await using container = await create('signalled', {
        args: ['sh', '-c', 'trap "exit 3" TERM; echo ready; while :; do sleep 0.1; done'],
      });
      await using task = await container.createTask({ stdio: piped() });
      await task.start();
      await new Promise((ready) => task.stdout!.once('data', ready));
      const ended = task.wait();
      await task.kill();
      assert.equal((await ended).code, 3);
      await using other = await create('killed', { args: ['sleep', '100'] });
      await using killed = await other.createTask({ stdio: 'null' });
      await killed.start();
      await killed.kill('KILL', { all: true });
      assert.equal((await killed.wait()).code, 137);
      await assert.rejects(killed.kill('nonsense'), code(Code.InvalidArgument));
    });

    test('a task is paused, resumed, measured, updated and refused what it cannot do', async () => {
      await using container = await create('managed', { args: ['sleep', '100'] });
      await using task = await container.createTask({ stdio: 'null' });
      assert.equal(await task.status(), 'CREATED');
      await task.start();
      await assert.rejects(task.start(), /cannot start a running process|already/);
      await assert.rejects(task.delete(), /running/);
      await task.pause();
      assert.equal(await task.status(), 'PAUSED');
      await task.resume();
      assert.equal(await task.status(), 'RUNNING');
      const metrics = await task.metrics();
      assert.ok(metrics.cgroup.pids!.current >= 1n);
      await task.update({ memory: { limit: 64 << 20 } });
      assert.ok((await client.tasks()).some(({ id }) => id === 'managed'));
      await task.pause();
      // Disposal thaws and kills it.
    });

    test('a terminal is one, has the size it is given, and passes Ctrl-C', async () => {
      await using container = await create('terminal', {
        args: ['sh', '-c', 'trap "exit 130" INT; tty; read x; stty size; while :; do sleep 0.1; done'],
        terminal: true,
      });
      await using task = await container.createTask({ stdio: piped({ terminal: true }) });
      let output = '';
      const seen = (pattern: RegExp) =>
        new Promise<void>((resolve) => {
          const look = () => pattern.test(output) && resolve();
          task.stdout!.on('data', look);
          look();
        });
      task.stdout!.on('data', (chunk: Buffer) => (output += chunk.toString()));
      await task.start();
      await seen(/\/dev\/pts\/\d+|\/dev\/console/);
      await task.resize({ columns: 101, rows: 37 });
      task.stdin!.write('\n');
      await seen(/37 101/);
      task.stdin!.write('\x03');
      assert.equal((await task.wait()).code, 130);
    });

    test('a client that leaves does not disturb the task, and another attaches', async () => {
      await using container = await create('kept', {
        args: ['sh', '-c', 'while read line; do echo got $line; done'],
      });
      const task = await container.createTask({ stdio: piped() });
      await task.start();
      task.detach();
      using other = await connect({ address: peer.address, namespace });
      const attached = await (await other.containers.get('kept')).task({ attach: true });
      attached.stdin!.write('one\n');
      attached.stdin!.end('two\n');
      assert.equal(await textOf(attached.stdout), 'got one\ngot two\n');
      assert.equal((await attached.wait()).code, 0);
      await attached.delete();
      assert.deepEqual(peer.fifoDirectories(), []);
    });

    test('output can go to a file', async () => {
      const file = join(peer.directory, 'output');
      await using container = await create('logged', { args: ['echo', 'logged'] });
      await using task = await container.createTask({ stdio: { log: `file://${file}` } });
      await task.start();
      await task.wait();
      await task.delete();
      assert.equal(readFileSync(file, 'utf8'), 'logged\n');
    });

    test('events tell what happens, in order, until the signal aborts', async () => {
      const abort = new AbortController();
      const filter = `namespace==${namespace},topic~=^/tasks/,event.container_id==watched`;
      const events = client.events([filter], { signal: abort.signal });
      const topics: string[] = [];
      const reading = (async () => {
        for await (const event of events) {
          topics.push(event.topic);
          if (event.topic === '/tasks/exit') assert.equal(event.message?.exitStatus, 5);
          if (event.topic === '/tasks/delete') abort.abort();
        }
      })();
      await using container = await create('watched', { args: ['sh', '-c', 'exit 5'] });
      await using task = await container.createTask({ stdio: 'null' });
      await task.start();
      await task.wait();
      await task.delete();
      await reading;
      assert.deepEqual(topics, ['/tasks/create', '/tasks/start', '/tasks/exit', '/tasks/delete']);
    });

    test('calls are cancelled by their signal and their timeout', async () => {
      await using container = await create('slow', { args: ['sleep', '100'] });
      await using task = await container.createTask({ stdio: 'null' });
      await task.start();
      const abort = new AbortController();
      const waiting = assert.rejects(task.wait({ signal: abort.signal }), code(Code.Cancelled));
      abort.abort();
      await waiting;
      await assert.rejects(task.wait({ timeout: 50 }), code(Code.DeadlineExceeded));
      await assert.rejects(task.wait({ signal: AbortSignal.abort() }), code(Code.Cancelled));
    });

    test('what cannot be run is refused with the cause, and leaves nothing', async () => {
      await using container = await create('wrong', { args: ['no-such-command'] });
      await assert.rejects(container.createTask({ stdio: piped() }), /no-such-command/);
      assert.deepEqual(peer.fifoDirectories(), []);
      await using nowhere = await create('nowhere', { args: ['true'], rootfs: '/no/such/rootfs' });
      await assert.rejects(nowhere.createTask({ stdio: piped() }), /\/no\/such\/rootfs/);
      assert.throws(() => client.spec('x', { rootfs: 'relative' }), code(Code.InvalidArgument));
    });

    test('a wait outlasts a daemon that is killed and comes back', async () => {
      await using container = await create('moored', { args: ['sh', '-c', 'read x; exit 9'] });
      await using task = await container.createTask({ stdio: piped() });
      await task.start();
      const waiting = task.wait({ patience: 30_000 });
      const impatient = assert.rejects(task.wait(), code(Code.Unavailable));
      await peer.kill();
      await impatient;
      await peer.start();
      await client.ready(10_000);
      assert.equal(await task.status(), 'RUNNING');
      task.stdin!.end('x\n');
      assert.equal((await waiting).code, 9);
    });

    test('users, limits and mounts have their effect', async () => {
      await using container = await create('shaped', {
        args: ['sh', '-c', 'id; hostname; pwd; cat /host/marker; head -c 0 /dev/null && echo $FOO'],
        user: 'sailor',
        hostname: 'boat',
        cwd: '/tmp',
        env: ['PATH=/bin', 'FOO=bar'],
        mounts: [
          { type: 'bind', source: '/etc/hostname', destination: '/host/marker', options: ['bind', 'ro'] },
        ],
        memoryLimit: 32 << 20,
        cpu: { quota: 50_000, period: 100_000 },
      });
      await using task = await container.createTask({ stdio: piped() });
      const [stdout] = await outputOf(task);
      const lines = stdout.split('\n');
      assert.match(lines[0]!, /uid=1000\(sailor\) gid=1001\(crew\) groups=1001\(crew\),1002\(deck\)/);
      assert.equal(lines[1], 'boat');
      assert.equal(lines[2], '/tmp');
      assert.equal(lines[3], readFileSync('/etc/hostname', 'utf8').trim());
      assert.ok(lines.includes('bar'));
    });
  });
}

const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

test(
  'specs are those that ctr makes, but for a default PATH',
  { skip: !existsSync('/usr/bin/ctr') },
  async () => {
    await using peer = await Peer.start('containerd');
    using client = await connect({ address: peer.address, namespace });
    const ctr = ['--address', peer.address, '--namespace', namespace, 'container', 'create', '--rootfs'];
    const create = (...args: string[]) => execFileSync('ctr', [...ctr, ...args]);
    const theirs = async (id: string) => {
      const spec = (await client.containers.get(id)).spec;
      const env = [PATH, ...(spec.process?.env ?? [])];
      return { ...spec, ociVersion: '1.0.2', process: { ...spec.process, env } };
    };
    const rootfs = peer.rootfs;

    create(rootfs, 'plain', 'echo', 'hello');
    assert.deepEqual(client.spec('plain', { rootfs, args: ['echo', 'hello'] }), await theirs('plain'));

    create('--privileged', '--net-host', '--tty', '--env', 'A=1', '--cwd', '/tmp', rootfs, 'all', 'sh');
    assert.deepEqual(
      client.spec('all', {
        rootfs,
        args: ['sh'],
        privileged: true,
        hostNetwork: true,
        terminal: true,
        env: ['A=1'],
        cwd: '/tmp',
      }),
      await theirs('all'),
    );

    create(
      '--cap-add',
      'CAP_SYS_ADMIN',
      '--cap-drop',
      'CAP_CHOWN',
      '--memory-limit',
      '1000000',
      rootfs,
      'caps',
      'sh',
    );
    assert.deepEqual(
      client.spec('caps', {
        rootfs,
        args: ['sh'],
        addCapabilities: ['CAP_SYS_ADMIN'],
        dropCapabilities: ['CAP_CHOWN'],
        memoryLimit: 1_000_000,
      }),
      await theirs('caps'),
    );
  },
);
