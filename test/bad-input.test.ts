/** Bad input gets the right code and a message that names the cause; nothing is lost and the daemon lives. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ContainersDefinition, type Container } from '../proto/gen/containerd/services/containers.ts';
import { NamespacesDefinition } from '../proto/gen/containerd/services/namespaces.ts';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { Code } from '../ttrpc/errors.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { alive } from './harness/processes.ts';
import { failureOf } from './harness/rpc.ts';
import { eventually } from './harness/wait.ts';
import type { PartialMessage } from '../ttrpc/service.ts';

suite('bad input', {}, (rig) => {
  const specType = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';

  const services = (namespace?: string) => {
    const connection = rig.daemon.connect();
    return {
      containers: connection.service(ContainersDefinition, namespace),
      tasks: connection.service(TasksDefinition, namespace),
      namespaces: connection.service(NamespacesDefinition),
      [Symbol.dispose]: () => connection[Symbol.dispose](),
    };
  };

  /** The record of a good container, to be spoilt in one place; no container of that record is left. */
  const good = async (): Promise<PartialMessage<Container>> => {
    using api = services(rig.ctr.namespace);
    await rig.ctr.create('good', ['/bin/sleep', '1000']);
    const { container } = await api.containers.get({ id: 'good' });
    await rig.ctr.ok('containers', 'rm', 'good');
    return { ...container, createdAt: undefined, updatedAt: undefined };
  };

  const spoilt = async (change: (spec: Record<string, unknown>) => void) => {
    const container = await good();
    const spec = JSON.parse(Buffer.from(container.spec?.value ?? []).toString()) as Record<string, unknown>;
    change(spec);
    return { ...container, spec: { typeUrl: specType, value: Buffer.from(JSON.stringify(spec)) } };
  };

  it('a call without a namespace, or with one that is no name', async () => {
    using api = services();
    const none = await failureOf(api.tasks.list({}));
    assert.deepEqual(none, {
      code: Code.FailedPrecondition,
      message: 'namespace is required: failed precondition',
    });
    for (const name of ['../up', 'a/b', 'n'.repeat(300), '.']) {
      using bad = services(name);
      const failure = await failureOf(bad.containers.create({ container: { ...(await good()), id: 'x' } }));
      assert.equal(failure.code, Code.InvalidArgument, failure.message);
    }
    using unknown = services('no-such-place');
    assert.equal((await failureOf(unknown.tasks.get({ containerId: 'x' }))).code, Code.NotFound);
    const removal = await failureOf(api.namespaces.delete({ name: 'no-such-place' }));
    assert.equal(removal.code, Code.NotFound);
    assert.match(removal.message, /no-such-place.*not found/);
  });

  for (const [what, id, cause] of [
    ['with ../', '../../etc', /identifier "\.\.\/\.\.\/etc" must match/],
    ['of 300 characters', 'x'.repeat(300), /(greater than maximum length|at most).*76/],
    ['that is empty', '', /identifier must not be empty|must match/],
    ['with a NUL and a newline', 'a\0b\n', /must match/],
  ] as const)
    it(`an id ${what}`, async () => {
      using api = services(rig.ctr.namespace);
      const failure = await failureOf(api.containers.create({ container: { ...(await good()), id } }));
      assert.equal(failure.code, Code.InvalidArgument, failure.message);
      assert.match(failure.message, cause);
      assert.ok(failure.message.length < 1000);
      const read = await failureOf(api.containers.get({ id }));
      assert.ok(read.code === Code.NotFound || read.code === Code.InvalidArgument, read.message);
    });

  it('an exec id with ../', async () => {
    await rig.ctr.runDetached('open', ['/bin/sleep', '1000']);
    const outcome = await rig.ctr.exec('open', ['/bin/true'], ['--exec-id', '../../x']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /must match.*: invalid argument/);
    await rig.ctr.remove('open');
  });

  it('a spec that is not JSON, or none', async () => {
    using api = services(rig.ctr.namespace);
    const container = await good();
    for (const [index, value] of ['this is not JSON', '', '[1, 2', '"text"'].entries()) {
      const id = `garbled-${index}`; // containerd trips over what it left of the last one
      const spec = { typeUrl: specType, value: Buffer.from(value) };
      let failure;
      try {
        await api.containers.create({ container: { ...container, id, spec } });
        failure = await failureOf(api.tasks.create({ containerId: id }));
        await api.containers.delete({ id });
      } catch (error) {
        failure = error as Error & { code: number };
      }
      if (rig.peer === 'moord') assert.equal(failure.code, Code.InvalidArgument, failure.message);
      assert.match(failure.message, /spec|json|invalid character|unexpected end/i);
      assert.equal(await rig.ctr.task(id), undefined);
    }
    const none = await failureOf(api.containers.create({ container: { ...container, spec: undefined } }));
    assert.equal(none.code, Code.InvalidArgument);
    assert.match(none.message, /spec/i);
  });

  it('a rootfs that is missing', async () => {
    const before = holdings(rig.daemon);
    using api = services(rig.ctr.namespace);
    const container = await spoilt((spec) => {
      spec['root'] = { path: '/no/such/rootfs' };
    });
    await api.containers.create({ container: { ...container, id: 'rootless' } });
    const failure = await failureOf(api.tasks.create({ containerId: 'rootless' }));
    assert.match(failure.message, /\/no\/such\/rootfs/);
    assert.equal(await rig.ctr.task('rootless'), undefined);
    await rig.ctr.ok('containers', 'rm', 'rootless');
    const outcome = await rig.ctr.call([
      'run',
      '--rm',
      '--rootfs',
      '/no/such/rootfs',
      'rootless',
      '/bin/true',
    ]);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /\/no\/such\/rootfs.*no such file or directory/);
    api[Symbol.dispose]();
    await expectNothingLeft(rig.daemon, before);
  });

  it('a rootfs mount that cannot be made', async () => {
    using api = services(rig.ctr.namespace);
    await api.containers.create({ container: { ...(await good()), id: 'unmountable' } });
    const rootfs = [{ type: 'ext4', source: '/no/such/device', target: '', options: [] }];
    const failure = await failureOf(api.tasks.create({ containerId: 'unmountable', rootfs }));
    assert.match(failure.message, /mount.*\/no\/such\/device|no such file or directory/);
    assert.equal(await rig.ctr.task('unmountable'), undefined);
    await rig.ctr.ok('containers', 'rm', 'unmountable');
  });

  for (const runtime of [
    'io.containerd.absent.v2',
    '/no/such/shim',
    'nonsense',
    'io.containerd.runc.v2/../x',
  ])
    it(`the runtime ${runtime}, which does not exist`, async () => {
      const before = holdings(rig.daemon);
      const outcome = await rig.ctr.run('unrun', ['/bin/true'], ['--rm', '--runtime', runtime]);
      assert.equal(outcome.code, 1);
      assert.ok(
        outcome.stderr.includes(runtime) || /absent|runtime|shim/.test(outcome.stderr),
        outcome.stderr,
      );
      assert.match(outcome.stderr, /not found|not installed|invalid|no such file|permission denied/);
      assert.equal(await rig.ctr.task('unrun'), undefined);
      await rig.ctr.remove('unrun');
      await expectNothingLeft(rig.daemon, before);
    });

  it('a command that does not exist, of an init and of an exec', async () => {
    const outcome = await rig.ctr.run('commandless', ['no-such-command'], ['--rm']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /exec: "no-such-command": executable file not found in \$PATH/);
    await rig.ctr.runDetached('willing', ['/bin/sleep', '1000']);
    const exec = await rig.ctr.exec('willing', ['no-such-command']);
    assert.equal(exec.code, 1);
    assert.match(exec.stderr, /exec: "no-such-command": executable file not found in \$PATH/);
    await rig.ctr.remove('willing');
  });

  it('start twice', async () => {
    using api = services(rig.ctr.namespace);
    await rig.ctr.runDetached('once', ['/bin/sleep', '1000']);
    const task = await rig.ctr.task('once');
    const failure = await failureOf(api.tasks.start({ containerId: 'once' }));
    if (rig.peer === 'moord') assert.equal(failure.code, Code.FailedPrecondition, failure.message);
    assert.match(failure.message, /running|already/);
    const created = await failureOf(api.tasks.create({ containerId: 'once' }));
    assert.equal(created.code, Code.AlreadyExists);
    assert.match(created.message, /task once.*already exists/);
    assert.deepEqual(await rig.ctr.task('once'), task);
    await rig.ctr.remove('once');
  });

  it('delete while running', async () => {
    using api = services(rig.ctr.namespace);
    await rig.ctr.runDetached('held', ['/bin/sleep', '1000']);
    const task = await rig.ctr.task('held');
    const failure = await failureOf(api.tasks.delete({ containerId: 'held' }));
    if (rig.peer === 'moord') assert.equal(failure.code, Code.FailedPrecondition, failure.message);
    assert.match(failure.message, /running/);
    assert.deepEqual(await rig.ctr.task('held'), task);
    assert.ok(alive(task?.pid ?? 0));
    assert.equal((await rig.ctr.exec('held', ['/bin/true'])).code, 0);
    await rig.ctr.remove('held');
  });

  it('exec, kill, pause and resume in a stopped container', async () => {
    using api = services(rig.ctr.namespace);
    await rig.ctr.runDetached('ended', ['/bin/true']);
    await eventually('it stops', async () => (await rig.ctr.task('ended'))?.status === 'STOPPED');
    const outcome = await rig.ctr.exec('ended', ['/bin/true']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /stopped|not running/);
    assert.equal((await failureOf(api.tasks.kill({ containerId: 'ended', signal: 15 }))).code, Code.NotFound);
    for (const call of [api.tasks.pause, api.tasks.resume]) {
      const failure = await failureOf(call({ containerId: 'ended' }));
      if (rig.peer === 'moord') assert.equal(failure.code, Code.FailedPrecondition, failure.message);
      assert.match(failure.message, /stopped|not running/);
    }
    assert.equal((await rig.ctr.task('ended'))?.status, 'STOPPED');
    await rig.ctr.remove('ended');
  });

  it('every verb on a task and a container that do not exist', async () => {
    using api = services(rig.ctr.namespace);
    const containerId = 'nobody';
    const { tasks, containers } = api;
    for (const call of [
      () => tasks.create({ containerId }),
      () => tasks.start({ containerId }),
      () => tasks.delete({ containerId }),
      () => tasks.deleteProcess({ containerId, execId: 'x' }),
      () => tasks.get({ containerId }),
      () => tasks.kill({ containerId, signal: 9 }),
      () => tasks.exec({ containerId, execId: 'x', spec: { typeUrl: specType, value: Buffer.from('{}') } }),
      () => tasks.resizePty({ containerId, width: 1, height: 1 }),
      () => tasks.closeIO({ containerId, stdin: true }),
      () => tasks.pause({ containerId }),
      () => tasks.resume({ containerId }),
      () => tasks.listPids({ containerId }),
      () => tasks.checkpoint({ containerId }),
      () => tasks.update({ containerId }),
      () => tasks.wait({ containerId }),
      () => containers.get({ id: containerId }),
      () => containers.update({ container: { id: containerId }, updateMask: ['labels'] }),
      () => containers.delete({ id: containerId }),
    ]) {
      const failure = await failureOf(call());
      assert.equal(failure.code, Code.NotFound, failure.message);
      assert.match(failure.message, /nobody/);
    }
  });

  it('an update of a field that cannot change, and a filter that is none', async () => {
    using api = services(rig.ctr.namespace);
    await api.containers.create({ container: { ...(await good()), id: 'fixed' } });
    const frozen = await failureOf(
      api.containers.update({
        container: { id: 'fixed', snapshotter: 'x' },
        updateMask: ['nonsense'],
      }),
    );
    assert.equal(frozen.code, Code.InvalidArgument);
    assert.match(frozen.message, /nonsense/);
    const filter = await failureOf(api.containers.list({ filters: ['labels.x=='] }));
    assert.equal(filter.code, Code.InvalidArgument, filter.message);
    await api.containers.delete({ id: 'fixed' });
  });

  it('the daemon has lived through all of it', async () => {
    assert.ok(alive(rig.daemon.pid));
    assert.equal((await rig.ctr.run('after', ['/bin/echo', 'alive'], ['--rm'])).stdout, 'alive\n');
  });
});
