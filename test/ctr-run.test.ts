/** `ctr run`, as on containerd: output, exit codes, and what is there during and afterwards. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { containerPids } from './harness/daemon.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { alive } from './harness/processes.ts';
import { eventually, soon } from './harness/wait.ts';

suite('ctr run', {}, (rig) => {
  it('prints what the process prints, apart on stdout and stderr, and exits as the process does', async () => {
    const outcome = await rig.ctr.run('split', ['/bin/sh', '-c', 'echo out; echo err >&2; exit 7']);
    assert.equal(outcome.stdout, 'out\n');
    assert.equal(outcome.stderr, 'err\n');
    assert.equal(outcome.code, 7);
    assert.ok(!(await rig.ctr.tasks()).has('split'), 'ctr run deletes the task it waited for');
    await rig.ctr.ok('containers', 'info', 'split');
    await rig.ctr.ok('containers', 'rm', 'split');
  });

  for (const code of [0, 1, 42, 255])
    it(`exits ${code} with a process that exits ${code}`, async () => {
      const outcome = await rig.ctr.run(`exit-${code}`, ['/bin/sh', '-c', `exit ${code}`], ['--rm']);
      assert.equal(outcome.code, code);
    });

  it('exits 128 + n when signal n ended the process', async () => {
    const running = rig.ctr.run('signalled', ['/bin/sleep', '100'], ['--rm']);
    await eventually('it runs', async () => (await rig.ctr.task('signalled'))?.status === 'RUNNING');
    await rig.ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'signalled');
    assert.equal((await running).code, 137);
  });

  it('--rm leaves nothing', async () => {
    const before = holdings(rig.daemon);
    assert.equal((await rig.ctr.run('removed', ['/bin/true'], ['--rm'])).code, 0);
    assert.match((await rig.ctr.call(['containers', 'info', 'removed'])).stderr, /not found/);
    await expectNothingLeft(rig.daemon, before);
  });

  it('-d returns while the container runs', async () => {
    const pidFile = join(rig.daemon.directory, 'pid');
    await rig.ctr.runDetached('detached', ['/bin/sleep', '100'], ['--pid-file', pidFile]);
    const task = await rig.ctr.task('detached');
    assert.equal(task?.status, 'RUNNING');
    assert.equal(Number(readFileSync(pidFile, 'utf8')), task?.pid);
    assert.ok(alive(task?.pid ?? 0));
    await rig.ctr.remove('detached');
    await eventually(
      'its processes are gone',
      () => containerPids(rig.ctr.namespace, 'detached').length === 0,
    );
  });

  it('gives the process what stdin holds, and the end of it', async () => {
    const outcome = await rig.ctr.run('stdin', ['/bin/cat'], ['--rm'], { input: 'one\ntwo\n' });
    assert.equal(outcome.stdout, 'one\ntwo\n');
    assert.equal(outcome.code, 0);
  });

  it('passes environment, working directory, labels, annotations and mounts', async () => {
    const hostFile = join(rig.daemon.directory, 'given');
    writeFileSync(hostFile, 'from the host\n');
    const flags = ['--env', 'GIVEN=a b', '--cwd', '/tmp', '--label', 'com.example/kind=test'].concat(
      ['--annotation', 'com.example.note=yes'],
      ['--mount', `type=bind,src=${hostFile},dst=/tmp/given,options=rbind:ro`],
    );
    const outcome = await rig.ctr.run(
      'dressed',
      ['/bin/sh', '-c', 'echo "$GIVEN"; pwd; cat /tmp/given; echo x >> /tmp/given'],
      flags,
    );
    assert.equal(outcome.stdout, 'a b\n/tmp\nfrom the host\n');
    assert.match(outcome.stderr, /Read-only file system/);
    const info = JSON.parse(await rig.ctr.ok('containers', 'info', 'dressed')) as {
      Labels: Record<string, string>;
      Spec: { annotations: Record<string, string> };
    };
    assert.equal(info.Labels['com.example/kind'], 'test');
    assert.equal(info.Spec.annotations['com.example.note'], 'yes');
    await rig.ctr.ok('containers', 'rm', 'dressed');
  });

  it('--read-only keeps the root file system from being written', async () => {
    const outcome = await rig.ctr.run('fixed', ['/bin/touch', '/tmp/x'], ['--rm', '--read-only']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /Read-only file system/);
  });

  it('--memory-limit holds, and a process beyond it is killed', async () => {
    const outcome = await rig.ctr.run(
      'limited',
      ['/bin/sh', '-c', 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes; exec tail /dev/zero'],
      [
        '--rm',
        '--memory-limit',
        '16777216',
        '--mount',
        'type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro',
      ],
    );
    assert.equal(outcome.stdout, '16777216\n');
    assert.equal(outcome.code, 137);
  });

  it('--null-io runs without any stdio', async () => {
    const outcome = await rig.ctr.run(
      'silent',
      ['/bin/sh', '-c', 'echo lost; exit 3'],
      ['--rm', '--null-io'],
    );
    assert.equal(outcome.stdout, '');
    assert.equal(outcome.code, 3);
  });

  it('--log-uri file:// writes the output to that file', async () => {
    const file = join(rig.daemon.directory, 'out.log');
    const args = rig.ctr
      .runArgs('logged', ['/bin/sh', '-c', 'echo kept'], ['--rm', '--log-uri', `file://${file}`])
      .filter((arg, index, all) => arg !== '--fifo-dir' && all[index - 1] !== '--fifo-dir');
    assert.equal((await rig.ctr.call(args)).code, 0);
    assert.equal(readFileSync(file, 'utf8'), 'kept\n');
  });

  it('-t gives the process a terminal, and exits as it does', async () => {
    const command = ['/bin/sh', '-c', 'test -t 0 && test -t 1 && echo is a $(tty); read line; exit 5'];
    const terminal = rig.ctr.terminal(rig.ctr.runArgs('console', command, ['--rm', '-t']));
    await terminal.sees(/is a \/dev\/(pts\/0|console)\r+\n/);
    terminal.type('go\r');
    assert.equal(await terminal.exited(), 5);
  });

  it('forwards a signal it gets to the process', async () => {
    const command = [
      '/bin/sh',
      '-c',
      'trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.1; done',
    ];
    // ctr listens for signals only once Start has answered, and nothing shows that: one that comes too early ends it.
    for (const pause of [500, 5000, 20_000]) {
      const child = rig.ctr.spawn(rig.ctr.runArgs('forwarded', command, ['--rm']));
      let out = '';
      child.stdout?.on('data', (chunk: Buffer) => (out += chunk.toString()));
      const closed = once(child, 'close');
      await eventually('the process is ready', () => out.includes('ready'));
      await delay(pause);
      child.kill('SIGTERM');
      const [code, signal] = await soon('ctr ends', closed);
      if (signal === 'SIGTERM') {
        await rig.ctr.remove('forwarded');
        continue;
      }
      assert.deepEqual([code, out], [9, 'ready\ncaught\n']);
      return;
    }
    assert.fail('ctr was ended each time');
  });

  it('a command that does not exist fails with the runtime’s own words, and can be repeated', async () => {
    const before = holdings(rig.daemon);
    for (let round = 0; round < 2; round += 1) {
      const outcome = await rig.ctr.run('absent', ['/bin/nope'], ['--rm']);
      assert.equal(outcome.code, 1);
      assert.match(outcome.stderr, /OCI runtime create failed: .*\/bin\/nope.*no such file or directory/);
    }
    await rig.ctr.remove('absent');
    await expectNothingLeft(rig.daemon, before);
  });

  it('an id that is taken is refused while the first container is untouched', async () => {
    await rig.ctr.runDetached('taken', ['/bin/sleep', '100']);
    const first = await rig.ctr.task('taken');
    const outcome = await rig.ctr.run('taken', ['/bin/true']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /already exists/);
    assert.deepEqual(await rig.ctr.task('taken'), first);
    await rig.ctr.remove('taken');
  });

  it('--runc-binary runs that runtime', async () => {
    const wrapper = join(rig.daemon.directory, 'my-runc');
    const trace = join(rig.daemon.directory, 'trace');
    writeFileSync(wrapper, `#!/bin/sh\necho "$*" >> ${trace}\nexec runc "$@"\n`, { mode: 0o755 });
    const outcome = await rig.ctr.run('wrapped', ['/bin/echo', 'hi'], ['--rm', '--runc-binary', wrapper]);
    assert.equal(outcome.stdout, 'hi\n');
    assert.match(readFileSync(trace, 'utf8'), /create --bundle .* wrapped\n(.*\n)*.*start wrapped\n/);
  });
});
