/** exec, attach and port-forward into pods, and the events of their lives. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { SpdyClient } from '../daemon/cri/streaming/testing/spdy-client.ts';
import { ContainerEventType } from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import { Kubelet } from './harness/cri.ts';

const LIMIT = { timeout: 240_000 };
const V4 = 'v4.channel.k8s.io';
const TYPES = Object.keys(ContainerEventType).map((name) => name.split('_')[1]!);

test(
  'programs run in a container, its first process is attached to, and its ports are reached',
  LIMIT,
  async () => {
    await using kubelet = await Kubelet.start();
    const { runtime } = kubelet;
    const pod = await kubelet.runPod('streams');
    const script = 'while read line; do echo "got $line"; done; exec sleep 1000';
    const containerId = await kubelet.run(pod, 'main', ['sh', '-c', script], { stdin: true });

    const { url } = await runtime.exec({
      containerId,
      cmd: ['sh', '-c', 'cat; echo bad >&2; exit 42'],
      stdin: true,
      stdout: true,
      stderr: true,
    });
    const client = await SpdyClient.connect(url, V4);
    const error = await client.open({ streamtype: 'error' });
    const stdin = await client.open({ streamtype: 'stdin' });
    const stdout = await client.open({ streamtype: 'stdout' });
    const stderr = await client.open({ streamtype: 'stderr' });
    stdin.write('to the program', true);
    assert.equal(await stdout.output, 'to the program');
    assert.equal(await stderr.output, 'bad\n');
    const { details } = JSON.parse(await error.output) as { details: { causes: { message: string }[] } };
    assert.equal(details.causes[0]!.message, '42');

    const terminal = await runtime.exec({
      containerId,
      cmd: ['sh', '-c', 'stty size; read line; stty size; echo "$line"'],
      stdin: true,
      stdout: true,
      tty: true,
    });
    const typing = await SpdyClient.connect(terminal.url, V4);
    const how = await typing.open({ streamtype: 'error' });
    const keys = await typing.open({ streamtype: 'stdin' });
    const screen = await typing.open({ streamtype: 'stdout' });
    const resize = await typing.open({ streamtype: 'resize' });
    await screen.received('\n');
    resize.write('{"Width":101,"Height":31}');
    await resize.accepted;
    // The size is set before what is typed after it can be read, or not: it is asked until it is.
    await untilSized(runtime, containerId);
    keys.write('hello\n');
    assert.match(await screen.output, /31 101\r\nhello\r\n$/);
    assert.match(await how.output, /Success/);

    const modern = await runtime.exec({ containerId, cmd: ['echo', 'by WebSocket'], stdout: true });
    const socket = new WebSocket(modern.url.replace('http', 'ws'), 'v5.channel.k8s.io');
    const messages: string[] = [];
    socket.on('message', (data: Buffer) => messages.push(data.toString('latin1')));
    await once(socket, 'close');
    assert.match(messages.join(''), /by WebSocket\n.*Success/s);

    const attached = await runtime.attach({ containerId, stdin: true, stdout: true, stderr: true });
    const viewer = await SpdyClient.connect(attached.url, V4);
    await viewer.open({ streamtype: 'error' });
    const into = await viewer.open({ streamtype: 'stdin' });
    const outOf = await viewer.open({ streamtype: 'stdout' });
    await viewer.open({ streamtype: 'stderr' });
    into.write('one\n');
    await outOf.received('got one\n');
    viewer.socket.destroy();

    await kubelet.run(pod, 'server', ['sh', '-c', 'echo from the pod > /file; exec httpd -f -p 8080 -h /']);
    const forwarding = await runtime.portForward({ podSandboxId: pod.id });
    const forwarder = await SpdyClient.connect(forwarding.url, 'portforward.k8s.io');
    for (let number = 0; ; number += 1) {
      const headers = { port: '8080', requestid: String(number) };
      await forwarder.open({ ...headers, streamtype: 'error' });
      const data = await forwarder.open({ ...headers, streamtype: 'data' });
      data.write('GET /file HTTP/1.0\r\n\r\n');
      const answer = await data.output;
      data.end();
      // The server takes its time to listen.
      if (answer.endsWith('from the pod\n')) break;
    }
    forwarder.socket.destroy();
  },
);

/** Until a terminal of the container has the size that was asked for. */
async function untilSized(runtime: Kubelet['runtime'], containerId: string): Promise<void> {
  const script = 'for tty in /dev/pts/[0-9]*; do stty -F $tty size; done';
  for (;;) {
    const { stdout } = await runtime.execSync({ containerId, cmd: ['sh', '-c', script], timeout: 30n });
    if (Buffer.from(stdout).toString().includes('31 101')) return;
  }
}

