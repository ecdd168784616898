/** Callers that break the rules lose their call or their connection; everybody else is served on. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, constants, type IncomingHttpHeaders } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { Code } from '../../ttrpc/errors.ts';
import { frameHeader } from '../../grpc/frame.ts';
import { rawCall, serve, type Served } from './fixture.test.ts';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

const Frame = { Data: 0, Headers: 1, Settings: 4, Ping: 6, WindowUpdate: 8, Continuation: 9 } as const;

/** A frame of HTTP/2 (RFC 9113, 4.1). */
function http2Frame(type: number, stream: number, payload = Buffer.alloc(0), flags = 0): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

const settings = http2Frame(Frame.Settings, 0);

const breaches: Readonly<Record<string, Buffer>> = {
  'no HTTP/2 at all': Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(4)),
  'a torn preface': Buffer.concat([PREFACE.subarray(0, 20), Buffer.alloc(64, 7)]),
  'a frame beyond the size of frames': Buffer.concat([
    PREFACE,
    settings,
    http2Frame(Frame.Headers, 1, Buffer.alloc(70_000), 4),
  ]),
  'headers that cannot be unpacked': Buffer.concat([
    PREFACE,
    settings,
    http2Frame(Frame.Headers, 1, Buffer.alloc(40, 0xff), 4),
  ]),
  'data of no stream': Buffer.concat([PREFACE, settings, http2Frame(Frame.Data, 0, Buffer.alloc(8))]),
  'data of a stream that was never opened': Buffer.concat([
    PREFACE,
    settings,
    http2Frame(Frame.Data, 5, Buffer.alloc(8)),
  ]),
  'a ping of the wrong size': Buffer.concat([PREFACE, settings, http2Frame(Frame.Ping, 0, Buffer.alloc(3))]),
  'a window beyond all bounds': Buffer.concat([
    PREFACE,
    settings,
    http2Frame(Frame.WindowUpdate, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff])),
  ]),
  'headers that never end': Buffer.concat([
    PREFACE,
    settings,
    http2Frame(Frame.Headers, 1, Buffer.from([0x82]), 0),
    ...Array.from({ length: 200 }, () => http2Frame(Frame.Continuation, 1, Buffer.alloc(16_000, 0x82))),
  ]),
};

const echo = (t: TestContext, limit?: number): Promise<Served> =>
  serve(
    t,
    {
      once: async ({ version }) => ({ version }),
      async join(requests) {
        let count = 0;
        for await (const _ of requests) count += 1;
        return { version: `${count}` };
      },
    },
    limit,
  );

for (const [what, bytes] of Object.entries(breaches)) {
  test(`a connection with ${what} is closed, and no other`, { timeout: 10_000 }, async (t) => {
    const { client, address, log } = await echo(t);
    assert.equal(await client.unary('Once', 'before').response, 'before');
    const socket = connect(address);
    socket.on('error', () => undefined);
    socket.resume();
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write(bytes);
    await closed;
    assert.equal(await client.unary('Once', 'after').response, 'after');
    assert.deepEqual(log, []);
  });
}

/** The status that a call ends with. */
async function statusOf(stream: ReturnType<typeof rawCall>['stream']): Promise<IncomingHttpHeaders> {
  const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  return headers;
}

/** Does something on a connection of its own, and sees that a good call on the same connection is answered afterwards. */
async function onConnection(
  { address }: Served,
  action: (stream: ReturnType<typeof rawCall>['stream'], socket: Socket) => Promise<void>,
  headers: { readonly [name: string]: string } = {},
  method = 'Once',
): Promise<void> {
  const { socket, stream } = rawCall(address, method, headers);
  const session = stream.session as ClientHttp2Session;
  await action(stream, socket);
  const next = session.request({
    ':method': 'POST',
    ':path': '/test.Echo/Once',
    'content-type': 'application/grpc+proto',
    te: 'trailers',
  });
  next.end(frameHeader(0));
  next.resume();
  const [trailers] = (await once(next, 'trailers')) as [IncomingHttpHeaders];
  assert.equal(trailers['grpc-status'], '0');
  socket.destroy();
}

test('a gzipped request is refused with what is understood', async (t) => {
  const served = await echo(t);
  const zipped = gzipSync(Buffer.alloc(10));
  const header = frameHeader(zipped.length);
  header[0] = 1;
  await onConnection(
    served,
    async (stream) => {
      stream.end(Buffer.concat([header, zipped]));
      const headers = await statusOf(stream);
      assert.equal(headers['grpc-status'], String(Code.Unimplemented));
      assert.equal(headers['grpc-accept-encoding'], 'identity');
      assert.match(decodeURI(String(headers['grpc-message'])), /"gzip"/);
    },
    { 'grpc-encoding': 'gzip' },
  );
});

test('an encoding that changes nothing is one that is understood', async (t) => {
  const { address } = await echo(t);
  const { socket, stream } = rawCall(address, 'Once', { 'grpc-encoding': 'identity' });
  stream.end(frameHeader(0));
  stream.resume();
  const [trailers] = (await once(stream, 'trailers')) as [IncomingHttpHeaders];
  assert.equal(trailers['grpc-status'], '0');
  socket.destroy();
});

