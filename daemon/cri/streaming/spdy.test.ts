import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as immediate } from 'node:timers/promises';
import { SpdyClient, upgrade, words } from './testing/spdy-client.ts';
import { HostTargets, serveTargets } from './testing/targets.ts';

const V4 = 'v4.channel.k8s.io';
const LIMIT = { timeout: 60_000 };
const plain = { stdin: false, stdout: true, stderr: true, tty: false };

function sh(script: string, wanted: Partial<typeof plain> = {}) {
  return { kind: 'exec', containerId: 'c', command: ['sh', '-c', script], ...plain, ...wanted } as const;
}

test('a command over SPDY gives its output, its errors and its exit code', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const client = await SpdyClient.connect(await server.url(sh('echo out; echo err >&2; exit 7')), V4);
  const error = await client.open({ streamtype: 'error' });
  const stdout = await client.open({ streamtype: 'stdout' });
  const stderr = await client.open({ streamtype: 'stderr' });
  assert.equal(await error.accepted, true);
  assert.equal(await stdout.output, 'out\n');
  assert.equal(await stderr.output, 'err\n');
  const status = JSON.parse(await error.output) as Record<string, unknown>;
  assert.deepEqual(status, {
    metadata: {},
    status: 'Failure',
    message: 'command terminated with non-zero exit code: exit status 7',
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: '7' }] },
  });
  assert.equal(await client.goneAway.promise, 0);
  await client.closed;
});

test('input goes to the command until it ends, a megabyte as well as nothing', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const size = 1 << 20;
  const session = sh('wc -c; head -c 1000000 /dev/zero', { stdin: true, stderr: false });
  const client = await SpdyClient.connect(await server.url(session), V4);
  const error = await client.open({ streamtype: 'error' });
  const stdin = await client.open({ streamtype: 'stdin' });
  const stdout = await client.open({ streamtype: 'stdout' });
  assert.equal(await stdin.accepted, true);
  stdin.write(Buffer.alloc(size / 2));
  stdin.write(Buffer.alloc(size / 2), true);
  const output = await stdout.output;
  assert.equal(output.slice(0, 8), `${size}\n`);
  assert.equal(output.length, 1_000_008);
  assert.deepEqual(JSON.parse(await error.output), { metadata: {}, status: 'Success' });
  assert.ok((client.taken.get(stdin.id) ?? 0) > size - (64 << 10), 'the window was opened again');
});

test('a terminal has its size changed, and no stream of errors', LIMIT, async () => {
  const targets = new HostTargets();
  await using server = serveTargets(targets);
  const session = sh('read line; echo "$line"', { stdin: true, stderr: false, tty: true });
  const client = await SpdyClient.connect(await server.url(session), V4);
  const error = await client.open({ streamtype: 'error' });
  const stdin = await client.open({ streamtype: 'stdin' });
  const stdout = await client.open({ streamtype: 'stdout' });
  const resize = await client.open({ streamtype: 'resize' });
  assert.equal(await resize.accepted, true);
  resize.write('{"Width":80,"Height":24}\n{"Width":1');
  resize.write('32,"Height":43}\n');
  while (targets.sizes.length < 2) await immediate();
  assert.deepEqual(targets.sizes, [
    { width: 80, height: 24 },
    { width: 132, height: 43 },
  ]);
  stdin.write('hello\n');
  assert.equal(await stdout.output, 'hello\n');
  assert.match(await error.output, /Success/);
});

test('what cannot be started is told by the error stream', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const session = { ...sh(''), command: ['/no/such/program'] };
  const client = await SpdyClient.connect(await server.url(session), V4);
  const error = await client.open({ streamtype: 'error' });
  await client.open({ streamtype: 'stdout' });
  await client.open({ streamtype: 'stderr' });
  const { status, code, reason, message } = JSON.parse(await error.output) as Record<string, unknown>;
  assert.deepEqual([status, code, reason], ['Failure', 500, 'InternalError']);
  assert.match(message as string, /no\/such\/program/);
});

test('the first protocol knows no JSON, and the client chooses', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const { response, socket } = await upgrade(await server.url(sh('exit 3')), {
    upgrade: 'SPDY/3.1',
    'x-stream-protocol-version': ['v9.channel.k8s.io', 'channel.k8s.io', V4],
  });
  assert.equal(response.headers['x-stream-protocol-version'], 'channel.k8s.io');
  const client = new SpdyClient(socket!);
  const error = await client.open({ streamtype: 'error' });
  await client.open({ streamtype: 'stdout' });
  await client.open({ streamtype: 'stderr' });
  assert.equal(await error.output, 'command terminated with non-zero exit code: exit status 3');
});

test('attach ends with success whatever the process ends with', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const url = await server.url({ kind: 'attach', containerId: 'c', ...plain, stdin: true });
  const client = await SpdyClient.connect(url, V4);
  const error = await client.open({ streamtype: 'error' });
  const stdin = await client.open({ streamtype: 'stdin' });
  const stdout = await client.open({ streamtype: 'stdout' });
  await client.open({ streamtype: 'stderr' });
  stdin.write('hello\n');
  await stdout.received('hello\n');
  stdin.end();
  assert.equal(await stdout.output, 'hello\ndone\n');
  assert.match(await error.output, /Success/);
});