test('what cannot be streamed is refused before there is a URL', LIMIT, async () => {
  await using kubelet = await Kubelet.start();
  const { runtime } = kubelet;
  const pod = await kubelet.runPod('refusals');
  const containerId = await kubelet.create(pod, 'main', ['sleep', '1000']);
  const one = { stdout: true, cmd: ['true'] };
  const expect = (call: Promise<unknown>, code: Code) => assert.rejects(call, { code });
  await expect(runtime.exec({ ...one, containerId: 'none' }), Code.NotFound);
  await expect(runtime.exec({ ...one, containerId }), Code.FailedPrecondition);
  await runtime.startContainer({ containerId });
  await expect(runtime.exec({ containerId, cmd: ['true'] }), Code.InvalidArgument);
  await expect(runtime.exec({ containerId, stdout: true }), Code.InvalidArgument);
  await expect(runtime.exec({ ...one, containerId, tty: true, stderr: true }), Code.InvalidArgument);
  await expect(runtime.attach({ containerId }), Code.InvalidArgument);
  await expect(runtime.portForward({}), Code.InvalidArgument);
  await expect(runtime.portForward({ podSandboxId: 'none' }), Code.NotFound);
  await runtime.stopPodSandbox({ podSandboxId: pod.id });
  await expect(runtime.portForward({ podSandboxId: pod.id }), Code.FailedPrecondition);
});

test('a subscriber hears of every turn in the life of a pod and its container', LIMIT, async () => {
  await using kubelet = await Kubelet.start();
  const { runtime } = kubelet;
  const heard: string[] = [];
  const names = new Map<string, string>();
  const done = Promise.withResolvers<void>();
  const stop = new AbortController();
  const listening = (async () => {
    for await (const event of runtime.getContainerEvents({}, { signal: stop.signal })) {
      const { containerId, containerEventType, podSandboxStatus, containersStatuses, createdAt } = event;
      assert.ok(createdAt > 0n);
      const type = TYPES[containerEventType]!;
      heard.push(
        `${names.get(containerId) ?? containerId} ${type} ${podSandboxStatus?.state} ${containersStatuses.length}`,
      );
      if (heard.length === 8) done.resolve();
    }
  })().catch((error: unknown) => {
    if (!stop.signal.aborted) done.reject(error);
  });
  // A stream has begun when something has come by it; that is what the first pod is for.
  while (heard.length === 0) {
    const { id } = await kubelet.runPod(`first-${Math.random().toString(36).slice(2)}`);
    await kubelet.removePod(id);
  }
  const { items } = await runtime.listPodSandbox({});
  assert.deepEqual(items, []);
  heard.length = 0;
  const pod = await kubelet.runPod('told');
  names.set(pod.id, 'pod');
  const id = await kubelet.run(pod, 'main', ['sleep', '1000']);
  names.set(id, 'container');
  await kubelet.removePod(pod.id);
  await done.promise;
  stop.abort();
  await listening;
  const told = heard.map((line) => line.replace(pod.id, 'pod').replace(id, 'container'));
  assert.deepEqual(told.toSorted(), [
    'container CREATED 0 1',
    'container DELETED 1 0',
    'container STARTED 0 1',
    'container STOPPED 0 1',
    'pod CREATED 0 0',
    'pod DELETED 1 0',
    'pod STARTED 0 0',
    'pod STOPPED 1 1',
  ]);
});

test('streams over TLS are for those who trust the configured certificate', LIMIT, async () => {
  const folder = mkdtempSync('/tmp/moor-tls-');
  try {
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
    const names = ['-subj', '/CN=node', '-addext', 'subjectAltName=IP:127.0.0.1'];
    execFileSync('openssl', ['req', '-x509', ...kind, ...names, '-keyout', key, '-out', cert], {
      stdio: 'ignore',
    });
    const config = `[cri.streaming]\ntls_cert = "${cert}"\ntls_key = "${key}"`;
    await using kubelet = await Kubelet.start({ config });
    const pod = await kubelet.runPod('tls');
    const containerId = await kubelet.run(pod, 'main', ['sleep', '1000']);
    const exec = async (): Promise<string> => {
      const { url } = await kubelet.runtime.exec({ containerId, cmd: ['echo', 'in secret'], stdout: true });
      assert.match(url, /^https:\/\/127\.0\.0\.1:\d+\/exec\//);
      return url.replace('https', 'wss');
    };
    const trusting = new WebSocket(await exec(), 'v5.channel.k8s.io', { ca: readFileSync(cert) });
    const messages: string[] = [];
    trusting.on('message', (data: Buffer) => messages.push(data.toString('latin1')));
    await once(trusting, 'close');
    assert.match(messages.join(''), /in secret\n.*Success/s);
    const distrusting = new WebSocket(await exec(), 'v5.channel.k8s.io');
    const [error] = (await once(distrusting, 'error')) as [Error & { code?: string }];
    assert.equal(error.code, 'DEPTH_ZERO_SELF_SIGNED_CERT');
    const plain = new WebSocket((await exec()).replace('wss', 'ws'), 'v5.channel.k8s.io');
    await once(plain, 'error');
  } finally {
    rmSync(folder, { recursive: true });
  }
});
