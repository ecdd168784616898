/** `ctr task …`, as on containerd: every verb, its output and its exit code. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { it } from 'node:test';
import { containerPids } from './harness/daemon.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { alive, processOf } from './harness/processes.ts';
import { script } from './harness/rootfs.ts';
import { eventually } from './harness/wait.ts';

suite('ctr task', {}, (rig) => {
  it('start runs a created container, and exits as its process does', async () => {
    await rig.ctr.create('made', script('echo started; exit 4'));
    const outcome = await rig.ctr.call(['tasks', 'start', '--fifo-dir', rig.ctr.fifos, 'made']);
    assert.equal(outcome.stdout, 'started\n');
    assert.equal(outcome.code, 4);
    const again = await rig.ctr.call(['tasks', 'start', '--fifo-dir', rig.ctr.fifos, 'made']);
    assert.equal(again.code, 4, 'a container whose task was deleted can be started again');
    await rig.ctr.ok('containers', 'rm', 'made');
  });

  it('start of a running container says that its task exists', async () => {
    await rig.ctr.runDetached('busy', ['/bin/sleep', '100']);
    const outcome = await rig.ctr.call(['tasks', 'start', '-d', 'busy']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /task busy(: | )?already exists/);
    assert.equal((await rig.ctr.task('busy'))?.status, 'RUNNING');
    await rig.ctr.remove('busy');
  });

  it('exec prints and exits as the process does, with its own directory and user', async () => {
    await rig.ctr.runDetached('host', ['/bin/sleep', '100']);
    const outcome = await rig.ctr.exec(
      'host',
      ['/bin/sh', '-c', 'pwd; echo err >&2; exit 3'],
      ['--cwd', '/tmp'],
    );
    assert.equal(outcome.stdout, '/tmp\n');
    assert.equal(outcome.stderr, 'err\n');
    assert.equal(outcome.code, 3);
    const user = await rig.ctr.exec('host', ['/bin/id', '-u'], ['--user', '1234']);
    assert.equal(user.stdout, '1234\n');
    const input = await rig.ctr.exec('host', ['/bin/cat'], [], { input: 'through\n' });
    assert.equal(input.stdout, 'through\n');
    assert.equal((await rig.ctr.exec('host', ['/bin/true'])).code, 0);
    await rig.ctr.remove('host');
  });

  it('exec of a command that does not exist fails with the runtime’s own words', async () => {
    await rig.ctr.runDetached('host-2', ['/bin/sleep', '100']);
    const outcome = await rig.ctr.exec('host-2', ['/bin/nope']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /OCI runtime exec failed: .*\/bin\/nope.*no such file or directory/);
    assert.equal((await rig.ctr.exec('host-2', ['/bin/true'])).code, 0, 'the container is unharmed');
    await rig.ctr.remove('host-2');
  });

  it('exec -d leaves a process that ps shows, kill --exec-id ends and rm --exec-id deletes', async () => {
    await rig.ctr.runDetached('crowd', ['/bin/sleep', '100']);
    await rig.ctr.ok(...rig.ctr.execArgs('crowd', ['/bin/sleep', '200'], ['-d', '--exec-id', 'other']));
    const lines = await eventually('two processes are listed', async () => {
      const listed = (await rig.ctr.ok('tasks', 'ps', 'crowd')).trimEnd().split('\n');
      return listed.length === 3 && listed;
    });
    assert.match(lines[0] ?? '', /^PID\s+INFO$/);
    const pids = lines.slice(1).map((line) => Number(line.trim().split(/\s+/)[0]));
    assert.deepEqual(new Set(pids), new Set(containerPids(rig.ctr.namespace, 'crowd')));
    assert.match(lines.join('\n'), /exec_id:\s*"other"|ExecID:other/i);
    const taken = await rig.ctr.exec('crowd', ['/bin/true'], ['--exec-id', 'other']);
    assert.match(taken.stderr, /already exists/);
    await rig.ctr.ok('tasks', 'kill', '-s', 'SIGKILL', '--exec-id', 'other', 'crowd');
    const removed = await eventually('the exec can be deleted', async () => {
      const outcome = await rig.ctr.call(['tasks', 'rm', '--exec-id', 'other', 'crowd']);
      return outcome.code !== 1 && outcome;
    });
    assert.equal(removed.code, 137);
    const gone = await rig.ctr.call(['tasks', 'kill', '--exec-id', 'other', 'crowd']);
    assert.equal(gone.code, 1);
    assert.match(gone.stderr, /not found/);
    await rig.ctr.remove('crowd');
  });

  it('kill sends SIGTERM, or the signal asked for, to the init or to all', async () => {
    const trap = 'trap "exit 21" USR1; sleep 300 & while :; do sleep 0.05; done';
    await rig.ctr.runDetached('target', ['/bin/sh', '-c', trap]);
    await eventually('it has a child', () => containerPids(rig.ctr.namespace, 'target').length >= 2);
    await rig.ctr.ok('tasks', 'kill', '-s', 'SIGUSR1', 'target');
    await eventually('it stops', async () => (await rig.ctr.task('target'))?.status === 'STOPPED');
    const removed = await rig.ctr.call(['tasks', 'rm', 'target']);
    assert.equal(removed.code, 0);
    assert.match(removed.stderr, /task target exit with non-zero exit code 21/);
    assert.equal((await rig.ctr.call(['containers', 'rm', 'target'])).code, 0);

    await rig.ctr.runDetached('all', ['/bin/sh', '-c', 'sleep 300 & sleep 300 & wait']);
    await eventually('it has children', () => containerPids(rig.ctr.namespace, 'all').length === 3);
    await rig.ctr.ok('tasks', 'kill', '--all', '-s', 'SIGKILL', 'all');
    await eventually('it stops', async () => (await rig.ctr.task('all'))?.status === 'STOPPED');
    assert.deepEqual(containerPids(rig.ctr.namespace, 'all'), []);
    await rig.ctr.remove('all');
  });

  it('kill of a stopped task says so', async () => {
    await rig.ctr.runDetached('over', ['/bin/true']);
    await eventually('it stops', async () => (await rig.ctr.task('over'))?.status === 'STOPPED');
    const outcome = await rig.ctr.call(['tasks', 'kill', 'over']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /process already finished: not found/);
    await rig.ctr.remove('over');
  });

  it('pause freezes, resume thaws, and ls shows it', async () => {
    await rig.ctr.runDetached('frozen', ['/bin/sh', '-c', 'while :; do :; done']);
    // runc gives up at once on a host whose processors are all taken.
    await eventually(
      'it is paused',
      async () => (await rig.ctr.call(['tasks', 'pause', 'frozen'])).code === 0,
    );
    const paused = await rig.ctr.task('frozen');
    assert.equal(paused?.status, 'PAUSED');
    assert.equal(processOf(paused?.pid ?? 0)?.state, 'D', 'the freezer holds it');
    const refused = await rig.ctr.exec('frozen', ['/bin/true']);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /paused/);
    await rig.ctr.ok('tasks', 'resume', 'frozen');
    assert.equal((await rig.ctr.task('frozen'))?.status, 'RUNNING');
    assert.equal((await rig.ctr.exec('frozen', ['/bin/true'])).code, 0);
    await rig.ctr.remove('frozen');
  });

  it('metrics tells memory, processor and processes', async () => {
    await rig.ctr.runDetached('measured', ['/bin/sleep', '100']);
    const table = await rig.ctr.ok('tasks', 'metrics', 'measured');
    assert.match(table, /^ID\s+TIMESTAMP\s*\nmeasured\s+\d{4}-/);
    assert.match(table, /memory\.usage_in_bytes\s+[1-9]\d*/);
    assert.match(table, /cpuacct\.usage\s+[1-9]\d*/);
    assert.match(table, /pids\.current\s+1\b/);
    const json = JSON.parse(await rig.ctr.ok('tasks', 'metrics', '--format', 'json', 'measured')) as {
      memory: { usage: { usage: number } };
      pids: { current: number };
    };
    assert.ok(json.memory.usage.usage > 0);
    assert.equal(json.pids.current, 1);
    await rig.ctr.remove('measured');
  });

  it('rm deletes a stopped task, refuses a running one, and -f kills it first', async () => {
    await rig.ctr.runDetached('kept', ['/bin/sleep', '100']);
    const pid = (await rig.ctr.task('kept'))?.pid ?? 0;
    const refused = await rig.ctr.call(['tasks', 'rm', 'kept']);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /task must be stopped before deletion: running: failed precondition/);
    assert.ok(alive(pid));
    assert.equal((await rig.ctr.call(['tasks', 'rm', '-f', 'kept'])).code, 0);
    assert.ok(!alive(pid));
    const absent = await rig.ctr.call(['tasks', 'rm', 'kept']);
    assert.equal(absent.code, 1);
    assert.match(absent.stderr, /no running task found: task kept not found: not found/);
    await rig.ctr.ok('containers', 'rm', 'kept');
  });

  it('attach shows the output of a detached container, and exits as it does', async () => {
    const loop = 'while read line; do [ $line = end ] && exit 6; echo got $line; done';
    const command = ['/bin/sh', '-c', loop];
    await rig.ctr.ok(...rig.ctr.runArgs('attached', command, ['-d']));
    const child = rig.ctr.spawn(['tasks', 'attach', 'attached'], ['pipe', 'pipe', 'inherit']);
    let output = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (output += text));
    const closed = once(child, 'close');
    // ctr opens its ends one by one, and closes them when it hears of the exit: what comes between is its own loss.
    await eventually('an answer is shown', () => {
      child.stdin?.write('this\n');
      return output.includes('got this\n');
    });
    child.stdin?.write('end\n');
    assert.deepEqual(await closed, [6, null]);
    await rig.ctr.remove('attached');
  });

  it('checkpoint fails with the runtime’s words and harms nothing where criu is missing', async () => {
    await rig.ctr.runDetached('point', ['/bin/sleep', '100']);
    const outcome = await rig.ctr.call(['tasks', 'checkpoint', 'point']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /criu|checkpoint/i);
    assert.equal((await rig.ctr.task('point'))?.status, 'RUNNING');
    await rig.ctr.remove('point');
  });

  it('ls lists no task of nothing, and -q only ids', async () => {
    assert.equal((await rig.ctr.tasks()).size, 0);
    await rig.ctr.runDetached('listed', ['/bin/sleep', '100']);
    assert.equal(await rig.ctr.ok('tasks', 'ls', '-q'), 'listed\n');
    await rig.ctr.remove('listed');
  });

  it('a whole life leaves nothing', async () => {
    await rig.ctr.tasks();
    const before = holdings(rig.daemon);
    await rig.ctr.runDetached('life', ['/bin/sleep', '100']);
    await rig.ctr.exec('life', ['/bin/true']);
    await rig.ctr.remove('life');
    await expectNothingLeft(rig.daemon, before);
  });
});
