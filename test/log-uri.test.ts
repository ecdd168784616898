/**
 * Log URIs: a program or a file that takes a container's output. On our daemon, and with our shim under Debian's; what
 * containerd's own shim does alike is checked there too with TEST_PEERS=containerd.
 */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe as group, it } from 'node:test';
import type { Ctr } from './harness/ctr.ts';
import { Daemon, shimBinary, type Peer } from './harness/daemon.ts';
import { Gate } from './harness/gate.ts';
import { Moor } from './harness/moor.ts';
import { alive } from './harness/processes.ts';
import { script, sharedRootfs } from './harness/rootfs.ts';
import { eventually } from './harness/wait.ts';

interface Setting {
  readonly daemon: Peer;
  readonly shim: Peer;
}

const reference: Setting = { daemon: 'containerd', shim: 'containerd' };
const settings: Setting[] = [
  { daemon: 'moord', shim: 'moord' },
  { daemon: 'containerd', shim: 'moord' },
];

const chosen = process.env['TEST_PEERS'] === 'containerd' ? [reference] : settings;

const LINES = 20_000;
const SEQUENCE = Array.from({ length: LINES }, (_, index) => `${index + 1}\n`).join('');

/** Starting a logger, and waiting for one, takes its time on a busy host. */
const PATIENT = { within: 60_000 };

