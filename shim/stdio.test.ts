import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, constants, openSync, readFileSync, writeFileSync } from 'node:fs';
import { writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { mkfifo } from '../native/native.ts';
import { eventually, Reader, Workshop } from './fixture.test.ts';

const MiB = 1 << 20;
const SIGKILL = 9;

/** A client's end of an input FIFO. The path must exist before the process does, the end is opened after. */
class Writer {
  readonly path: string;
  #socket: Socket | undefined;

  constructor(folder: string) {
    this.path = join(folder, `in-${process.hrtime.bigint()}`);
    mkfifo(this.path, 0o600);
  }

  open(): this {
    const fd = openSync(this.path, constants.O_WRONLY | constants.O_NONBLOCK);
    this.#socket = new Socket({ fd, readable: false, writable: true });
    return this;
  }

  async write(bytes: string | Uint8Array): Promise<void> {
    if (this.#socket?.write(bytes) === false) await once(this.#socket, 'drain');
  }

  async leave(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#socket?.end(() => resolve());
    await promise;
    this.#socket?.destroy();
  }
}

test('64 MiB come out of a container whole', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const out = new Reader(workshop.folder, 'out').open();
  await shim.run({ args: ['dd', 'if=/dev/zero', 'bs=1M', 'count=64'], stdout: out.path });
  await out.end();
  assert.equal(out.length, 64 * MiB);
  assert.equal((await shim.wait()).exitStatus, 0);
});

test('64 MiB come out of an exec whole, through the pipe and the FIFO', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  const out = new Reader(workshop.folder, 'out').open();
  await shim.exec('dd', ['dd', 'if=/dev/zero', 'bs=1M', 'count=64'], { stdout: out.path });
  await out.end();
  assert.equal(out.length, 64 * MiB);
});

test('bytes go through cat and come back the same; the input ends by CloseIO only', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const input = new Writer(workshop.folder);
  const out = new Reader(workshop.folder, 'out').open();
  await shim.run({ args: ['cat'], stdin: input.path, stdout: out.path });
  input.open();
  const sent = createHash('sha256');
  for (let index = 0; index < 64; index++) {
    const chunk = Buffer.alloc(256 * 1024, `${index} is not ${index + 1}; `);
    sent.update(chunk);
    await input.write(chunk);
  }
  await input.leave();
  await eventually('all of it', () => out.length === 16 * MiB);
  assert.equal((await shim.state()).status, 2);
  const again = input.open();
  await again.write('more');
  sent.update('more');
  await again.leave();
  await shim.task.closeIO({ id: shim.id, stdin: true });
  await out.end();
  assert.equal((await shim.wait()).exitStatus, 0);
  assert.equal(createHash('sha256').update(out.bytes).digest('hex'), sent.digest('hex'));
});

test('processes that print 300 kB and end at once lose no byte', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  const print = ['sh', '-c', 'head -c 300000 /dev/zero'];
  for (let round = 0; round < 5; round++) {
    const readers = await Promise.all(
      Array.from({ length: 8 }, async (_, index) => {
        const out = new Reader(workshop.folder, 'out').open();
        await shim.exec(`e${round}-${index}`, print, { stdout: out.path });
        return out;
      }),
    );
    for (const out of readers) {
      await out.end();
      assert.equal(out.length, 300_000);
    }
  }
});

test('an init that prints and ends at once loses no byte, even if its client is late', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const out = new Reader(workshop.folder, 'out');
  const created = shim.create({ args: ['sh', '-c', 'head -c 300000 /dev/zero'], stdout: out.path });
  await new Promise((resolve) => setTimeout(resolve, 200));
  out.open();
  await created;
  await shim.start();
  await out.end();
  assert.equal(out.length, 300_000);
});

test('a client that never comes for the output fails the creation', { timeout: 30_000 }, async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const out = new Reader(workshop.folder, 'out');
  await assert.rejects(shim.create({ stdout: out.path }), { code: 4, message: /nobody reads/ });
});

