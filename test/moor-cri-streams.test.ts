/** `moor cri exec`, `attach`, `port-forward` and `logs`, as people use them: on a terminal, in a pipe, over a rotation. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { renameSync, statSync } from 'node:fs';
import { type Socket, connect } from 'node:net';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, afterEach, before, describe, it } from 'node:test';
import { spawn } from 'node-pty';
import { ContainerState } from '../proto/gen/runtime/v1/api.ts';
import { Kubelet, type RunningPod } from './harness/cri.ts';
import { Moor } from './harness/moor.ts';
import { Terminal } from './harness/terminal.ts';
import { eventually } from './harness/wait.ts';

const WAIT = { within: 60_000 };
const FOREVER = ['sleep', '1000000'];
const CTRL_P_CTRL_Q = '\x10\x11';

describe('moor cri', { timeout: 300_000 }, () => {
  let kubelet: Kubelet;
  let moor: Moor;
  let pod: RunningPod;
  before(async () => {
    kubelet = await Kubelet.start();
    moor = new Moor(kubelet.daemon, 'default');
    pod = await kubelet.runPod('streams');
  });
  after(() => kubelet?.[Symbol.asyncDispose]());
  afterEach(async () => {
    const { containers } = await kubelet.runtime.listContainers({});
    for (const { id } of containers) await kubelet.runtime.removeContainer({ containerId: id });
  });

  const onTerminal = (...args: string[]): Terminal =>
    new Terminal(
      spawn(resolve(import.meta.dirname, '../bin/moor'), ['--address', moor.address, ...args], {
        cols: 100,
        rows: 30,
        env: { ...process.env, TERM: 'xterm' },
      }),
    );

  it('exec gives a program this command’s streams, and ends as it does', async () => {
    const id = await kubelet.run(pod, 'main', FOREVER);
    const script = 'cat; echo bad >&2; exit 42';
    const piped = await moor.call(['cri', 'exec', '-i', id, 'sh', '-c', script], { input: 'given' });
    assert.deepEqual([piped.code, piped.stdout, piped.stderr], [42, 'given', 'bad\n']);
    const closed = await moor.call(['cri', 'exec', id, 'cat']);
    assert.deepEqual([closed.code, closed.stdout], [0, ''], 'without -i there is no input');
    const large = await moor.call(['cri', 'exec', id, 'sh', '-c', 'head -c 3000000 /dev/zero | tr "\\0" x']);
    assert.deepEqual([large.code, large.stdout.length], [0, 3_000_000]);
    const counted = await moor.call(['cri', 'exec', '-i', id, 'wc', '-c'], { input: 'y'.repeat(2_000_000) });
    assert.equal(counted.stdout.trim(), '2000000');
    const late = await moor.call(['cri', 'exec', '-s', '--timeout', '1', id, 'sleep', '1000']);
    assert.equal(late.code, 125);
    assert.match(late.stderr, /timeout 1s exceeded/);
    const absent = await moor.call(['cri', 'exec', id, '/no/such']);
    assert.equal(absent.code, 127);
    assert.match(absent.stderr, /^moor: .*no such file or directory/);
    const nobody = await moor.call(['cri', 'exec', 'none', 'true']);
    assert.equal(nobody.code, 125);
    assert.match(nobody.stderr, /container "none": not found/);
    assert.equal((await moor.call(['cri', 'exec', '--wrong', id, 'true'])).code, 125);
  });

  it('exec on a terminal has its size, its keys and its way out', async () => {
    const id = await kubelet.run(pod, 'main', FOREVER);
    const script = `
      until [ "$(stty size)" = '30 100' ]; do sleep 0.05; done; echo sized
      until [ "$(stty size)" = '20 80' ]; do sleep 0.05; done; echo resized
      trap : INT; echo waiting; sleep 1000; echo interrupted
      read line; echo "got $line"; exit 7`;
    const terminal = onTerminal('cri', 'exec', '-it', id, 'sh', '-c', script);
    await terminal.sees(/sized\r\n/, WAIT);
    terminal.resize(80, 20);
    await terminal.sees(/resized\r\nwaiting\r\n/, WAIT);
    terminal.type('\x03');
    await terminal.sees(/interrupted\r\n/, WAIT);
    terminal.type('some\r');
    await terminal.sees(/got some\r\n/, WAIT);
    assert.equal(await terminal.exited(), 7);

    const left = onTerminal('cri', 'exec', '-it', id, 'sh', '-c', 'echo here; exec sleep 4321');
    await left.sees(/here/, WAIT);
    left.type(CTRL_P_CTRL_Q);
    assert.equal(await left.exited(), 0);
    const cmd = ['sh', '-c', 'ps | grep "[s]leep 4321" || true'];
    await eventually(
      'the program has gone with its client',
      async () =>
        (await kubelet.runtime.execSync({ containerId: id, cmd, timeout: 60n })).stdout.toString() === '',
      WAIT,
    );
  });

  it('attach to a terminal can be left, and come back to', async () => {
    const script = 'while read line; do echo "got $line"; [ "$line" = end ] && exit 3; done';
    const id = await kubelet.run(pod, 'shell', ['sh', '-c', script], { stdin: true, tty: true });
    const first = onTerminal('cri', 'attach', '-it', id);
    first.type('one\r');
    await first.sees(/got one/, WAIT);
    first.type(CTRL_P_CTRL_Q);
    assert.equal(await first.exited(), 0);
    assert.equal((await kubelet.status(id)).state, ContainerState.CONTAINER_RUNNING);
    const second = onTerminal('cri', 'attach', '-it', id);
    second.type('end\r');
    await second.sees(/got end/, WAIT);
    assert.equal(await second.exited(), 0);
    await eventually(
      'its end',
      async () => (await kubelet.status(id)).state === ContainerState.CONTAINER_EXITED,
      WAIT,
    );
    const gone = await moor.call(['cri', 'attach', id]);
    assert.equal(gone.code, 125);
    assert.match(gone.stderr, /CONTAINER_EXITED/);
  });

  it('logs follow a container over the rotation of its log to its end', async () => {
    const script =
      'i=0; while [ ! -e /stop ]; do echo line $i; i=$((i+1)); sleep 0.02; done; echo last; printf end';
    const id = await kubelet.run(pod, 'writer', ['sh', '-c', script]);
    const following = moor.spawn(['cri', 'logs', '-f', id]);
    const closed = once(following, 'close');
    let told = '';
    following.stdout!.on('data', (chunk: Buffer) => (told += chunk.toString()));
    const path = join(pod.config.logDirectory!, 'writer/0.log');
    await eventually('some lines', () => told.includes('line 3\n'), WAIT);
    // Most come and go between two looks of a follower; their names are in no order.
    for (let rotation = 0; rotation < 20; rotation += 1) {
      renameSync(path, `${path}.${(rotation * 7) % 20}`);
      await kubelet.runtime.reopenContainerLog({ containerId: id });
      if (rotation % 3 === 0) await eventually('a line of its own', () => statSync(path).size > 0, WAIT);
    }
    await kubelet.runtime.execSync({ containerId: id, cmd: ['touch', '/stop'], timeout: 60n });
    const [code] = (await closed) as [number];
    assert.equal(code, 0);
    const read = told.split('\n');
    assert.deepEqual(read.slice(-2), ['last', 'end']);
    assert.deepEqual(
      read.slice(0, -2),
      read.slice(0, -2).map((_, index) => `line ${index}`),
    );
  });

  it('logs are cut by lines, bytes and time, and those of the attempt before are there', async () => {
    const script = 'for i in 1 2 3 4; do echo $i; done';
    const id = await kubelet.run(pod, 'main', ['sh', '-c', script]);
    await eventually(
      'its end',
      async () => (await kubelet.status(id)).state === ContainerState.CONTAINER_EXITED,
      WAIT,
    );
    const again = await kubelet.create(pod, 'main', FOREVER, {
      metadata: { name: 'main', attempt: 1 },
      logPath: 'main/1.log',
    });
    const logs = async (...args: string[]) => (await moor.call(['cri', 'logs', ...args])).stdout;
    assert.equal(await logs(id), '1\n2\n3\n4\n');
    assert.equal(await logs('--tail', '3', id), '2\n3\n4\n');
    assert.equal(await logs('--tail', '0', id), '');
    assert.equal(await logs('--tail', '100', id), '1\n2\n3\n4\n');
    assert.equal(await logs('--limit-bytes', '3', id), '1\n2');
    assert.equal(await logs('--since', '10m', id), '1\n2\n3\n4\n');
    assert.equal(await logs('--since', '2100-01-01T00:00:00Z', id), '');
    assert.match(await logs('-t', id), /^20\d\d-\d\d-\d\dT\S+Z 1\n20/);
    assert.equal(await logs('-p', again), '1\n2\n3\n4\n');
    const first = await moor.call(['cri', 'logs', '-p', id]);
    assert.deepEqual([first.code, /no attempt before 0/.test(first.stderr)], [1, true]);
    assert.equal((await moor.call(['cri', 'logs', '--since', 'yesterday', id])).code, 2);
    assert.equal((await moor.call(['cri', 'logs', 'none'])).code, 1);
  });

  it('ports of a pod are ports of this host as long as the command runs', async () => {
    const script = 'mkdir /www; echo served > /www/page; exec httpd -f -p 80 -h /www';
    await kubelet.run(pod, 'server', ['sh', '-c', script]);
    // It answers when its client has ended what it sends.
    await kubelet.run(pod, 'counter', ['sh', '-c', 'while :; do nc -l -p 81 -e wc -c; done']);
    const command = moor.spawn(['cri', 'port-forward', pod.id, ':80', ':81']);
    let said = '';
    command.stdout!.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const port = (remote: number) =>
      eventually('the port', () => new RegExp(`127\\.0\\.0\\.1:(\\d+) -> ${remote}`).exec(said)?.[1], WAIT);
    const asked = async (number: string, question: string): Promise<string> => {
      const socket: Socket = connect({ host: '127.0.0.1', port: Number(number) });
      socket.on('error', () => undefined).end(question);
      return text(socket).catch(() => '');
    };
    const [web, counting] = [await port(80), await port(81)];
    const get = 'GET /page HTTP/1.0\r\n\r\n';
    await eventually('the server', async () => (await asked(web, get)).endsWith('\r\n\r\nserved\n'), WAIT);
    assert.deepEqual(
      (await Promise.all([1, 2, 3].map(() => asked(web, get)))).map((answer) => answer.endsWith('served\n')),
      [true, true, true],
    );
    const large = 'z'.repeat(500_000);
    await eventually('the count', async () => (await asked(counting, large)).trim() === '500000', WAIT);
    const closed = once(command, 'exit');
    command.kill('SIGINT');
    assert.deepEqual(await closed, [0, null]);
    const taken = await moor.call(['cri', 'port-forward', pod.id, '99999']);
    assert.deepEqual([taken.code, /LOCAL:REMOTE/.test(taken.stderr)], [2, true]);
    assert.equal((await moor.call(['cri', 'port-forward', 'none', '80'])).code, 1);
  });
});
