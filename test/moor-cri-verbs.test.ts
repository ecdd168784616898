/** crictl's verbs as `moor cri` has them: pods and containers from files, filters, resources, images. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse, stringify } from 'yaml';
import { BUSYBOX, Kubelet } from './harness/cri.ts';
import { Moor } from './harness/moor.ts';
import { LocalRegistry } from './harness/registry.ts';

test('pods and containers go from files to their removal', { timeout: 240_000 }, async () => {
  await using kubelet = await Kubelet.start();
  const moor = new Moor(kubelet.daemon, 'default');
  const cri = async (...args: string[]) => (await moor.ok('cri', ...args)).trim();
  const refused = async (code: number, words: RegExp, ...args: string[]) => {
    const outcome = await moor.call(['cri', ...args]);
    assert.deepEqual([outcome.code, words.test(outcome.stderr)], [code, true], outcome.stderr);
  };
  const file = (name: string, value: unknown): string => {
    const path = join(kubelet.daemon.directory, name);
    writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value));
    return path;
  };
  const logs = join(kubelet.daemon.directory, 'logs');
  mkdirSync(logs);
  const podFile = file('pod.json', {
    metadata: { name: 'filed', namespace: 'space', uid: 'uid-1' },
    log_directory: logs,
    labels: { snake_key: 'kept', 'io.kubernetes.pod.name': 'filed', 'io.kubernetes.pod.namespace': 'space' },
    linux: { cgroup_parent: `/${kubelet.cgroup}/filed` },
  });
  // By its id, as kubelet asks for images.
  const { image: known } = await kubelet.images.imageStatus({ image: { image: BUSYBOX } });
  const containerFile = file(
    'container.yaml',
    stringify({
      metadata: { name: 'main' },
      image: { image: known!.id },
      command: ['sh', '-c', 'echo hello; exec sleep 1000000'],
      log_path: 'main.log',
      labels: { 'io.kubernetes.pod.name': 'filed', 'io.kubernetes.pod.namespace': 'space' },
      linux: { resources: { memory_limit_in_bytes: 67_108_864 } },
    }),
  );

  await refused(1, /neither JSON nor YAML/, 'runp', file('bad.json', 'metadata: ['));
  await refused(1, /metadata.name is missing/, 'runp', file('nameless.json', {}));
  await refused(1, /cannot read \/no\/such/, 'runp', '/no/such');
  await refused(1, /no runtime for "nope"/, 'runp', '-r', 'nope', podFile);
  const pod = await cri('runp', podFile);
  const [listed] = JSON.parse(await cri('pods', '-o', 'json')) as { labels: Record<string, string> }[];
  assert.equal(listed!.labels['snake_key'], 'kept');
  const id = await cri('create', pod, containerFile, podFile);
  await refused(1, /failed to reserve container name/, 'create', pod, containerFile, podFile);
  assert.equal(await cri('ps', '-q'), '');
  assert.equal(await cri('ps', '-q', '-s', 'created'), id);
  assert.equal(await cri('start', id), id);
  await refused(1, /CONTAINER_RUNNING/, 'start', id);

  for (const filter of [
    ['--name', '^ma'],
    ['-p', pod],
    ['--id', id.slice(0, 12)],
    ['--namespace', 'spa'],
    ['--image', BUSYBOX],
    ['-l'],
    ['-n', '3'],
  ])
    assert.equal(await cri('ps', '-q', ...filter), id, filter.join(' '));
  for (const filter of [
    ['--name', 'other'],
    ['-p', 'none'],
    ['--label', 'a=b'],
    ['-s', 'exited'],
  ])
    assert.equal(await cri('ps', '-q', ...filter), '', filter.join(' '));
  assert.match(await cri('ps'), /^\w{13} +registry\.example\/busybox:1 .* filed +space *$/m);
  await refused(2, /Allowed choices/, 'ps', '-s', 'sleeping');
  await refused(2, /name/, 'ps', '--name', '(');
  await refused(1, /not found/, 'ps', '--image', 'none');
  assert.equal(await cri('pods', '-q', '--name', 'fil', '-s', 'ready', '--label', 'snake_key=kept'), pod);
  assert.equal(await cri('pods', '-q', '-s', 'notready'), '');

  assert.equal(await cri('update', '--memory', '100663296', id), id);
  const { status, info } = JSON.parse(await cri('inspect', id)) as {
    status: { resources: { linux: Record<string, unknown> }; log_path: string };
    info: { sandboxID: string };
  };
  assert.deepEqual(
    [status.resources.linux['memory_limit_in_bytes'], status.log_path, info.sandboxID],
    [100_663_296, join(logs, 'main.log'), pod],
  );
  const yaml = parse(await cri('inspect', '-o', 'yaml', id)) as { status: object };
  assert.deepEqual(yaml.status, status);
  assert.equal((parse(await cri('ps', '-o', 'yaml')) as { id: string }[])[0]!.id, id);
  await refused(1, /nothing to change/, 'update', id);
  assert.match(await cri('stats', id), /main +\d+\.\d{3}s +\d+\.\d\d /);
  assert.match(await cri('statsp'), /filed +space +\d+\.\d{3}s/);
  assert.match(await cri('metricsp'), /container_spec_memory_limit_bytes/);
  assert.match(await cri('metricdescs'), /"help"/);
  await refused(1, /not found/, 'stats', 'none');
  assert.match(await cri('version'), /RuntimeName: {2}moor/);
  assert.match(await cri('runtime-config'), /cgroup_driver/);
  assert.match(await cri('runtime-config', '-o', 'yaml'), /^ *cgroup_driver: /m);
  assert.equal(await cri('update-runtime-config', '--pod-cidr', '10.1.0.0/24'), '');
  await refused(2, /--pod-cidr/, 'update-runtime-config');
  const watching = moor.spawn(['cri', 'stats', '--watch', id]);
  const ended = once(watching, 'exit');
  let listings = 0;
  for await (const text of watching.stdout!) {
    listings += String(text).match(/^CONTAINER/gm)?.length ?? 0;
    if (listings >= 2) watching.kill('SIGINT');
  }
  await ended;
  assert.ok(listings >= 2);
  assert.match(await cri('imagefsinfo'), /used_bytes/);
  assert.match(await cri('inspectp', '-q', pod), /"SANDBOX|"filed"/);
  await refused(1, /criu|checkpoint/i, 'checkpoint', '-e', join(kubelet.daemon.directory, 'c.tar'), id);

  await refused(1, /is running\nhint: stop it first/, 'rm', id);
  await refused(1, /is running/, 'rmp', pod);
  await refused(1, /not found/, 'stop', 'none', id);
  assert.equal(await cri('ps', '-q'), '', 'the others are stopped all the same');
  assert.equal(await cri('rm', '-k', id), id);
  assert.ok(existsSync(join(logs, 'main.log')));
  const second = await cri('create', pod, containerFile, podFile);
  await cri('start', second);
  await refused(1, /not both/, 'rm', '-a', second);
  assert.equal(await cri('rm', '-fa'), second);
  assert.ok(!existsSync(join(logs, 'main.log')));
  assert.equal(await cri('stopp', pod), `Stopped sandbox ${pod}`);
  assert.equal(await cri('rmp', pod), `Removed sandbox ${pod}`);
  const run = await cri('run', containerFile, podFile);
  assert.equal(await cri('ps', '-q'), run);
  assert.match(await cri('rmp', '-fa'), /^Removed sandbox/);
  assert.deepEqual(kubelet.left(), []);
});

test('images are pulled with credentials, looked at, pruned', { timeout: 240_000 }, async () => {
  await using registry = await LocalRegistry.start({ password: true });
  await using kubelet = await Kubelet.start();
  const moor = new Moor(kubelet.daemon, 'default');
  const cri = async (...args: string[]) => (await moor.ok('cri', ...args)).trim();
  const name = registry.image('verbs/app', '1');
  await kubelet.ctr().ok('images', 'tag', BUSYBOX, name);
  await kubelet.ctr().ok('images', 'push', ...registry.ctrFlags, name);
  await kubelet.ctr().ok('images', 'rm', name);
  const user = registry.user!;
  const wrong = await moor.call(['cri', 'pull', '--creds', 'nobody:secret-guess', name]);
  assert.equal(wrong.code, 1);
  assert.doesNotMatch(wrong.stderr, /secret-guess/);
  const id = await cri('pull', '--creds', user, name);
  assert.match(id, /^sha256:/);
  assert.equal(await cri('pull', '--auth', Buffer.from(user).toString('base64'), name), id);
  const both = await moor.call(['cri', 'pull', '--creds', user, '--auth', 'x', name]);
  assert.match(both.stderr, /give one of/);
  assert.match(
    await cri('images', name, '--digests', '--no-trunc'),
    new RegExp(`^${name} +sha256:\\S+ +${id} `, 'm'),
  );
  const inspected = JSON.parse(await cri('inspecti', name)) as {
    status: { id: string };
    info: { chainID: string };
  };
  assert.equal(inspected.status.id, id);
  assert.match(inspected.info.chainID, /^sha256:/);
  assert.equal((await moor.call(['cri', 'inspecti', 'none'])).code, 1);

  const pod = await kubelet.runPod('user');
  await kubelet.create(pod, 'main', ['true']);
  assert.equal(await cri('rmi', '--prune'), '', 'it is used');
  await kubelet.removePod(pod.id);
  assert.equal(await cri('rmi', '--prune'), id);
  assert.match(await cri('images'), /^IMAGE .*\nlocalhost\/moor\/pause\S* .*yes *$/, 'what is pinned stays');
});
