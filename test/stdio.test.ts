/** Every byte of stdin, stdout and stderr arrives, whoever leaves first. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { constants, writeFileSync } from 'node:fs';
import { open, readFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import type { Ctr } from './harness/ctr.ts';
import { containerPids } from './harness/daemon.ts';
import { digestOf, digestOfRepeated } from './harness/digest.ts';
import { suite } from './harness/peers.ts';
import { alive } from './harness/processes.ts';
import { sharedRootfs } from './harness/rootfs.ts';
import { eventually, soon } from './harness/wait.ts';

const mebibyte = 1024 * 1024;

/** A block of a mebibyte in the root file system, which containers print. */
function block(): Buffer {
  const bytes = randomBytes(mebibyte);
  writeFileSync(join(sharedRootfs(), 'block'), bytes);
  return bytes;
}

/** Runs ctr and digests its stdout. */
async function digested(ctr: Ctr, args: readonly string[]) {
  const child = ctr.spawn(args);
  const [digest] = await Promise.all([digestOf(child.stdout), once(child, 'close')]);
  return { ...digest, code: child.exitCode };
}

suite('stdio', { peers: ['moord'] }, (rig) => {
  it('512 MiB out arrive whole', async () => {
    const bytes = block();
    const loop = 'i=0; while [ $i -lt 512 ]; do cat /block; i=$((i+1)); done; exit 3';
    const [seen, expected] = await Promise.all([
      digested(rig.ctr, rig.ctr.runArgs('large', ['/bin/sh', '-c', loop], ['--rm'])),
      digestOfRepeated(bytes, 512),
    ]);
    assert.deepEqual(seen, { ...expected, code: 3 });
  });

  it('64 MiB through cat arrive whole, of an init and of an exec', async () => {
    const bytes = randomBytes(mebibyte);
    const expected = await digestOfRepeated(bytes, 64);
    await rig.ctr.runDetached('pipe', ['/bin/sleep', '1000']);
    for (const args of [
      rig.ctr.runArgs('cat', ['/bin/cat'], ['--rm']),
      rig.ctr.execArgs('pipe', ['/bin/cat']),
    ]) {
      const child = rig.ctr.spawn(args, ['pipe', 'pipe', 'inherit']);
      const feed = async () => {
        for (let round = 0; round < 64; round += 1)
          if (child.stdin?.write(bytes) === false) await once(child.stdin, 'drain');
        child.stdin?.end();
      };
      const [seen] = await Promise.all([digestOf(child.stdout), feed(), once(child, 'close')]);
      assert.deepEqual(seen, expected);
      assert.equal(child.exitCode, 0);
    }
    await rig.ctr.remove('pipe');
  });

  it('100 processes that print 300 kB and exit at once lose no byte', async () => {
    const bytes = randomBytes(300_000);
    writeFileSync(join(sharedRootfs(), 'burst'), bytes);
    const expected = { ...(await digestOfRepeated(bytes, 1)), code: 0 };
    await rig.ctr.runDetached('printer', ['/bin/sleep', '1000']);
    const print = async (from: number) => {
      for (let index = from; index < 100; index += 8) {
        // Every fourth is a container of its own, the others are execs. ctr 1.6.20 closes its FIFOs as soon as it hears of a
        // container's exit (Task.Delete: Close before Wait; execs wait first), so what it has not read by then is lost
        // unless the exit is held back until it has. containerd does not hold it back.
        const args =
          index % 4 === 0 && rig.peer === 'moord'
            ? rig.ctr.runArgs(`print-${index}`, ['/bin/cat', '/burst'], ['--rm'])
            : rig.ctr.execArgs('printer', ['/bin/cat', '/burst']);
        assert.deepEqual(await digested(rig.ctr, args), expected, `process ${index}`);
      }
    };
    await Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map(print));
    await rig.ctr.remove('printer');
  });

  it('a client that leaves does not kill the container, and another can attach', async () => {
    const loop = 'i=0; while :; do echo line $i; i=$((i+1)); sleep 0.01; done';
    const client = rig.ctr.spawn(rig.ctr.runArgs('watched', ['/bin/sh', '-c', loop]));
    let seen = '';
    client.stdout?.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    await eventually('it prints', () => seen.includes('line 5\n'));
    client.kill('SIGKILL');
    await once(client, 'close');
    const task = await rig.ctr.task('watched');
    assert.equal(task?.status, 'RUNNING');
    const attached = rig.ctr.spawn(['tasks', 'attach', 'watched']);
    let again = '';
    attached.stdout?.on('data', (chunk: Buffer) => (again += chunk.toString()));
    await eventually('the attached client sees new lines', () => (again.match(/line/g)?.length ?? 0) > 20);
    assert.deepEqual(await rig.ctr.task('watched'), task);
    attached.kill('SIGKILL');
    await rig.ctr.remove('watched');
    assert.ok(!alive(task?.pid ?? 0));
  });

  it('a printing container outlives its client and a restart of the daemon between them', async () => {
    const loop = 'while :; do echo tick; sleep 0.01; done';
    const client = rig.ctr.spawn(rig.ctr.runArgs('clock', ['/bin/sh', '-c', loop]));
    await soon('it prints', once(client.stdout as NodeJS.ReadableStream, 'data'));
    const task = await eventually('it is shown as running', async () => {
      const shown = await rig.ctr.task('clock');
      return shown?.status === 'RUNNING' && shown;
    });
    client.kill('SIGKILL');
    await rig.daemon.restart();
    assert.deepEqual(await rig.ctr.task('clock'), task);
    const attached = rig.ctr.spawn(['tasks', 'attach', 'clock']);
    await soon('it prints on', once(attached.stdout as NodeJS.ReadableStream, 'data'));
    attached.kill('SIGKILL');
    await rig.ctr.remove('clock');
  });

  it('stdin ends only by CloseIO, not when a writer leaves', async () => {
    const path = (name: string) => join(rig.ctr.fifos, `stdin-${name}`);
    for (const name of ['in', 'out']) execFileSync('mkfifo', [path(name)]);
    await rig.ctr.create('patient', ['/bin/sh', '/patient']);
    writeFileSync(join(sharedRootfs(), 'patient'), 'cat; echo ended\n');
    using connection = rig.daemon.connect();
    const tasks = connection.service(TasksDefinition, rig.ctr.namespace);
    const reader: Promise<string> = readFile(path('out'), 'utf8');
    const handles: FileHandle[] = [];
    try {
      await tasks.create({
        containerId: 'patient',
        stdin: path('in'),
        stdout: path('out'),
        stderr: '/dev/null',
      });
      await tasks.start({ containerId: 'patient' });
      for (const text of ['first\n', 'second\n']) {
        const writer = await open(path('in'), constants.O_WRONLY);
        handles.push(writer);
        await writer.write(text);
        await writer.close();
        handles.pop();
      }
      assert.equal((await rig.ctr.task('patient'))?.status, 'RUNNING');
      const settled = await Promise.race([
        reader,
        tasks.listPids({ containerId: 'patient' }).then(() => 'open'),
      ]);
      assert.equal(settled, 'open', 'stdin is open though its writers have left');
      await tasks.closeIO({ containerId: 'patient', stdin: true });
      assert.equal(await reader, 'first\nsecond\nended\n');
    } finally {
      for (const handle of handles) await handle.close();
      await rig.ctr.remove('patient');
    }
  });

  it('an exec that leaves a child behind prints, and does not wait for the child', async () => {
    await rig.ctr.runDetached('parent', ['/bin/sleep', '1000']);
    const outcome = await rig.ctr.exec('parent', ['/bin/sh', '-c', 'sleep 60 & echo x']);
    assert.deepEqual([outcome.stdout, outcome.code], ['x\n', 0]);
    assert.equal(containerPids(rig.ctr.namespace, 'parent').length, 2, 'the child lives on');
    await rig.ctr.remove('parent');
  });

  it('a client that reads late gets everything', async () => {
    const bytes = block().subarray(0, 300_000);
    const command = ['/bin/sh', '-c', 'head -c 300000 /block; exit 2'];
    const client = rig.ctr.spawn(rig.ctr.runArgs('early', command, ['--rm']));
    await eventually('it has begun', async () => (await rig.ctr.tasks()).has('early'));
    const [seen] = await Promise.all([digestOf(client.stdout), once(client, 'close')]);
    assert.deepEqual(seen, await digestOfRepeated(bytes, 1));
    assert.equal(client.exitCode, 2);
  });
});

