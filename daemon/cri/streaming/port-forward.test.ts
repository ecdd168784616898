import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type Server, createServer } from 'node:http';
import { createServer as createTcp, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { WebSocket, createWebSocketStream } from 'ws';
import { inNamespace, makeNamespace, removeNamespace } from '../../network/netns.ts';
import { SpdyClient, upgrade } from './testing/spdy-client.ts';
import { HostTargets, serveTargets } from './testing/targets.ts';

const LIMIT = { timeout: 60_000 };
const session = { kind: 'portforward', podSandboxId: 'pod', ports: [] } as const;

async function open(client: SpdyClient, port: number, requestid = '0') {
  const error = await client.open({ streamtype: 'error', port: String(port), requestid });
  error.end();
  const data = await client.open({ streamtype: 'data', port: String(port), requestid });
  return { error, data };
}

/** Answers with the length of what it got, once that has ended. */
function counting(): ReturnType<typeof createTcp> {
  return createTcp({ allowHalfOpen: true }, (socket) => {
    let length = 0;
    socket.on('data', (chunk) => (length += chunk.length));
    socket.on('end', () => socket.end(`${length}\n`));
    socket.on('error', () => undefined);
  });
}

async function listening(server: Server | ReturnType<typeof createTcp>, host: string): Promise<number> {
  server.listen(0, host);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

test(
  'connections are forwarded side by side, to version 4 and 6, and each may be ended by half',
  LIMIT,
  async () => {
    const [v4, v6] = [counting(), counting()];
    const ports = [await listening(v4, '127.0.0.1'), await listening(v6, '::1')];
    await using server = serveTargets(new HostTargets());
    const client = await SpdyClient.connect(await server.url(session), 'portforward.k8s.io');
    const connections = [];
    for (let number = 0; number < 20; number += 1)
      connections.push(await open(client, ports[number % 2]!, String(number)));
    for (const [number, { data }] of connections.entries()) {
      data.write(Buffer.alloc(number * 10_000));
      data.end();
    }
    for (const [number, { data, error }] of connections.entries()) {
      assert.equal(await data.output, `${number * 10_000}\n`);
      assert.equal(await error.output, '');
    }
    client.socket.destroy();
    v4.close();
    v6.close();
  },
);

test('a port at which nobody listens is told by the stream of errors, and others go on', LIMIT, async () => {
  const server = counting();
  const port = await listening(server, '127.0.0.1');
  await using streaming = serveTargets(new HostTargets());
  const client = await SpdyClient.connect(await streaming.url(session), 'portforward.k8s.io');
  const bad = await open(client, 1, '0');
  const good = await open(client, port, '1');
  assert.match(await bad.error.output, /error forwarding port 1 to pod pod: .*ECONNREFUSED/);
  good.data.end();
  assert.equal(await good.data.output, '0\n');
  for (const headers of [
    { streamtype: 'data', requestid: '7' },
    { streamtype: 'data', port: '70000', requestid: '7' },
    { streamtype: 'other', port: '80', requestid: '7' },
  ]) {
    const stream = await client.open(headers as Record<string, string>);
    assert.equal(await stream.accepted, false);
  }
  client.socket.destroy();
  server.close();
});

test('a client of old, which does not number its requests', LIMIT, async () => {
  const server = counting();
  const port = String(await listening(server, '127.0.0.1'));
  await using streaming = serveTargets(new HostTargets());
  const client = await SpdyClient.connect(await streaming.url(session), 'portforward.k8s.io');
  await client.open({ streamtype: 'error', port });
  const data = await client.open({ streamtype: 'data', port });
  data.write('four', true);
  assert.equal(await data.output, '4\n');
  client.socket.destroy();
  server.close();
});

test('what listens in the network of a pod is reached, and the daemon stays where it is', LIMIT, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'moor-netns-'));
  const netns = join(directory, 'pod');
  makeNamespace(netns);
  const up = spawn('nsenter', [`--net=${netns}`, 'ip', 'link', 'set', 'lo', 'up']);
  await once(up, 'exit');
  // A server of another process, inside.
  const script =
    'const s=require("net").createServer(c=>c.end("from the pod"));s.listen(0,"127.0.0.1",()=>console.log(s.address().port))';
  const inside = spawn('nsenter', [`--net=${netns}`, process.execPath, '-e', script]);
  try {
    const [line] = (await once(inside.stdout, 'data')) as [Buffer];
    const targets = new HostTargets();
    targets.netns = netns;
    await using streaming = serveTargets(targets);
    const client = await SpdyClient.connect(await streaming.url(session), 'portforward.k8s.io');
    const { data, error } = await open(client, Number(String(line)));
    assert.equal(await data.output, 'from the pod');
    data.end();
    assert.equal(await error.output, '');
    client.socket.destroy();
    assert.equal(
      inNamespace(netns, () => 'there'),
      'there',
    );
    targets.netns = join(directory, 'none');
    const lost = await SpdyClient.connect(await streaming.url(session), 'portforward.k8s.io');
    assert.match(await (await open(lost, 80)).error.output, /ENOENT/);
    lost.socket.destroy();
  } finally {
    inside.kill('SIGKILL');
    removeNamespace(netns);
    rmSync(directory, { recursive: true });
  }
});

test(
  'over WebSocket: SPDY in its messages, and the old form with two channels for each port',
  LIMIT,
  async () => {
    const server = counting();
    const port = await listening(server, '127.0.0.1');
    await using streaming = serveTargets(new HostTargets());
    const socket = new WebSocket(
      (await streaming.url(session)).replace('http', 'ws'),
      'v2.portforward.k8s.io',
    );
    await once(socket, 'open');
    const client = new SpdyClient(createWebSocketStream(socket) as never);
    const { data } = await open(client, port);
    data.write('12345', true);
    assert.equal(await data.output, '5\n');
    socket.terminate();

    // The name that kubectl has for it, which no library of WebSocket allows.
    const named = await upgrade(await streaming.url(session), {
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
      'sec-websocket-protocol': 'SPDY/3.1+portforward.k8s.io',
    });
    assert.equal(named.response.statusCode, 101, named.body);
    assert.equal(named.response.headers['sec-websocket-protocol'], 'SPDY/3.1+portforward.k8s.io');
    named.socket?.destroy();

    const http = createServer((_request, response) => response.end('by http'));
    const old = new WebSocket(
      (await streaming.url({ ...session, ports: [await listening(http, '127.0.0.1')] })).replace(
        'http',
        'ws',
      ),
      'v4.channel.k8s.io',
    );
    const received = ['', ''];
    const told = Promise.withResolvers<void>();
    old.on('message', (bytes: Buffer) => {
      received[bytes[0]!] += bytes.toString('latin1', 1);
      if (received[0]!.includes('by http')) told.resolve();
    });
    await once(old, 'open');
    old.send(Buffer.from('\0GET / HTTP/1.0\r\n\r\n', 'latin1'));
    await told.promise;
    const number = Buffer.from(received[1]!, 'latin1').readUInt16LE();
    assert.equal(number, (http.address() as AddressInfo).port);
    old.terminate();
    http.close();
    http.closeAllConnections();
    server.close();
  },
);
