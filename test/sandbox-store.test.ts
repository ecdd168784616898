/** Sandboxes as clients of the 2.x line keep them. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ContainersDefinition } from '../proto/gen/containerd/services/containers.ts';
import { StoreDefinition } from '../proto/gen/containerd/services/sandbox.ts';
import { Code } from '../ttrpc/errors.ts';
import { suite } from './harness/peers.ts';
import { failureOf } from './harness/rpc.ts';

const SPEC = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';

suite('sandboxes', { peers: ['moord'] }, (rig) => {
  it('are created, found, changed and deleted, over a kill of the daemon', async () => {
    const { namespace } = rig.daemon.ctr();
    const other = rig.daemon.ctr().namespace;
    const runtime = { name: 'io.containerd.runc.v2' };
    const spec = { typeUrl: SPEC, value: Buffer.from('{}') };
    {
      using connection = rig.daemon.connect();
      const store = connection.service(StoreDefinition, namespace);
      const sandbox = { sandboxId: 'pod', runtime, spec, sandboxer: 'podsandbox', labels: { a: '1', b: '' } };
      const { sandbox: created } = await store.create({ sandbox });
      assert.deepEqual(created?.labels, { a: '1' });
      assert.ok(created.createdAt);
      assert.equal((await failureOf(store.create({ sandbox }))).code, Code.AlreadyExists);
    }
    await rig.daemon.restart();
    using connection = rig.daemon.connect();
    const store = connection.service(StoreDefinition, namespace);
    const found = (await store.get({ sandboxId: 'pod' })).sandbox;
    assert.deepEqual([found?.runtime?.name, found?.sandboxer], [runtime.name, 'podsandbox']);
    assert.deepEqual(Buffer.from(found?.spec?.value ?? []).toString(), '{}');
    const foreign = connection.service(StoreDefinition, other);
    assert.deepEqual(await foreign.list({}), { list: [] });
    assert.equal((await failureOf(foreign.get({ sandboxId: 'pod' }))).code, Code.NotFound);
    const ids = async (...filters: string[]) =>
      (await store.list({ filters })).list.map(({ sandboxId }) => sandboxId);
    assert.deepEqual(await ids('labels.a==1', 'id==nobody'), ['pod']);
    assert.deepEqual(await ids('labels.a==2'), []);
    assert.deepEqual(await ids('sandboxer==podsandbox,runtime.name==io.containerd.runc.v2'), ['pod']);

    const change = { sandboxId: 'pod', labels: { a: '2', c: '3' }, extensions: { x: spec } };
    const { sandbox: changed } = await store.update({
      sandbox: change,
      fields: ['labels.a', 'extensions.x'],
    });
    assert.deepEqual(changed?.labels, { a: '2' });
    assert.deepEqual(Object.keys(changed.extensions), ['x']);
    assert.equal(changed.runtime?.name, runtime.name);
    const refused = [
      () => store.update({ sandbox: change, fields: ['created_at'] }),
      () => store.update({ sandbox: { ...change, runtime: { name: 'other' } } }),
      () => store.update({ sandbox: { sandboxId: '../etc' } }),
      () => store.create({}),
      () => store.list({ filters: ['labels.a=='] }),
    ];
    for (const call of refused) assert.equal((await failureOf(call())).code, Code.InvalidArgument);

    const deletion = rig.ctr.call(['namespaces', 'rm', namespace]);
    assert.match((await deletion).stderr, /sandboxes/);
    await store.delete({ sandboxId: 'pod' });
    assert.equal((await failureOf(store.delete({ sandboxId: 'pod' }))).code, Code.NotFound);
  });

  it('have containers that say which one they belong to', async () => {
    await rig.ctr.create('of-pod', ['/bin/true']);
    using connection = rig.daemon.connect();
    const containers = connection.service(ContainersDefinition, rig.ctr.namespace);
    const { container } = await containers.get({ id: 'of-pod' });
    const second = { ...container, id: 'second', sandbox: 'pod', createdAt: undefined, updatedAt: undefined };
    await containers.create({ container: second });
    assert.equal((await containers.get({ id: 'second' })).container?.sandbox, 'pod');
  });
});
