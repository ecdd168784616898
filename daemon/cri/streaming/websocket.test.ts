import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { HostTargets, serveTargets } from './testing/targets.ts';

const LIMIT = { timeout: 60_000 };
const all = { stdin: true, stdout: true, stderr: true, tty: false };

function sh(script: string, wanted: Partial<typeof all> = {}) {
  return { kind: 'exec', containerId: 'c', command: ['sh', '-c', script], ...all, ...wanted } as const;
}

/** What came on each channel until the connection ended. */
async function collect(socket: WebSocket): Promise<{ readonly channels: string[]; readonly code: number }> {
  const channels = ['', '', '', '', ''];
  socket.on('message', (data: Buffer, isBinary) => {
    if (isBinary) channels[data[0]!] += data.toString('latin1', 1);
    else channels[data[0]! - 48] += Buffer.from(data.toString('latin1', 1), 'base64').toString('latin1');
  });
  const [code] = (await once(socket, 'close')) as [number];
  return { channels, code };
}

async function connect(url: string, ...protocols: string[]): Promise<WebSocket> {
  const socket = new WebSocket(url.replace('http', 'ws'), protocols, { perMessageDeflate: false });
  await once(socket, 'open');
  return socket;
}

const message = (channel: number, text: string) => Buffer.concat([Buffer.of(channel), Buffer.from(text)]);

test('a command over WebSocket, with its input ended by the signal of the fifth version', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const socket = await connect(
    await server.url(sh('cat; echo bad >&2; exit 9')),
    'v5.channel.k8s.io',
    'v4.channel.k8s.io',
  );
  assert.equal(socket.protocol, 'v5.channel.k8s.io');
  const result = collect(socket);
  socket.send(message(0, 'some '));
  socket.send(message(0, 'input\n'));
  socket.send(message(7, 'to nobody'));
  socket.send(Buffer.of(255, 0));
  const { channels, code } = await result;
  assert.equal(code, 1000);
  assert.deepEqual(channels.slice(0, 3), ['', 'some input\n', 'bad\n']);
  const { details } = JSON.parse(channels[3]!) as { details: unknown };
  assert.deepEqual(details, { causes: [{ reason: 'ExitCode', message: '9' }] });
});

test('the same in base64, as browsers send it', LIMIT, async () => {
  const targets = new HostTargets();
  await using server = serveTargets(targets);
  const url = await server.url(sh('read line; echo "$line"', { stderr: false, tty: true }));
  const socket = await connect(url, 'v4.base64.channel.k8s.io');
  const result = collect(socket);
  socket.send(`4${btoa('{"Width":100,"Height":30}')}`);
  socket.send(`0${btoa('in base64\n')}`);
  const { channels } = await result;
  assert.equal(channels[1], 'in base64\n');
  assert.deepEqual(JSON.parse(channels[3]!), { metadata: {}, status: 'Success' });
  assert.deepEqual(targets.sizes, [{ width: 100, height: 30 }]);
});

test('output that is slow to be taken is all there, and input that is slow to be read', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const socket = await connect(
    await server.url(sh('sleep 0.2; wc -c; head -c 3000000 /dev/zero')),
    'v5.channel.k8s.io',
  );
  const result = collect(socket);
  socket.pause();
  for (let sent = 0; sent < 40; sent += 1) socket.send(message(0, 'x'.repeat(50_000)));
  socket.send(Buffer.of(255, 0));
  setTimeout(() => socket.resume(), 300);
  const { channels } = await result;
  assert.equal(channels[1]!.slice(0, 8), '2000000\n');
  assert.equal(channels[1]!.length, 3_000_008);
});

test('a message that is none ends its own connection and no other', LIMIT, async () => {
  await using server = serveTargets(new HostTargets());
  const good = await connect(await server.url(sh('cat')), 'v5.channel.k8s.io');
  const result = collect(good);
  for (const [protocol, bad] of [
    ['v5.channel.k8s.io', 'text where bytes were agreed upon'],
    ['v4.base64.channel.k8s.io', Buffer.of(0, 1, 2)],
    ['v4.channel.k8s.io', Buffer.alloc(2 << 20)],
  ] as const) {
    const socket = await connect(await server.url(sh('exec sleep 1000')), protocol);
    const ending = collect(socket);
    socket.send(bad);
    assert.notEqual((await ending).code, 1000, protocol);
  }
  const stranger = new WebSocket((await server.url(sh('true'))).replace('http', 'ws'), 'what.is.that');
  await assert.rejects(once(stranger, 'open'));
  good.send(message(0, 'still here'));
  good.send(Buffer.of(255, 0));
  assert.equal((await result).channels[1], 'still here');
});