for (const setting of chosen) {
  const runtime = shimBinary[setting.shim];
  const runtimeFlags = setting.daemon === setting.shim ? [] : ['--runtime', runtime];
  const better = setting.shim === 'moord' ? {} : { skip: 'containerd’s shim does not do that' };

  group(`log URIs on ${setting.daemon} with ${runtime.replace(/.*\//, '')}`, { timeout: 500_000 }, () => {
    let daemon: Daemon;
    let ctr: Ctr;
    let count = 0;
    before(async () => {
      daemon = await Daemon.start(setting.daemon);
      ctr = daemon.ctr();
    });
    after(async () => {
      await daemon?.stop();
    });

    /** A logging program that does as the shell script says; `$out` and `$err` are files of its own. */
    function logger(text: string) {
      count += 1;
      const path = (name: string) => join(daemon.directory, `logger-${count}-${name}`);
      const files = { program: path('program'), out: path('out'), err: path('err'), pid: path('pid') };
      const variables = Object.entries(files).map(([name, file]) => `${name}=${file}`);
      const head = ['#!/bin/sh', 'PATH=/bin:/usr/bin', ...variables, 'echo $$ > $pid'];
      writeFileSync(files.program, `${head.join('\n')}\n${text}\n`);
      chmodSync(files.program, 0o755);
      const read = (file: string) => (existsSync(file) ? readFileSync(file, 'utf8') : '');
      return {
        uri: `binary://${files.program}`,
        program: files.program,
        out: () => read(files.out),
        err: () => read(files.err),
        pid: () => Number(read(files.pid)),
      };
    }

    const COPY = 'exec 5>&-; cat <&3 >> $out & cat <&4 >> $err & wait';

    const run = (id: string, uri: string, command: readonly string[], flags: readonly string[] = []) =>
      ctr.call(ctr.runArgs(id, command, [...runtimeFlags, ...flags, '--log-uri', uri]).filter(notFifo));

    it('a program gets all of both outputs, its arguments and the names of the container', async () => {
      const log = logger(`echo "$@ $CONTAINER_NAMESPACE $CONTAINER_ID" >> $err; ${COPY}`);
      const print = ['/bin/sh', '-c', `seq 1 ${LINES}; echo bad >&2; exit 3`];
      const outcome = await run('full', `${log.uri}?color=red`, print, ['--rm']);
      assert.equal(outcome.code, 3, outcome.stderr);
      await eventually('all is written', () => log.out() === SEQUENCE, PATIENT);
      await eventually('errors', () => log.err() === `color red ${ctr.namespace} full\nbad\n`, PATIENT);
    });

    it('a program gets the output of a container that is created first, and of what is executed', async () => {
      const log = logger(COPY);
      await ctr.create('made', script(`seq 1 ${LINES}; sleep 1000`), runtimeFlags);
      await ctr.ok('tasks', 'start', '-d', '--log-uri', log.uri, 'made');
      await eventually('all is written', () => log.out() === SEQUENCE, PATIENT);
      const second = logger(COPY);
      const command = ['/bin/sh', '-c', `seq 1 ${LINES}; exit 4`];
      const args = ctr.execArgs('made', command, ['--log-uri', second.uri]).filter(notFifo);
      assert.equal((await ctr.call(args)).code, 4);
      await eventually('all of the exec is written', () => second.out() === SEQUENCE, PATIENT);
      assert.equal(log.out(), SEQUENCE);
      await ctr.remove('made');
      await eventually('the program has ended', () => !alive(log.pid()), PATIENT);
    });

    it('a program that is slow is given its time while the task is not deleted', async () => {
      const log = logger('exec 5>&-; sleep 4; cat <&3 >> $out');
      const outcome = await run('quick', log.uri, ['/bin/sh', '-c', 'seq 1 5000'], ['-d']);
      assert.equal(outcome.code, 0, outcome.stderr);
      await eventually('it has written all', () => log.out() === SEQUENCE.slice(0, 23_893), PATIENT);
      await ctr.remove('quick');
    });

    it('a program that does not end is made to when the task is deleted', async () => {
      const log = logger('trap "" TERM; exec 5>&-; while true; do sleep 0.2; done');
      await run('stubborn', log.uri, ['/bin/true'], ['-d']);
      await eventually('it runs', () => alive(log.pid()), PATIENT);
      await ctr.remove('stubborn');
      await eventually('it is gone', () => !alive(log.pid()), PATIENT);
    });

    it('a program that dies midway harms nobody: the container goes on', better, async () => {
      const log = logger('exec 5>&-; head -n 1 <&3 > $out; exit 1');
      const progress = join(sharedRootfs(), `progress-${setting.daemon}`);
      const write = `while true; do head -c 100000 /dev/zero | tr '\\0' x; echo; echo >> /progress-${setting.daemon}; done`;
      await run('bereft', log.uri, ['/bin/sh', '-c', write], ['-d']);
      const written = () => (existsSync(progress) ? readFileSync(progress, 'utf8').length : 0);
      await eventually('the program is gone', () => log.out() !== '' && !alive(log.pid()), PATIENT);
      const then = written();
      await eventually('the container writes on', () => written() > then + 20, PATIENT);
      assert.equal((await ctr.task('bereft'))?.status, 'RUNNING');
      await ctr.remove('bereft');
    });

    it('a program that leaves another to read in its place is not taken for dead', async () => {
      const log = logger('exec 5>&-; (cat <&3 >> $out) & exit 0');
      const gate = new Gate();
      await run('handed', log.uri, ['/bin/sh', '-c', `echo first; ${gate.wait}; seq 1 ${LINES}`], ['-d']);
      await eventually('the first line', () => log.out() === 'first\n' && !alive(log.pid()), PATIENT);
      gate.open();
      await eventually('all is written', () => log.out() === `first\n${SEQUENCE}`, PATIENT);
      await ctr.remove('handed');
    });

    it('a program that is never ready fails the creation, and is ended', better, async () => {
      const log = logger('exec sleep 1000');
      const outcome = await run('unready', log.uri, ['/bin/true'], ['-d']);
      assert.equal(outcome.code, 1);
      assert.ok(outcome.stderr.includes(`${log.program} is not ready after 10 s`), outcome.stderr);
      await eventually('it is gone', () => !alive(log.pid()), PATIENT);
      await ctr.remove('unready');
    });

    it('a program that is missing or cannot be run is named, and nothing is left', async () => {
      const missing = join(daemon.directory, 'no-logger');
      const absent = await run('absent', `binary://${missing}`, ['/bin/true'], ['-d']);
      assert.equal(absent.code, 1);
      assert.match(absent.stderr, /no-logger: no such file or directory/);
      const plain = logger(COPY);
      chmodSync(plain.program, 0o644);
      const barred = await run('barred', plain.uri, ['/bin/true'], ['-d']);
      assert.equal(barred.code, 1);
      assert.match(barred.stderr, /logger-\d+-program: permission denied/);
      assert.equal(await ctr.task('absent'), undefined);
      for (const id of ['absent', 'barred']) await ctr.remove(id);
    });

    it('the daemon is killed while a program logs: nothing is lost', async () => {
      const log = logger(COPY);
      const [one, two] = [new Gate(), new Gate()];
      const command = `echo begun; ${one.wait}; seq 1 ${LINES}; ${two.wait}; echo end; exit 9`;
      await run('lasting', log.uri, ['/bin/sh', '-c', command], ['-d']);
      await eventually('it has begun', () => log.out() === 'begun\n', PATIENT);
      await daemon.kill9();
      one.open();
      await eventually('it is logged without a daemon', () => log.out() === `begun\n${SEQUENCE}`, PATIENT);
      await daemon.start();
      two.open();
      await eventually('it is logged to the end', () => log.out() === `begun\n${SEQUENCE}end\n`, PATIENT);
      await eventually('it stops', async () => (await ctr.task('lasting'))?.status === 'STOPPED', PATIENT);
      assert.match((await ctr.call(['tasks', 'rm', 'lasting'])).stderr, /exit code 9/);
      await ctr.ok('containers', 'rm', 'lasting');
    });

    it('a file is made with the directories above it, and appended to', async () => {
      const file = join(daemon.directory, 'a/b c/log');
      const uri = `file://${file.replace(' ', '%20')}`;
      assert.equal((await run('filed', uri, ['/bin/sh', '-c', 'echo out; echo err >&2'], ['--rm'])).code, 0);
      assert.equal((await run('filed', uri, ['/bin/echo', 'again'], ['--rm'])).code, 0);
      await eventually('it is written', () => readFileSync(file, 'utf8').endsWith('again\n'), PATIENT);
      assert.deepEqual(readFileSync(file, 'utf8').split('\n').sort(), ['', 'again', 'err', 'out']);
    });

    it('a URI that cannot be opened is refused, with the reason', better, async () => {
      const refused: [string, RegExp][] = [
        ['file:///dev/null/log', /\/dev\/null\/log: .*(ENOTDIR|EEXIST|not a directory)/],
        ['file://host/log', /file:\/\/host\/log names no file/],
        ['binary://host/logger', /binary:\/\/host\/logger names no file/],
      ];
      for (const [uri, reason] of refused) {
        const outcome = await run('refused', uri, ['/bin/true'], ['-d']);
        assert.equal(outcome.code, 1, uri);
        assert.match(outcome.stderr, reason);
        await ctr.remove('refused');
      }
    });

    if (setting.daemon !== 'moord') return;
    it('moor run and moor tasks exec take log URIs as well', async () => {
      const moor = new Moor(daemon, ctr.namespace);
      const log = logger(COPY);
      const args = ['run', '-d', '--log-uri', log.uri, '--rootfs', sharedRootfs(), 'mine'];
      await moor.ok(...args, ...script(`seq 1 ${LINES}; sleep 1000`));
      await eventually('all is written', () => log.out() === SEQUENCE, PATIENT);
      const second = logger(COPY);
      await moor.ok('tasks', 'exec', '--log-uri', second.uri, 'mine', '/bin/echo', 'hello');
      await eventually('the exec is written', () => second.out() === 'hello\n', PATIENT);
      const nope = await moor.call(['tasks', 'exec', '--log-uri', 'binary:///nope', 'mine', '/bin/true']);
      assert.match(nope.stderr, /\/nope: no such file or directory/);
      await ctr.remove('mine');
    });
  });
}

/** ctr does not take a directory of FIFOs with a log URI everywhere. */
function notFifo(arg: string, index: number, args: readonly string[]): boolean {
  return arg !== '--fifo-dir' && args[index - 1] !== '--fifo-dir';
}