suite('a terminal', { peers: ['moord'] }, (rig) => {
  it('is one: tty shows it, it has the client’s size and follows resizes', async () => {
    const command = ['/bin/sh', '-c', 'tty; trap "stty size" WINCH; stty size; while :; do sleep 0.05; done'];
    const terminal = rig.ctr.terminal(rig.ctr.runArgs('screen', command, ['--rm', '-t']), {
      cols: 91,
      rows: 27,
    });
    await terminal.sees(/\/dev\/(pts\/\d+|console)/);
    await terminal.sees(/27 91/);
    // ctr tells the size once and listens for changes after that: one in between is lost.
    await eventually('the new size arrives', () => {
      terminal.resize(119, 40);
      terminal.resize(120, 40);
      return terminal.shown.includes('40 120');
    });
    terminal.resize(60, 20);
    await terminal.sees(/20 60/);
    await rig.ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'screen');
    assert.equal(await terminal.exited(), 137);
  });

  it('carries Ctrl-C to the process', async () => {
    const command = [
      '/bin/sh',
      '-c',
      'trap "echo interrupted; exit 8" INT; echo ready; while :; do sleep 0.05; done',
    ];
    const terminal = rig.ctr.terminal(rig.ctr.runArgs('keys', command, ['--rm', '-t']));
    await terminal.sees(/ready/);
    terminal.type('\x03');
    await terminal.sees(/interrupted/);
    assert.equal(await terminal.exited(), 8);
  });

  it('carries a conversation with a shell, of an init and of an exec', async () => {
    await rig.ctr.runDetached('room', ['/bin/sleep', '1000']);
    for (const args of [
      rig.ctr.runArgs('shell', ['/bin/sh'], ['--rm', '-t']),
      rig.ctr.execArgs('room', ['/bin/sh'], ['-t']),
    ]) {
      const terminal = rig.ctr.terminal(args);
      await terminal.sees(/# /);
      terminal.type('echo $((6 * 7)) is it\r');
      await terminal.sees(/42 is it/);
      terminal.type('exit 11\r');
      assert.equal(await terminal.exited(), 11);
    }
    await rig.ctr.remove('room');
  });

  it('can be left and attached to again', async () => {
    const command = ['/bin/sh', '-c', 'while read line; do echo "<$line>"; done'];
    const first = rig.ctr.terminal(rig.ctr.runArgs('desk', command, ['-t']));
    await eventually('it runs', async () => (await rig.ctr.task('desk'))?.status === 'RUNNING');
    first.type('one\r');
    await first.sees(/<one>/);
    first.kill();
    await first.exited();
    const second = rig.ctr.terminal(['tasks', 'attach', 'desk']);
    second.type('two\r');
    await second.sees(/<two>/);
    assert.equal((await rig.ctr.task('desk'))?.status, 'RUNNING');
    second.kill();
    await rig.ctr.remove('desk');
  });

  it('prints a lot without losing any of it', async () => {
    const command = [
      '/bin/sh',
      '-c',
      'i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; echo done; read line',
    ];
    const terminal = rig.ctr.terminal(rig.ctr.runArgs('chatty', command, ['--rm', '-t']));
    // node-pty itself forgets what it has not read 200 ms after the exit, so the process stays until all is seen.
    await terminal.sees(/done/, { within: 20_000 });
    terminal.type('\r');
    assert.equal(await terminal.exited(), 0);
    assert.equal(terminal.shown.match(/0123456789/g)?.length, 20_000);
  });
});
