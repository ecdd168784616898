/** Sandboxes with a shim: Moor's own, and a stand-in of another make; over kills of the daemon and of the shims. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { Code } from '../ttrpc/errors.ts';
import { EventStream } from './harness/events.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { alive, killProcess, processOf } from './harness/processes.ts';
import { failureOf } from './harness/rpc.ts';
import { OWN_RUNTIME, SandboxClient, StandIn } from './harness/sandboxes.ts';
import { eventually, soon } from './harness/wait.ts';

const WAIT = { within: 60_000 };

suite('sandboxes with a shim', { peers: ['moord'] }, (rig) => {
  let client: SandboxClient;
  let standIn: StandIn;
  before(() => {
    client = new SandboxClient(rig.daemon, rig.ctr);
    standIn = new StandIn(rig.daemon);
  });
  after(() => client[Symbol.dispose]());

  const bundle = (id: string) => join(rig.daemon.state, 'sandboxes', rig.ctr.namespace, id);

  it('of Moor’s own live over kills of the daemon between any two calls, and say how they have ended', async () => {
    using events = EventStream.follow(rig.daemon, rig.ctr.namespace);
    await eventually('the subscription stands', async () => {
      await rig.ctr.ok('namespaces', 'label', rig.ctr.namespace, `probe=${Date.now()}`);
      return events.seen.length > 0;
    });
    const sandboxId = 'own';
    const runtime = { name: OWN_RUNTIME, options: { typeUrl: 'google.protobuf.Empty' } };
    await client.store.create({ sandbox: { sandboxId, runtime, sandboxer: 'shim' } });
    await client.controller.create({ sandboxId, sandboxer: 'shim' });
    assert.equal((await client.status(sandboxId)).state, 'SANDBOX_NOTREADY');
    await rig.daemon.restart();
    const started = await client.start(sandboxId);
    assert.equal(processOf(started.pid)?.name, 'moor-shim');
    assert.deepEqual([started.sandboxId, started.version], [sandboxId, 3]);
    assert.ok(started.address.startsWith('ttrpc+unix:///'), started.address);
    await rig.daemon.restart();
    const status = await client.status(sandboxId);
    assert.deepEqual([status.state, status.pid], ['SANDBOX_READY', started.pid]);
    assert.deepEqual(status.createdAt, started.createdAt);
    assert.equal(status.address, started.address);
    const { platform } = await client.controller.platform({ sandboxId, sandboxer: 'shim' });
    assert.equal(platform?.os, 'linux');
    assert.deepEqual(await client.controller.metrics({ sandboxId, sandboxer: 'shim' }), {
      metrics: undefined,
    });
    await client.controller.update({ sandboxId, sandboxer: 'shim' });
    const waited = client.wait(sandboxId);
    await client.stop(sandboxId);
    const end = await soon('the wait ends with the sandbox', waited);
    assert.equal(end.exitStatus, 0);
    await rig.daemon.restart();
    assert.deepEqual(await client.wait(sandboxId), end);
    const stopped = await client.status(sandboxId);
    assert.deepEqual([stopped.state, stopped.exitedAt], ['SANDBOX_NOTREADY', end.exitedAt]);
    assert.equal((await failureOf(client.start(sandboxId))).code, Code.FailedPrecondition);
    await client.shutdown(sandboxId);
    await client.store.delete({ sandboxId });
    await eventually('its shim is gone', () => !alive(started.pid), WAIT);
    assert.ok(!existsSync(bundle(sandboxId)));
    await events.sees(sandboxId, '/sandboxes/exit', WAIT);
    assert.deepEqual(
      events.of(sandboxId).map(({ topic }) => topic),
      ['/sandboxes/create', '/sandboxes/start', '/sandboxes/exit'],
    );
  });

  it('of Moor’s own have containers with shims of their own, which end with them', async () => {
    const before = holdings(rig.daemon);
    await client.create('group', OWN_RUNTIME);
    const { pid } = await client.start('group');
    const first = await client.run('first', 'group', OWN_RUNTIME, ['/bin/sleep', '1000']);
    const second = await client.run('second', 'group', OWN_RUNTIME, ['/bin/sleep', '1000']);
    const shims = [first, second].map((each) => processOf(each)?.parent);
    assert.equal(new Set([...shims, pid]).size, 3);
    await rig.daemon.restart();
    assert.ok([first, second, pid].every(alive));
    const waits = ['first', 'second'].map((containerId) => client.tasks.wait({ containerId }));
    // As a crash of it would be: nobody has stopped the sandbox.
    await killProcess(pid);
    assert.equal((await client.wait('group')).exitStatus, 137);
    for (const end of await Promise.all(waits)) assert.equal(end.exitStatus, 137);
    const late = await failureOf(client.run('late', 'group', OWN_RUNTIME, ['/bin/true']));
    assert.deepEqual(
      [late.code, late.message],
      [Code.FailedPrecondition, 'sandbox group has ended: failed precondition'],
    );
    await client.shutdown('group');
    for (const id of ['first', 'second']) await client.tasks.delete({ containerId: id });
    for (const id of ['first', 'second', 'late']) await rig.ctr.ok('containers', 'rm', id);
    await expectNothingLeft(rig.daemon, before, WAIT);
  });

  it('of another make are asked what clients ask, and have their containers in their shim', async () => {
    const before = holdings(rig.daemon);
    const { binary } = standIn;
    const sandbox = { sandboxId: 'foreign', runtime: { name: binary }, sandboxer: 'shim' };
    await client.controller.create({
      sandboxId: 'foreign',
      sandbox,
      sandboxer: 'shim',
      netnsPath: '/proc/1/ns/net',
      annotations: { exit: '7' },
    });
    await rig.daemon.restart();
    const { pid } = await client.start('foreign');
    const shim = processOf(pid)?.parent ?? 0;
    const status = await client.status('foreign');
    assert.deepEqual([status.state, status.pid, status.info], ['SANDBOX_READY', pid, { make: 'stand-in' }]);
    const key = { sandboxId: 'foreign', sandboxer: 'shim' };
    assert.equal((await client.controller.platform(key)).platform?.architecture, 'riscv64');
    assert.equal((await client.controller.metrics(key)).metrics?.data?.typeUrl, 'stand-in');
    const inside = await client.run('inside', 'foreign', binary, ['/bin/sleep', '1000']);
    assert.equal(processOf(inside)?.parent, shim);
    await rig.daemon.restart();
    assert.equal((await client.tasks.get({ containerId: 'inside' })).process?.pid, inside);
    await client.tasks.kill({ containerId: 'inside', signal: 9 });
    assert.equal((await client.tasks.wait({ containerId: 'inside' })).exitStatus, 137);
    await client.tasks.delete({ containerId: 'inside' });
    assert.ok(alive(shim), 'a sandbox outlives what ran in it');
    const waited = client.wait('foreign');
    await client.stop('foreign', 5);
    assert.equal((await waited).exitStatus, 7);
    await client.shutdown('foreign');
    await rig.ctr.ok('containers', 'rm', 'inside');
    const asked = standIn.calls.filter((call) => !/^(?:wait|status|ping) /.test(call));
    assert.deepEqual(asked, [
      'create foreign /proc/1/ns/net',
      'start foreign',
      'platform foreign',
      'metrics foreign',
      'task-create inside',
      'task-start inside',
      'task-delete inside',
      'stop foreign',
      'timeout 5',
      'shutdown foreign',
    ]);
    await eventually('its shim is gone', () => !alive(shim), WAIT);
    await expectNothingLeft(rig.daemon, before, { ...WAIT, except: /stand-in/ });
  });

  for (const when of ['while the daemon is there', 'while no daemon is there']) {
    it(`whose shim is killed ${when} end with 137, and so do their containers`, async () => {
      const before = holdings(rig.daemon);
      const id = `killed-${when.length}`;
      const { binary } = standIn;
      await client.create(id, binary);
      const { pid } = await client.start(id);
      const inside = await client.run(`in-${id}`, id, binary, ['/bin/sleep', '1000']);
      const shim = processOf(pid)?.parent ?? 0;
      const isAway = when === 'while no daemon is there';
      if (isAway) await rig.daemon.kill9();
      await killProcess(shim);
      if (isAway) await rig.daemon.start();
      assert.equal((await client.wait(id)).exitStatus, 137);
      assert.equal((await client.tasks.wait({ containerId: `in-${id}` })).exitStatus, 137);
      assert.equal((await client.status(id)).state, 'SANDBOX_NOTREADY');
      assert.ok(standIn.calls.includes(`delete ${id}`), 'its program has cleaned up');
      await client.tasks.delete({ containerId: `in-${id}` });
      await client.stop(id);
      await client.shutdown(id);
      await rig.ctr.ok('containers', 'rm', `in-${id}`);
      // The stand-in's containers are no real ones: its program does not end them.
      for (const left of [inside, pid]) await killProcess(left);
      await expectNothingLeft(rig.daemon, before, { ...WAIT, except: /stand-in/ });
    });
  }

  it('that clients only store and start are created by that', async () => {
    const sandbox = { sandboxId: 'stored', runtime: { name: OWN_RUNTIME }, sandboxer: 'shim' };
    await client.store.create({ sandbox });
    assert.ok((await client.start('stored')).pid > 0);
    await client.shutdown('stored');
    await client.store.delete({ sandboxId: 'stored' });
  });

  it('that cannot be made or ended leave nothing, and say why', async () => {
    const before = holdings(rig.daemon);
    const { binary } = standIn;
    await client.create('taken', OWN_RUNTIME);
    const asked = (sandboxId: string, sandboxer = 'shim') => ({ sandboxId, sandboxer });
    const { controller } = client;
    const attempts: [() => Promise<unknown>, Code, RegExp][] = [
      [() => client.create('taken', OWN_RUNTIME), Code.AlreadyExists, /sandbox taken: already exists/],
      [() => client.create('x', ''), Code.InvalidArgument, /runtime of sandbox x is not named/],
      [() => client.create('x', 'io.example.absent.v1'), Code.NotFound, /containerd-shim-absent-v1/],
      [() => client.create('x', '/nowhere/shim'), Code.InvalidArgument, /no such file/],
      [() => client.create('../x', OWN_RUNTIME), Code.InvalidArgument, /identifier/],
      [
        () => client.create('x', '/usr/bin/containerd-shim-runc-v2'),
        Code.Unimplemented,
        /sandbox\.v1\.Sandbox/,
      ],
      [() => client.create('x', binary, { refuse: 'create' }), Code.FailedPrecondition, /create is refused/],
      [() => controller.create(asked('nowhere')), Code.NotFound, /sandbox "nowhere": not found/],
      [() => controller.create(asked('x', 'nobody')), Code.NotFound, /controller "nobody"/],
      [() => controller.create(asked('x', '')), Code.InvalidArgument, /controller must be named/],
      [() => controller.start(asked('nowhere')), Code.NotFound, /nowhere/],
      [() => controller.platform(asked('nowhere')), Code.NotFound, /nowhere/],
      [() => controller.wait(asked('nowhere')), Code.NotFound, /nowhere/],
      [() => controller.shutdown(asked('nowhere')), Code.NotFound, /nowhere/],
      [() => controller.metrics(asked('nowhere')), Code.NotFound, /nowhere/],
      [() => controller.update(asked('nowhere')), Code.NotFound, /nowhere/],
      [() => client.run('lost', 'nowhere', OWN_RUNTIME, ['/bin/true']), Code.NotFound, /sandbox "nowhere"/],
    ];
    for (const [attempt, code, message] of attempts) {
      const failure = await failureOf(attempt());
      assert.equal(failure.code, code, failure.message);
      assert.match(failure.message, message);
    }
    // As containerd answers: what is not there has been stopped, and has no state.
    await controller.stop(asked('nowhere'));
    assert.equal((await controller.status(asked('nowhere'))).state, '');
    await rig.ctr.ok('containers', 'rm', 'lost');

    await client.create('stubborn', binary, { refuse: 'shutdown' });
    await client.start('stubborn');
    const refused = await failureOf(client.shutdown('stubborn'));
    assert.match(refused.message, /shutdown is refused/);
    assert.equal((await client.status('stubborn')).state, 'SANDBOX_READY');
    assert.equal((await failureOf(client.start('stubborn'))).code, Code.FailedPrecondition);
    await rig.daemon.restart();
    const { pid } = await client.status('stubborn');
    await killProcess(processOf(pid)?.parent ?? 0);
    assert.equal((await client.wait('stubborn')).exitStatus, 137);
    await client.shutdown('stubborn');
    await killProcess(pid);
    await client.shutdown('taken');
    await expectNothingLeft(rig.daemon, before, { ...WAIT, except: /stand-in/ });
  });
});
