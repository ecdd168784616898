/** `moor pods` and `moor cri`: what an operator looks at a node of Kubernetes with. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { BUSYBOX, Kubelet } from './harness/cri.ts';
import { Moor } from './harness/moor.ts';

test('an operator finds pods, containers and images, and removes them', { timeout: 240_000 }, async () => {
  await using kubelet = await Kubelet.start();
  const moor = new Moor(kubelet.daemon, 'default');
  const json = async (...args: string[]) => JSON.parse(await moor.ok(...args)) as Record<string, unknown>[];

  const events = moor.spawn(['cri', 'events']);
  let told = '';
  events.stdout!.on('data', (chunk: Buffer) => (told += chunk.toString()));
  const pod = await kubelet.runPod('shown');
  const script = 'echo out; echo err >&2; printf unfinished; exec sleep 1000';
  const id = await kubelet.run(pod, 'main', ['sh', '-c', script]);

  assert.match(
    await moor.ok('pods', 'ls'),
    new RegExp(`^${pod.id.slice(0, 13)} .*ago +Ready +shown +default +0`, 'm'),
  );
  assert.equal((await moor.ok('pods', 'ls', '-q')).trim(), pod.id);
  assert.equal((await json('pods', 'ls', '--format', 'json'))[0]!['id'], pod.id);
  const inspected = JSON.parse(await moor.ok('pods', 'inspect', pod.id.slice(0, 8))) as {
    status: { id: string };
    info: { runtimeType: string };
  };
  assert.equal(inspected.status.id, pod.id);
  assert.match(inspected.info.runtimeType, /runc/);

  assert.match(await moor.ok('cri', 'ps'), new RegExp(`^${id.slice(0, 13)} .*Running +main`, 'm'));
  assert.match(await moor.ok('cri', 'inspect', id), /"log_path"/);
  assert.match(await moor.ok('cri', 'stats'), /main +\d+\.\d{3}s/);
  assert.match(await moor.ok('cri', 'images'), new RegExp(`^${BUSYBOX} `, 'm'));
  assert.match(await moor.ok('cri', 'info'), /RuntimeReady/);
  const ran = await moor.call(['cri', 'exec', id, 'sh', '-c', 'echo "$0" in; echo bad >&2; exit 3', '-x']);
  assert.deepEqual([ran.code, ran.stdout, ran.stderr], [3, '-x in\n', 'bad\n']);
  for (;;) {
    const { stdout, stderr } = await moor.call(['cri', 'logs', id]);
    if (stdout.startsWith('out\n') && stderr === 'err\n') break;
  }

  await kubelet.runtime.stopContainer({ containerId: id, timeout: 0n });
  assert.doesNotMatch(await moor.ok('cri', 'ps'), /main/);
  assert.match(await moor.ok('cri', 'ps', '-a'), /Exited +main/);
  assert.equal((await moor.ok('pods', 'stop', pod.id)).trim(), pod.id);
  assert.match(await moor.ok('pods', 'ls'), /NotReady +shown/);
  await moor.ok('pods', 'rm', pod.id);
  assert.equal(await moor.ok('pods', 'ls', '-q'), '');
  assert.equal((await moor.call(['pods', 'rm', 'none'])).code, 1, 'a mistyped id is told');
  await moor.ok('cri', 'rmi', BUSYBOX);
  const gone = await moor.call(['cri', 'rmi', BUSYBOX]);
  assert.equal(gone.code, 1);
  assert.match(gone.stderr, /not found\nhint: see what is there: moor cri images/);
  while (!told.includes(`deleted ${pod.id} default/shown`)) await once(events.stdout!, 'data');
  events.kill();
  await once(events, 'exit');
});
