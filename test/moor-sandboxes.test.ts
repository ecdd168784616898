/** `moor sandboxes` and the SDK's sandboxes; and kubelet's pods, which are among them. */
import assert from 'node:assert/strict';
import { it, test } from 'node:test';
import { ControllerDefinition, StoreDefinition } from '../proto/gen/containerd/services/sandbox.ts';
import { connect } from '../client/client.ts';
import { Code } from '../ttrpc/errors.ts';
import { Kubelet } from './harness/cri.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { Moor } from './harness/moor.ts';
import { suite } from './harness/peers.ts';
import { alive } from './harness/processes.ts';
import { failureOf } from './harness/rpc.ts';
import { soon } from './harness/wait.ts';

const WAIT = { within: 60_000 };

suite('moor sandboxes', { peers: ['moord'] }, (rig) => {
  it('run, list and remove', async () => {
    const before = holdings(rig.daemon);
    const moor = new Moor(rig.daemon, rig.ctr.namespace);
    assert.equal(await moor.ok('sandboxes', 'run', 'box'), 'box\n');
    assert.match(await moor.ok('sb', 'ls'), /^box +\d{4}-\S+Z +io\.containerd\.runc\.v2 +shim/m);
    assert.equal(await moor.ok('sandboxes', 'ls', '-q', 'id==other'), '');
    const twice = await moor.call(['sandboxes', 'run', 'box']);
    assert.equal(twice.code, 1);
    assert.match(twice.stderr, /sandbox "box": already exists/);
    const absent = await moor.call(['sandboxes', 'run', '--runtime', 'io.example.absent.v1', 'none']);
    assert.equal(absent.code, 1);
    assert.match(absent.stderr, /containerd-shim-absent-v1/);
    assert.equal(await moor.ok('sandboxes', 'ls', '-q'), 'box\n', 'what could not be made is not listed');
    assert.equal(await moor.ok('sandboxes', 'rm', 'box'), 'box\n');
    assert.equal(await moor.ok('sandboxes', 'ls', '-q'), '');
    assert.match((await moor.call(['sandboxes', 'rm', 'box'])).stderr, /sandbox "box": not found/);
    await expectNothingLeft(rig.daemon, before, WAIT);
  });

  it('are in the SDK', async () => {
    const { address } = rig.daemon;
    await using client = await connect({ address, namespace: rig.ctr.namespace });
    const sandbox = await client.sandboxes.create('typed', { labels: { of: 'test' } });
    assert.equal((await sandbox.status()).state, 'SANDBOX_NOTREADY');
    const pid = await sandbox.start();
    assert.ok(alive(pid));
    const [found] = await client.sandboxes.list(['labels.of==test']);
    assert.equal(found?.id, 'typed');
    const again = await client.sandboxes.get('typed');
    const waited = again.wait();
    await again.stop({ grace: 1 });
    assert.equal((await soon('it ends', waited)).code, 0);
    await again.remove();
    assert.equal((await failureOf(client.sandboxes.get('typed'))).code, Code.NotFound);
  });
});

test('pods are sandboxes of the controller podsandbox', { timeout: 240_000 }, async () => {
  await using kubelet = await Kubelet.start();
  using connection = kubelet.daemon.connect();
  const controller = connection.service(ControllerDefinition, 'k8s.io');
  const store = connection.service(StoreDefinition, 'k8s.io');
  const { id } = await kubelet.runPod('shown');
  const key = { sandboxId: id, sandboxer: 'podsandbox' };

  const { sandbox } = await store.get({ sandboxId: id });
  assert.equal(sandbox?.sandboxer, 'podsandbox');
  const metadata = JSON.parse(Buffer.from(sandbox.extensions['metadata']!.value).toString()) as {
    Metadata: { ID: string; Config: { metadata: { name: string } } };
  };
  assert.deepEqual([metadata.Metadata.ID, metadata.Metadata.Config.metadata.name], [id, 'shown']);
  const { list } = await store.list({ filters: [`id==${id}`] });
  assert.equal(list.length, 1);
  const status = await controller.status(key);
  assert.equal(status.state, 'SANDBOX_READY');
  assert.ok(alive(status.pid));
  assert.equal((await controller.platform(key)).platform?.os, 'linux');
  assert.equal((await controller.metrics(key)).metrics?.id, id);
  const refusals: [Promise<unknown>, Code][] = [
    [controller.create({ ...key, sandboxId: 'more' }), Code.Unimplemented],
    [controller.start(key), Code.FailedPrecondition],
    [controller.status({ ...key, sandboxer: 'nobody' }), Code.NotFound],
    [store.create({ sandbox: { sandboxId: id, runtime: { name: 'any' } } }), Code.AlreadyExists],
    [store.update({ sandbox: { sandboxId: id } }), Code.FailedPrecondition],
    [store.delete({ sandboxId: id }), Code.FailedPrecondition],
    [connection.service(ControllerDefinition, 'default').wait(key), Code.NotFound],
  ];
  const codes = await Promise.all(refusals.map(async ([call]) => (await failureOf(call)).code));
  assert.deepEqual(
    codes,
    refusals.map(([, code]) => code),
  );

  await kubelet.daemon.restart();
  const waited = controller.wait(key, { timeout: 120_000 });
  await controller.stop(key);
  assert.equal((await soon('the wait ends with the pod', waited)).exitStatus, 137);
  assert.equal((await controller.status(key)).state, 'SANDBOX_NOTREADY');
  const moor = new Moor(kubelet.daemon, 'k8s.io');
  assert.equal(await moor.ok('sandboxes', 'rm', id), `${id}\n`);
  assert.deepEqual((await kubelet.runtime.listPodSandbox({})).items, []);
});