test('a client that leaves does not end the container, and another can come', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const out = new Reader(workshop.folder, 'out').open();
  const script = 'i=0; while true; do echo line $i; i=$((i+1)); sleep 0.01; done';
  await shim.run({ args: ['sh', '-c', script], stdout: out.path });
  await out.says('line 5');
  out.leave();
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal((await shim.state()).status, 2);
  const before = out.length;
  out.open();
  await eventually('more output', () => out.length > before + 100);
  assert.ok(!out.ended);
  await shim.kill(SIGKILL);
  await out.end();
});

for (const [kind, options] of Object.entries({
  'a container': {},
  'a container among other processes': { hostPid: true },
  'a terminal': { terminal: true },
})) {
  test(`what ${kind} prints last while nobody reads is kept for the next client, and then ends`, async () => {
    await using workshop = new Workshop();
    const shim = await workshop.shim();
    const out = new Reader(workshop.folder, 'out').open();
    const script = 'echo first; read line; echo last';
    const input = new Writer(workshop.folder);
    await shim.run({ args: ['sh', '-c', script], stdin: input.path, stdout: out.path, ...options });
    await out.says('first');
    out.leave();
    await eventually('nobody reads any more', () => out.closed);
    writeFileSync(input.path, 'go on\n');
    await shim.wait();
    out.open();
    assert.match(await out.end(), /last\r?\n$/);
    await shim.delete();
  });
}

test('standard output and error can be one FIFO, or /dev/null', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const both = new Reader(workshop.folder, 'both').open();
  await shim.run({
    args: ['sh', '-c', 'echo out; echo err >&2; sleep 1000'],
    stdout: both.path,
    stderr: both.path,
  });
  await both.says('out\nerr\n');
  const execed = new Reader(workshop.folder, 'execed').open();
  const stdio = { stdout: execed.path, stderr: execed.path };
  await shim.exec('both', ['sh', '-c', 'echo out; echo err >&2'], stdio);
  assert.equal(await execed.end(), 'out\nerr\n');
  await shim.exec('null', ['sh', '-c', 'echo out; echo err >&2; cat']);
  assert.equal((await shim.wait('null')).exitStatus, 0);
});

test('an exec that leaves a child behind ends, and so does its output', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  const out = new Reader(workshop.folder, 'out').open();
  const before = performance.now();
  await shim.exec('e', ['sh', '-c', 'sleep 60 & echo x'], { stdout: out.path });
  assert.equal((await shim.wait('e')).exitStatus, 0);
  const exited = performance.now();
  assert.equal(await out.end(), 'x\n');
  await shim.delete('e');
  const took = performance.now() - before;
  assert.ok(took < 30_000, `took ${took} ms`);
  assert.ok(exited - before < 30_000, `the exit is known after ${exited - before} ms`);
});

test('what lingers in the pipe is delivered to a reader that is slow', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  const out = new Reader(workshop.folder, 'out').open();
  out.pause();
  const script = 'sleep 15 & head -c 120000 /dev/zero';
  await shim.exec('e', ['sh', '-c', script], { stdout: out.path });
  await shim.wait('e');
  await shim.delete('e');
  assert.ok(!out.ended);
  out.resume();
  await out.end();
  assert.equal(out.length, 120_000);
});

test('output goes to a file, appended', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const path = join(workshop.folder, 'logs/out.log');
  await shim.run({ args: ['sh', '-c', 'echo one; echo two >&2; sleep 1000'], stdout: `file://${path}` });
  await eventually('both lines', () => readFileSync(path, 'utf8') === 'one\ntwo\n');
  await shim.exec('e', ['echo', 'three'], { stdout: `file://${path}` });
  await shim.wait('e');
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwo\nthree\n');
  await shim.exec('tty', ['echo', 'four'], { stdout: `file://${path}`, terminal: true });
  await shim.delete('tty').catch(() => shim.wait('tty'));
  await eventually('the fourth', () => readFileSync(path, 'utf8').endsWith('four\r\n'));
});

