/** Callers in Go name the server by the path of its socket, and call nobody whose settings they have not seen. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, type IncomingHttpHeaders, connect as http2Connect } from 'node:http2';
import { connect } from 'node:net';
import { Duplex } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { frameHeader } from '../../grpc/frame.ts';
import { serve, type Served } from './fixture.test.ts';

const echo = (t: TestContext): Promise<Served> =>
  serve(t, {
    once: async ({ version }) => ({ version }),
    async join(requests) {
      let count = 0;
      for await (const _ of requests) count += 1;
      return { version: `${count}` };
    },
  });

/** @param isPatient waits for the server's settings, as Go does */
async function session(t: TestContext, address: string, isPatient: boolean): Promise<ClientHttp2Session> {
  const client = http2Connect('http://localhost', { createConnection: () => connect(address) });
  t.after(() => client.destroy());
  if (isPatient) await once(client, 'remoteSettings');
  return client;
}

async function call(
  client: ClientHttp2Session,
  authority: string,
  { method = 'Once', body = [frameHeader(0)], headers = {} } = {},
): Promise<string | undefined> {
  const stream = client.request({
    ':method': 'POST',
    ':path': `/test.Echo/${method}`,
    ':authority': authority,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  });
  for (const chunk of body) stream.write(chunk);
  stream.end();
  stream.resume();
  const [trailers] = (await once(stream, 'trailers')) as [IncomingHttpHeaders];
  return trailers['grpc-status'] as string | undefined;
}

const names = {
  'by a path': '/run/moor/moor.sock',
  'by a long path': `/${'very/'.repeat(40)}long.sock`,
  // Shorter as it is than packed.
  'by a path that is not worth packing': '/&&&&',
  'by a host': 'localhost',
  'by a path in percents': '%2Frun%2Fmoor%2Fmoor.sock',
};

for (const [how, name] of Object.entries(names))
  for (const isPatient of [true, false])
    test(`the server is called ${how} ${isPatient ? 'after its settings' : 'at once'}`, async (t) => {
      const { address, log } = await echo(t);
      const client = await session(t, address, isPatient);
      // Headers that are new each time push the name out of the table of those that are known.
      for (let number = 0; number < 300; number += 1)
        assert.equal(
          await call(client, name, { headers: { 'grpc-timeout': `${90_000_000 + number}u` } }),
          '0',
        );
      assert.deepEqual(log, []);
    });

test('messages larger than a frame pass beside a name that is mended', async (t) => {
  const { address } = await echo(t);
  const client = await session(t, address, true);
  const message = Buffer.concat([
    frameHeader(300_002),
    Buffer.from([0x0a, 0xde, 0xa7, 0x12]),
    Buffer.alloc(299_998, 97),
  ]);
  const upload = { method: 'Join', body: Array.from({ length: 3 }, () => message) };
  const statuses = await Promise.all(
    Array.from({ length: 6 }, (_, index) => call(client, `/run/${index}.sock`, upload)),
  );
  assert.deepEqual(new Set(statuses), new Set(['0']));
});

test('pings are answered before the first call', async (t) => {
  const { address } = await echo(t);
  const client = await session(t, address, true);
  await new Promise<void>((resolve, reject) => {
    client.ping((error) => (error === null ? resolve() : reject(error)));
  });
  assert.equal(await call(client, '/run/moor/moor.sock'), '0');
});

test('a connection in pieces of one byte is served as any other', async (t) => {
  const { address } = await echo(t);
  const socket = connect(address);
  const torn = new Duplex({
    read() {
      socket.resume();
    },
    write(chunk: Buffer, _encoding, done) {
      for (const byte of chunk) socket.write(Buffer.of(byte));
      setImmediate(done);
    },
  });
  socket.on('data', (chunk) => torn.push(chunk));
  const client = http2Connect('http://localhost', { createConnection: () => torn });
  t.after(() => {
    client.destroy();
    socket.destroy();
  });
  for (let count = 0; count < 5; count += 1) assert.equal(await call(client, '/run/moor/moor.sock'), '0');
});

test('those who have called nobody do not keep the server from ending', async (t) => {
  const { address, server } = await echo(t);
  const sockets = ['', 'PRI * HT', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0'].map((bytes) => {
    const socket = connect(address);
    socket.on('error', () => undefined);
    socket.write(bytes);
    return socket;
  });
  await Promise.all(sockets.map((socket) => once(socket, 'connect')));
  // Whoever is served later has been accepted later.
  assert.equal(await call(await session(t, address, false), 'localhost'), '0');
  const closed = sockets.map((socket) => once(socket.resume(), 'close'));
  await server.close(0);
  await Promise.all(closed);
});
