/** `ctr container …`, as on containerd. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { suite } from './harness/peers.ts';
import { eventually } from './harness/wait.ts';

interface Info {
  readonly ID: string;
  readonly Labels: Readonly<Record<string, string>>;
  readonly Runtime: { readonly Name: string; readonly Options?: { readonly type_url: string } };
  readonly CreatedAt: string;
  readonly UpdatedAt: string;
  readonly Spec: { readonly process: { readonly args: readonly string[] } };
}

suite('ctr container', {}, (rig) => {
  const info = async (id: string) => JSON.parse(await rig.ctr.ok('containers', 'info', id)) as Info;

  it('create makes a container without a task, which info shows as it was given', async () => {
    const began = Date.now();
    await rig.ctr.create('plain', ['/bin/sleep', '100'], ['--label', 'a=1', '--label', 'com.example/b=two']);
    const made = await info('plain');
    assert.equal(made.ID, 'plain');
    assert.deepEqual(made.Labels, { a: '1', 'com.example/b': 'two' });
    assert.equal(made.Runtime.Name, 'io.containerd.runc.v2');
    assert.deepEqual(made.Spec.process.args, ['/bin/sleep', '100']);
    assert.equal(made.CreatedAt, made.UpdatedAt);
    assert.ok(Date.parse(made.CreatedAt) >= began - 1000 && Date.parse(made.CreatedAt) <= Date.now() + 1000);
    assert.equal(await rig.ctr.task('plain'), undefined);
    await rig.ctr.ok('containers', 'rm', 'plain');
    const gone = await rig.ctr.call(['containers', 'info', 'plain']);
    assert.equal(gone.code, 1);
    assert.match(gone.stderr, /container "plain".*: not found/);
  });

  it('create of an id that exists is refused', async () => {
    await rig.ctr.create('twice', ['/bin/true']);
    const outcome = await rig.ctr.call(['containers', 'create', '--rootfs', '/tmp', 'twice', '/bin/true']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /container "twice": already exists/);
    await rig.ctr.ok('containers', 'rm', 'twice');
  });

  it('ls lists, -q shows ids, and filters choose', async () => {
    await rig.ctr.create('first', ['/bin/true'], ['--label', 'tier=web']);
    await rig.ctr.create('second', ['/bin/true'], ['--label', 'tier=db', '--label', 'com.example/x=y']);
    const table = await rig.ctr.ok('containers', 'ls');
    assert.match(table, /^CONTAINER\s+IMAGE\s+RUNTIME\s*\n/);
    assert.match(table, /^first\s+-\s+io\.containerd\.runc\.v2\s*$/m);
    const ids = async (...filters: string[]) =>
      (await rig.ctr.ok('containers', 'ls', '-q', ...filters)).split('\n').slice(0, -1);
    assert.deepEqual(await ids(), ['first', 'second']);
    assert.deepEqual(await ids('labels.tier==web'), ['first']);
    assert.deepEqual(await ids('labels.tier!=web'), ['second']);
    assert.deepEqual(await ids('labels."com.example/x"==y'), ['second']);
    assert.deepEqual(await ids('labels."com.example/x"'), ['second']);
    assert.deepEqual(await ids('id~=^f'), ['first']);
    assert.deepEqual(await ids('id==first', 'id==second'), ['first', 'second']);
    assert.deepEqual(await ids('id==first,labels.tier==db'), []);
    const bad = await rig.ctr.call(['containers', 'ls', 'labels.tier=web']);
    assert.equal(bad.code, 1);
    assert.match(bad.stderr, /invalid argument/);
    await rig.ctr.ok('containers', 'rm', 'first', 'second');
    assert.deepEqual(await ids(), []);
  });

  it('label sets and clears, and nothing else changes but the time', async () => {
    await rig.ctr.create('labelled', ['/bin/true'], ['--label', 'keep=1']);
    const before = await info('labelled');
    await rig.ctr.ok('containers', 'label', 'labelled', 'more=2', 'keep=3');
    const set = await info('labelled');
    assert.deepEqual(set.Labels, { keep: '3', more: '2' });
    assert.deepEqual({ ...set, Labels: 0, UpdatedAt: 0 }, { ...before, Labels: 0, UpdatedAt: 0 });
    assert.ok(Date.parse(set.UpdatedAt) >= Date.parse(before.UpdatedAt));
    await rig.ctr.ok('containers', 'label', 'labelled', 'keep=');
    assert.equal((await info('labelled')).Labels['more'], '2');
    assert.equal((await info('labelled')).Labels['keep'] ?? '', '');
    const unknown = await rig.ctr.call(['containers', 'label', 'nobody', 'a=b']);
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /not found/);
    await rig.ctr.ok('containers', 'rm', 'labelled');
  });

  it('a label of more than 4096 bytes is refused', async () => {
    const outcome = await rig.ctr.call([
      'containers',
      'create',
      '--label',
      `k=${'v'.repeat(5000)}`,
      '--rootfs',
      '/tmp',
      'heavy',
      '/bin/true',
    ]);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /4096.*: invalid argument/);
  });

  it('rm refuses a container whose task is there, and takes many at once', async () => {
    await rig.ctr.runDetached('alive', ['/bin/sleep', '100']);
    await rig.ctr.create('idle', ['/bin/true']);
    const outcome = await rig.ctr.call(['containers', 'rm', 'alive', 'idle', 'absent']);
    assert.equal(outcome.code, 1);
    assert.match(
      outcome.stderr,
      /failed to delete container \\?"alive\\?".*cannot delete a non stopped container: \{running 0/,
    );
    assert.match(outcome.stderr, /failed to delete container \\?"absent\\?".*not found/);
    assert.equal(await rig.ctr.ok('containers', 'ls', '-q'), 'alive\n');
    await rig.ctr.remove('alive');
  });

  it('rm takes a container whose task has stopped, and the task with it', async () => {
    await rig.ctr.runDetached('stopped', ['/bin/true']);
    await eventually('it stops', async () => (await rig.ctr.task('stopped'))?.status === 'STOPPED');
    await rig.ctr.ok('containers', 'rm', 'stopped');
    assert.equal((await rig.ctr.tasks()).size, 0);
  });
});