test('output goes to a logging program, which has written it all when the process is deleted', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const { program, log } = logger(workshop, '( cat <&3; cat <&4 ) >> $log; sleep 0.2; echo end >> $log');
  const args = ['sh', '-c', 'echo out; echo err >&2; exit 3'];
  await shim.run({ args, stdout: `binary://${program}?color=red&size=9`, stderr: `binary://${program}` });
  assert.equal((await shim.wait()).exitStatus, 3);
  await shim.delete();
  const first = `args color red size 9\nid ${shim.id} namespace ${workshop.namespace}\n`;
  assert.equal(readFileSync(log, 'utf8'), `${first}out\nerr\nend\n`);
});

test('a logging program that is missing or is not ready is named', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await assert.rejects(shim.create({ stdout: 'binary:///nope/logger' }), {
    code: 5,
    message: /\/nope\/logger/,
  });
  const { program } = logger(workshop, 'exit 1');
  writeFileSync(program, '#!/bin/sh\nexit 1\n');
  await shim.run({ args: ['echo', 'lost'], stdout: `binary://${program}` });
  await shim.wait();
  await shim.delete();
});

/** A program that says what it was started with and then does as `script` says. */
function logger(workshop: Workshop, script: string): { program: string; log: string } {
  const program = join(workshop.folder, 'logger');
  const log = join(workshop.folder, 'logged');
  const first =
    'echo "args $*" >> $log; echo "id $CONTAINER_ID namespace $CONTAINER_NAMESPACE" >> $log; exec 5>&-';
  writeFileSync(program, `#!/bin/sh\nPATH=/bin:/usr/bin\nlog=${log}\n${first}\n${script}\n`);
  chmodSync(program, 0o755);
  return { program, log };
}

test('a terminal is one, follows resizes, and Ctrl-C reaches the process', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const input = new Writer(workshop.folder);
  const out = new Reader(workshop.folder, 'out').open();
  const stdio = { stdin: input.path, stdout: out.path, terminal: true };
  await shim.run({ args: ['sh', '-c', 'tty; stty size; exec sh'], ...stdio });
  input.open();
  await out.says('/dev/pts/0');
  await shim.task.resizePty({ id: shim.id, width: 132, height: 43 });
  await input.write('stty size\n');
  await out.says('43 132');
  await input.write('trap "echo interrupted" INT; sleep 1000\n');
  await out.says('sleep 1000');
  await eventually('the interruption', () => {
    writeSync(openSync(input.path, constants.O_WRONLY | constants.O_NONBLOCK), '\x03');
    return out.text.includes('interrupted\r\n');
  });
  await input.write('exit 9\n');
  assert.equal((await shim.wait()).exitStatus, 9);
  await out.end();
});

test('all that is printed on a terminal arrives before its end', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  for (let round = 0; round < 5; round++) {
    const out = new Reader(workshop.folder, 'out').open();
    await shim.exec(`t${round}`, ['sh', '-c', 'seq 1 5000'], { stdout: out.path, terminal: true });
    const text = await out.end();
    assert.ok(text.endsWith('\r\n4999\r\n5000\r\n'), JSON.stringify(text.slice(-40)));
    assert.equal(text.split('\r\n').length, 5001);
  }
});

test('a terminal whose child lingers ends as well', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  const out = new Reader(workshop.folder, 'out').open();
  await shim.exec('t', ['sh', '-c', 'trap "" HUP; sleep 15 & echo x'], { stdout: out.path, terminal: true });
  assert.equal(await out.end(), 'x\r\n');
});

test('a long path of the bundle does not keep a container from its terminal', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim({ id: 'x'.repeat(76) });
  const out = new Reader(workshop.folder, 'out').open();
  await shim.run({ args: ['tty'], stdout: out.path, terminal: true });
  assert.equal(await out.end(), '/dev/pts/0\r\n');
});
