/** What ctr asks of the daemon besides containers: namespaces, events, plugins, version, leases. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { EventStream } from './harness/events.ts';
import { suite } from './harness/peers.ts';
import { eventually } from './harness/wait.ts';

suite('ctr', {}, (rig) => {
  it('version shows client and server', async () => {
    const shown = await rig.ctr.ok('version');
    assert.match(shown, /Server:\n\s+Version:\s+\S+\n\s+Revision:.*\n\s+UUID: [0-9a-f-]{36}\n/);
    assert.equal((await rig.ctr.ok('version')).split('UUID')[1], shown.split('UUID')[1]);
  });

  it('plugins ls shows what the daemon is made of, all in order', async () => {
    const lines = (await rig.ctr.ok('plugins', 'ls')).trimEnd().split('\n');
    assert.match(lines[0] ?? '', /^TYPE\s+ID\s+PLATFORMS\s+STATUS\s*$/);
    const plugins = lines.slice(1).map((line) => line.trim().split(/\s+/));
    for (const id of ['containers', 'tasks', 'events', 'namespaces', 'version', 'introspection', 'leases'])
      assert.ok(
        plugins.some(([type, name]) => type === 'io.containerd.grpc.v1' && name === id),
        `${id} is listed`,
      );
    const working = plugins.filter(([, , , status]) => status === 'ok');
    assert.ok(working.length > 8, lines.join('\n'));
    assert.match(
      await rig.ctr.ok('plugins', 'ls', '-d', 'id==tasks'),
      /Type:\s+io\.containerd\.grpc\.v1\nID:\s+tasks\n/,
    );
    const types = (await rig.ctr.ok('plugins', 'ls', '-q')).trimEnd().split('\n').slice(1);
    assert.ok(types.length > 8);
  });

  it('namespaces are created, labelled, listed and removed', async () => {
    await rig.ctr.ok('namespaces', 'create', 'room', 'a=1');
    assert.match(await rig.ctr.ok('namespaces', 'ls'), /^room\s+a=1\s*$/m);
    const taken = await rig.ctr.call(['namespaces', 'create', 'room']);
    assert.equal(taken.code, 1);
    assert.match(taken.stderr, /namespace "room": already exists/);
    await rig.ctr.ok('namespaces', 'label', 'room', 'a=2', 'b=3');
    assert.match(await rig.ctr.ok('namespaces', 'ls'), /^room\s+a=2,b=3\s*$/m);
    assert.equal(await rig.ctr.ok('namespaces', 'rm', 'room'), 'room\n');
    assert.doesNotMatch(await rig.ctr.ok('namespaces', 'ls'), /^room/m);
    const absent = await rig.ctr.call(['namespaces', 'rm', 'room']);
    assert.equal(absent.code, 0, 'ctr takes a namespace that is not there for removed');
    const bad = await rig.ctr.call(['namespaces', 'create', '../up']);
    assert.equal(bad.code, 1);
    assert.match(bad.stderr, /invalid argument/);
  });

  it('a namespace with containers is not removed', async () => {
    const ctr = rig.daemon.ctr();
    await ctr.create('inside', ['/bin/true']);
    const refused = await ctr.call(['namespaces', 'rm', ctr.namespace]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /must be empty.*: failed precondition/);
    await ctr.ok('containers', 'rm', 'inside');
    await ctr.ok('namespaces', 'rm', ctr.namespace);
  });

  it('events shows the life of a container in order, with what each event tells', async () => {
    using events = await EventStream.open(rig.ctr);
    await rig.ctr.runDetached('told', ['/bin/sh', '-c', 'sleep 100; exit 1']);
    const pid = (await rig.ctr.task('told'))?.pid;
    await rig.ctr.exec('told', ['/bin/sh', '-c', 'exit 4'], ['--exec-id', 'side']);
    await rig.ctr.ok('tasks', 'pause', 'told');
    await rig.ctr.ok('tasks', 'resume', 'told');
    await rig.ctr.ok('containers', 'label', 'told', 'x=y');
    await rig.ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'told');
    await events.sees('told', '/tasks/exit');
    await eventually('it stops', async () => (await rig.ctr.task('told'))?.status === 'STOPPED');
    await rig.ctr.call(['tasks', 'rm', 'told']);
    await rig.ctr.ok('containers', 'rm', 'told');
    await events.sees('told', '/containers/delete');

    const told = events.of('told');
    assert.deepEqual(
      told.map(({ topic }) => topic),
      [
        '/containers/create',
        '/tasks/create',
        '/tasks/start',
        '/tasks/exec-added',
        '/tasks/exec-started',
        '/tasks/exit',
        '/tasks/paused',
        '/tasks/resumed',
        '/containers/update',
        '/tasks/exit',
        '/tasks/delete',
        '/containers/delete',
      ],
    );
    assert.equal(events.of('told', '/tasks/create')[0]?.body['pid'], pid);
    const bundle = rig.daemon.bundle(rig.ctr.namespace, 'told');
    assert.equal(events.of('told', '/tasks/create')[0]?.body['bundle'], bundle);
    assert.equal(events.of('told', '/tasks/start')[0]?.body['pid'], pid);
    const [execExit, exit] = events.of('told', '/tasks/exit');
    assert.equal(execExit?.body['id'], 'side');
    assert.equal(execExit?.body['exit_status'], 4);
    assert.equal(exit?.body['id'], 'told');
    assert.equal(exit?.body['exit_status'], 137);
    assert.equal(exit?.body['pid'], pid);
    assert.match(String(exit?.body['exited_at']), /^\d{4}-\d\d-\d\dT/);
    assert.equal(events.of('told', '/tasks/delete')[0]?.body['exit_status'], 137);
    assert.deepEqual(events.of('told', '/containers/update')[0]?.body['labels'], { x: 'y' });
  });

  it('events can be filtered by topic', async () => {
    const child = rig.ctr.spawn(['events', 'topic=="/namespaces/delete"']);
    let out = '';
    child.stdout?.on('data', (chunk: Buffer) => (out += chunk.toString()));
    await eventually('a deletion is told', async () => {
      await rig.ctr.ok('namespaces', 'create', 'brief');
      await rig.ctr.ok('namespaces', 'rm', 'brief');
      return out.includes('/namespaces/delete');
    });
    child.kill();
    assert.doesNotMatch(out, /\/namespaces\/create/);
  });

  it('an oom is told', async () => {
    using events = await EventStream.open(rig.ctr);
    await rig.ctr.run('starved', ['/bin/tail', '/dev/zero'], ['--rm', '--memory-limit', '16777216']);
    await events.sees('starved', '/tasks/oom');
    const exit = await events.sees('starved', '/tasks/exit');
    assert.equal(exit.body['exit_status'], 137);
  });

  it('leases are created, listed and deleted', async () => {
    assert.equal(await rig.ctr.ok('leases', 'create', '--id', 'held', 'a=b'), 'held\n');
    const listed = await rig.ctr.ok('leases', 'ls');
    assert.match(listed, /^ID\s+CREATED AT\s+LABELS\s*$/m);
    assert.match(listed, /^held\s+\d{4}-\S+\s+.*a=b/m);
    const taken = await rig.ctr.call(['leases', 'create', '--id', 'held']);
    assert.equal(taken.code, 1);
    assert.match(taken.stderr, /already exists/);
    assert.equal(await rig.ctr.ok('leases', 'rm', 'held'), 'held\n');
    assert.doesNotMatch(await rig.ctr.ok('leases', 'ls', '-q'), /held/);
    assert.match((await rig.ctr.ok('leases', 'create')).trim(), /^\S+$/);
  });
});