test('gRPC for browsers is another protocol', async (t) => {
  const { address } = await echo(t);
  const { socket, stream } = rawCall(address, 'Once', { 'content-type': 'application/grpc-web' });
  stream.end();
  assert.equal((await statusOf(stream))[':status'], 415);
  socket.destroy();
});

test('one message too many, none, and half of one fail the call', async (t) => {
  const served = await echo(t);
  const cases: [Buffer, Code][] = [
    [Buffer.concat([frameHeader(0), frameHeader(0)]), Code.Unimplemented],
    [Buffer.alloc(0), Code.Unimplemented],
    [frameHeader(0).subarray(0, 3), Code.InvalidArgument],
    [frameHeader(100), Code.InvalidArgument],
  ];
  for (const [bytes, code] of cases) {
    await onConnection(served, async (stream) => {
      stream.end(bytes);
      assert.equal((await statusOf(stream))['grpc-status'], String(code));
    });
  }
  assert.deepEqual(served.log, []);
});

test(
  'a caller that does not stop sending is stopped when it has been answered',
  { timeout: 20_000 },
  async (t) => {
    const served = await echo(t);
    await onConnection(served, async (stream) => {
      const closed = once(stream, 'close');
      const timer = setInterval(() => {
        if (!stream.destroyed) stream.write(frameHeader(0));
      }, 20);
      assert.equal((await statusOf(stream))['grpc-status'], String(Code.Unimplemented));
      stream.resume();
      await closed;
      clearInterval(timer);
      assert.equal(stream.rstCode, constants.NGHTTP2_NO_ERROR);
    });
  },
);

test('headers beyond all measure fail their call', { timeout: 10_000 }, async (t) => {
  const served = await echo(t);
  // Each of them is small enough for the client's own HTTP/2.
  const many = Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`x-${index}`, 'x'.repeat(250)]));
  const { socket, stream } = rawCall(served.address, 'Once', many);
  stream.end(frameHeader(0));
  await new Promise((resolve) => stream.once('close', resolve));
  assert.notEqual(stream.rstCode, constants.NGHTTP2_NO_ERROR);
  socket.destroy();
  assert.equal(await served.client.unary('Once', 'x').response, 'x');
  assert.deepEqual(served.log, []);
});

test('a message that comes byte by byte takes about its size', { timeout: 60_000 }, async (t) => {
  const served = await serve(t, {
    join: async (requests) => {
      for await (const _ of requests) return { version: 'whole' };
      return {};
    },
  });
  const { socket, stream } = rawCall(served.address, 'Join');
  const size = 100_000;
  stream.write(frameHeader(size));
  // A field that nobody knows, of all the rest.
  const body = Buffer.alloc(size);
  body[0] = 0x7a;
  body.writeUIntLE(0x80 | ((size - 4) & 0x7f), 1, 1);
  body.writeUIntLE(0x80 | (((size - 4) >> 7) & 0x7f), 2, 1);
  body.writeUIntLE((size - 4) >> 14, 3, 1);
  for (let at = 0; at < size; at += 1) {
    if (!stream.write(body.subarray(at, at + 1))) await once(stream, 'drain');
  }
  stream.resume();
  const [trailers] = (await once(stream, 'trailers')) as [IncomingHttpHeaders];
  assert.equal(trailers['grpc-status'], '0');
  socket.destroy();
});

test('pings are answered, however many', { timeout: 20_000 }, async (t) => {
  const served = await echo(t);
  await onConnection(served, async (stream) => {
    const session = stream.session as ClientHttp2Session;
    stream.end(frameHeader(0));
    stream.resume();
    await once(stream, 'close');
    for (let round = 0; round < 100; round += 1)
      await Promise.all(
        Array.from(
          { length: 5 },
          () =>
            new Promise<void>((resolve, reject) => {
              session.ping((error) => (error === null ? resolve() : reject(error)));
            }),
        ),
      );
  });
});

test(
  'thousands of calls that are reset at once leave the connection in order',
  { timeout: 60_000 },
  async (t) => {
    const served = await echo(t);
    await onConnection(served, async (first) => {
      const session = first.session as ClientHttp2Session;
      first.end(frameHeader(0));
      first.resume();
      for (let round = 0; round < 30; round += 1) {
        const streams = Array.from({ length: 100 }, (_, index) => {
          const stream = session.request({
            ':method': 'POST',
            ':path': index % 2 === 0 ? '/test.Echo/Once' : '/test.Echo/Join',
            'content-type': 'application/grpc',
            te: 'trailers',
          });
          stream.on('error', () => undefined);
          if (index % 3 === 0) stream.write(frameHeader(0).subarray(0, 4));
          return stream;
        });
        const closed = streams.map((stream) => new Promise((resolve) => stream.once('close', resolve)));
        for (const stream of streams) stream.close(constants.NGHTTP2_CANCEL);
        await Promise.all(closed);
      }
    });
    assert.deepEqual(served.log, []);
  },
);

test('binary metadata passes', async (t) => {
  const { address } = await serve(t, {
    once: async (_, { metadata }) => ({ version: metadata.get('trace-bin')?.join() ?? '' }),
  });
  const { socket, stream } = rawCall(address, 'Once', { 'trace-bin': 'AAEC/w' });
  stream.end(frameHeader(0));
  const chunks = await Array.fromAsync(stream as AsyncIterable<Buffer>);
  assert.match(Buffer.concat(chunks).toString('latin1'), /AAEC\/w/);
  socket.destroy();
});
