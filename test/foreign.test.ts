/**
 * Shims and daemons of different makers: Debian's containerd runs Moor's shim, and Moor runs Debian's, each by absolute
 * path and over a restart of the daemon.
 */
import assert from 'node:assert/strict';
import { after, before, describe as group, it } from 'node:test';
import type { Ctr } from './harness/ctr.ts';
import { Daemon, containerPids, shimBinary, type Peer } from './harness/daemon.ts';
import { EventStream } from './harness/events.ts';
import { Gate } from './harness/gate.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { alive, commandLine, killProcess, processOf } from './harness/processes.ts';
import { eventually } from './harness/wait.ts';

interface Pairing {
  readonly daemon: Peer;
  readonly shim: Peer;
}

const ownShim: Pairing = { daemon: 'containerd', shim: 'containerd' };
const pairings: Pairing[] = [
  { daemon: 'containerd', shim: 'moord' },
  { daemon: 'moord', shim: 'containerd' },
];

/** With TEST_PEERS=containerd: Debian's daemon with Debian's shim, to show that the checks are right. */
const chosen = process.env['TEST_PEERS'] === 'containerd' ? [ownShim] : pairings;

for (const pairing of chosen) {
  const runtime = shimBinary[pairing.shim];
  const flags = ['--runtime', runtime];

  group(`${pairing.daemon} runs ${runtime.replace(/.*\//, '')} by path`, { timeout: 240_000 }, () => {
    let daemon: Daemon;
    let ctr: Ctr;
    before(async () => {
      daemon = await Daemon.start(pairing.daemon);
      ctr = daemon.ctr();
    });
    after(async () => {
      await daemon?.stop();
    });

    it('run: output, errors and exit codes', async () => {
      const command = ['/bin/sh', '-c', 'cat; echo err >&2; exit 7'];
      const outcome = await ctr.run('plain', command, ['--rm', ...flags], { input: 'in\n' });
      assert.deepEqual([outcome.stdout, outcome.stderr, outcome.code], ['in\n', 'err\n', 7]);
      assert.equal((await ctr.run('fine', ['/bin/true'], ['--rm', ...flags])).code, 0);
      const absent = await ctr.run('absent', ['/bin/nope'], ['--rm', ...flags]);
      assert.equal(absent.code, 1);
      assert.match(absent.stderr, /\/bin\/nope.*no such file or directory/);
    });

    it('the shim is the one asked for', async () => {
      await ctr.runDetached('asked', ['/bin/sleep', '1000'], flags);
      const shim = processOf((await ctr.task('asked'))?.pid ?? 0)?.parent ?? 0;
      assert.match(commandLine(shim), pairing.shim === 'moord' ? /shim/ : /containerd-shim-runc-v2/);
      assert.equal(JSON.parse(await ctr.ok('containers', 'info', 'asked')).Runtime.Name, runtime);
      await ctr.remove('asked');
    });

    it('exec, ps, metrics, pause, resume, kill', async () => {
      await ctr.runDetached('full', ['/bin/sleep', '1000'], flags);
      const exec = await ctr.exec('full', ['/bin/sh', '-c', 'echo x; exit 3']);
      assert.deepEqual([exec.stdout, exec.code], ['x\n', 3]);
      const pid = (await ctr.task('full'))?.pid;
      assert.match(await ctr.ok('tasks', 'ps', 'full'), new RegExp(`^${pid}\\s`, 'm'));
      assert.match(await ctr.ok('tasks', 'metrics', 'full'), /pids\.current\s+1\b/);
      await ctr.ok('tasks', 'pause', 'full');
      assert.equal((await ctr.task('full'))?.status, 'PAUSED');
      await ctr.ok('tasks', 'resume', 'full');
      assert.equal((await ctr.task('full'))?.status, 'RUNNING');
      await ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'full');
      await eventually('it stops', async () => (await ctr.task('full'))?.status === 'STOPPED');
      assert.match((await ctr.call(['tasks', 'rm', 'full'])).stderr, /exit code 137/);
      await ctr.ok('containers', 'rm', 'full');
    });

    it('a terminal works', async () => {
      const resized = 'until stty size 2>/dev/null | grep -q "33 101"; do sleep 0.02; done';
      const command = ['/bin/sh', '-c', `tty; ${resized}; echo resized; read line; exit 5`];
      const terminal = ctr.terminal(ctr.runArgs('console', command, ['--rm', '-t', ...flags]));
      await terminal.sees(/\/dev\/(pts\/\d|console)/);
      // ctr tells the size once and listens for changes after that: one in between is lost.
      await eventually('the size arrives', () => {
        terminal.resize(100, 33);
        terminal.resize(101, 33);
        return terminal.shown.includes('resized');
      });
      terminal.type('go\n');
      assert.equal(await terminal.exited(), 5);
    });

    it('events come in order, each once', async () => {
      using events = await EventStream.open(ctr);
      await ctr.run('told', ['/bin/sh', '-c', 'exit 4'], ['--rm', ...flags]);
      await events.sees('told', '/containers/delete');
      assert.deepEqual(
        events.of('told').map(({ topic }) => topic),
        [
          '/containers/create',
          '/tasks/create',
          '/tasks/start',
          '/tasks/exit',
          '/tasks/delete',
          '/containers/delete',
        ],
      );
      assert.equal(events.of('told', '/tasks/exit')[0]?.body['exit_status'], 4);
    });

    it('the daemon is killed and started: same pids, exec works, an exit meanwhile is known', async () => {
      const gate = new Gate();
      await ctr.runDetached('stays', ['/bin/sleep', '1000'], flags);
      await ctr.runDetached('leaves', ['/bin/sh', '-c', `${gate.wait}; exit 42`], flags);
      const tasks = await ctr.tasks();
      await daemon.kill9();
      gate.open();
      await eventually('it ends', () => containerPids(ctr.namespace, 'leaves').length === 0);
      await daemon.start();
      assert.deepEqual(await ctr.task('stays'), tasks.get('stays'));
      assert.equal((await ctr.exec('stays', ['/bin/echo', 'here'])).stdout, 'here\n');
      assert.equal((await ctr.task('leaves'))?.status, 'STOPPED');
      assert.match((await ctr.call(['tasks', 'rm', 'leaves'])).stderr, /exit code 42/);
      await ctr.ok('containers', 'rm', 'leaves');
      await ctr.remove('stays');
    });

    it('the shim is killed: exit 137 is told, and the container can be deleted', async () => {
      using events = await EventStream.open(ctr);
      await ctr.runDetached('struck', ['/bin/sh', '-c', 'sleep 1000 & wait'], flags);
      const pid = (await ctr.task('struck'))?.pid ?? 0;
      await killProcess(processOf(pid)?.parent ?? 0);
      const exit = await events.sees('struck', '/tasks/exit');
      assert.equal(exit.body['exit_status'], 137);
      await eventually('its processes are gone', () => containerPids(ctr.namespace, 'struck').length === 0);
      assert.ok(!alive(pid));
      await eventually('it can be deleted', async () => {
        await ctr.call(['tasks', 'rm', 'struck']);
        return (await ctr.call(['containers', 'rm', 'struck'])).code === 0;
      });
    });

    it('nothing is left of ten containers', async () => {
      await ctr.tasks();
      const held = holdings(daemon);
      for (let round = 0; round < 10; round += 1) {
        await ctr.runDetached('round', ['/bin/sleep', '1000'], flags);
        await ctr.exec('round', ['/bin/true']);
        await ctr.remove('round');
      }
      await expectNothingLeft(daemon, held);
    });
  });
}