test('a client that leaves has its process let go of', LIMIT, async () => {
  const targets = new HostTargets();
  await using server = serveTargets(targets);
  const client = await SpdyClient.connect(await server.url(sh('echo on; exec sleep 1000')), V4);
  await client.open({ streamtype: 'error' });
  const stdout = await client.open({ streamtype: 'stdout' });
  await client.open({ streamtype: 'stderr' });
  await stdout.received('on\n');
  client.socket.destroy();
  while (targets.disposed.length === 0) await immediate();
});

test('a token is good once, for its own kind of request, and not without an upgrade', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const asking = { upgrade: 'SPDY/3.1', 'x-stream-protocol-version': V4 };
  const url = await server.url(sh('true'));
  assert.equal((await upgrade(url.replace('/exec/', '/attach/'), asking)).response.statusCode, 404);
  assert.equal((await upgrade(url, asking)).response.statusCode, 404, 'the try has used it up');
  assert.equal((await upgrade(`${url}x`, asking)).response.statusCode, 404);
  const none = await upgrade(await server.url(sh('true')), { ...asking, 'x-stream-protocol-version': 'v9' });
  assert.equal(none.response.statusCode, 403);
  assert.match(
    none.response.headers['x-accepted-stream-protocol-versions'] as string,
    /v4\.channel\.k8s\.io/,
  );
  const other = await upgrade(await server.url(sh('true')), { ...asking, upgrade: 'SPDY/2' });
  assert.equal(other.response.statusCode, 400);
  const answer = await fetch(await server.url(sh('true')));
  assert.equal(answer.status, 400);
});

test('frames that are none end their own connection and no other', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const good = await SpdyClient.connect(await server.url(sh('cat', { stdin: true, stderr: false })), V4);
  await good.open({ streamtype: 'error' });
  const stdin = await good.open({ streamtype: 'stdin' });
  const stdout = await good.open({ streamtype: 'stdout' });
  const broken: ((client: SpdyClient) => unknown)[] = [
    (client) => client.frame(1, 0, words(1)),
    (client) => client.frame(1, 0, Buffer.concat([words(1, 0), Buffer.from('\0\0not deflated at all')])),
    (client) => client.frame(4, 0, words(1000)),
    (client) => client.socket.write(Buffer.from([0x80, 2, 0, 1, 0, 0, 0, 0])),
    (client) => client.socket.write(Buffer.from([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff])),
    (client) => client.open({ big: 'x'.repeat(100_000) }),
    async (client) => {
      await client.openAs(5, { streamtype: 'error' });
      await client.openAs(3, { streamtype: 'stdout' });
    },
    (client) => client.openAs(2, { streamtype: 'error' }),
  ];
  for (const act of broken) {
    const client = await SpdyClient.connect(await server.url(sh('exec sleep 1000')), V4);
    await act(client);
    await client.goneAway.promise;
    client.socket.destroy();
  }
  assert.equal(await stdin.accepted, true);
  stdin.write('still here\n', true);
  assert.equal(await stdout.output, 'still here\n');
});

test('pings are answered, unknown frames and closed streams are not minded', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const client = await SpdyClient.connect(await server.url(sh('cat', { stdin: true, stderr: false })), V4);
  client.frame(6, 0, words(1));
  client.frame(77, 0, words(1));
  client.data(99, Buffer.from('to nobody'), false);
  client.frame(9, 0, words(99, 1000));
  const stray = await client.open({ streamtype: 'nonsense' });
  assert.equal(await stray.accepted, false);
  await client.open({ streamtype: 'error' });
  const stdin = await client.open({ streamtype: 'stdin' });
  const stdout = await client.open({ streamtype: 'stdout' });
  const second = await client.open({ streamtype: 'stdout' });
  assert.equal(await second.accepted, false, 'there is one of each');
  stdin.write('x', true);
  assert.equal(await stdout.output, 'x');
  assert.deepEqual(client.pings, [1]);
});

test('a client that counts what it takes is not sent more', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const client = await SpdyClient.connect(
    await server.url(sh('head -c 300000 /dev/zero', { stderr: false })),
    V4,
  );
  // SETTINGS: an initial window of 1000 bytes.
  client.frame(4, 0, words(1, 7, 1000));
  await client.open({ streamtype: 'error' });
  const stdout = await client.open({ streamtype: 'stdout' });
  await stdout.received('\0'.repeat(1000));
  client.frame(6, 0, words(1));
  while (client.pings.length === 0) await immediate();
  await assert.rejects(
    Promise.race([stdout.received('\0'.repeat(1001)), Promise.reject(new Error('no more than the window'))]),
  );
  client.frame(9, 0, words(stdout.id, 299_000));
  assert.equal((await stdout.output).length, 300_000);
});
