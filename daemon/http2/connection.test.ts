/** Node's own HTTP/2 as the client: what it says is understood, and what is answered stays within what it takes. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders,
  connect,
  constants,
  type Settings,
} from 'node:http2';
import { type Socket, connect as connectSocket, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { buffer } from 'node:stream/consumers';
import * as fc from 'fast-check';
import { Connection } from './connection.ts';
import { ErrorCode, FrameCutter, FrameType, readNumber } from './frame.ts';
import { headerBlock } from './hpack/encoder.ts';
import type { Http2Stream } from './stream.ts';

const WINDOW = 100_000;
const HEADERS = headerBlock({ ':status': '200' });
const TRAILERS = headerBlock({ done: 'yes' });

interface Served {
  readonly address: string;
  readonly connections: Connection[];
  /** What connections failed with. */
  readonly errors: Error[];
  open(settings?: Settings): ClientHttp2Session;
}

async function serve(t: TestContext, onStream: (stream: Http2Stream) => void): Promise<Served> {
  const directory = mkdtempSync(join(tmpdir(), 'moor-http2-'));
  const address = join(directory, 'socket');
  const served: Served = {
    address,
    connections: [],
    errors: [],
    open: (settings = {}) => {
      const session = connect('http://localhost', {
        createConnection: () => connectSocket(address),
        settings,
      });
      t.after(() => session.destroy());
      return session;
    },
  };
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    served.connections.push(
      new Connection(socket, {
        maxConcurrentStreams: 1000,
        streamWindow: WINDOW,
        connectionWindow: 2 * WINDOW,
        onStream,
        onError: (error) => served.errors.push(error),
      }),
    );
  });
  server.listen(address);
  await once(server, 'listening');
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
    rmSync(directory, { recursive: true });
  });
  return served;
}

/** Sends back all that comes. */
function echo(stream: Http2Stream): void {
  stream.respond(HEADERS);
  stream.read({
    data: (chunk) => {
      stream.write(Buffer.from(chunk));
      stream.consumed(chunk.length);
    },
    end: () => stream.end(TRAILERS, () => undefined),
    cut: () => undefined,
  });
}

/** Answers with headers as JSON, in the order of their coming. */
function tell(stream: Http2Stream): void {
  stream.respond(HEADERS);
  stream.write(Buffer.from(JSON.stringify([...stream.headers.fields])));
  stream.end(TRAILERS, () => undefined);
}

/** Resolves when it is over, in good order or not. */
function closed(request: ClientHttp2Stream): Promise<void> {
  return new Promise((resolve) => request.once('close', () => resolve()));
}

async function answerOf(
  request: ClientHttp2Stream,
): Promise<{ body: Buffer; trailers: IncomingHttpHeaders }> {
  const trailers = once(request, 'trailers') as Promise<[IncomingHttpHeaders]>;
  const body = await buffer(request);
  return { body, trailers: (await trailers)[0] };
}

test(
  'whatever nghttp2 makes of headers is read, for as long as the connection lasts',
  { timeout: 60_000 },
  async (t) => {
    const session = (await serve(t, tell)).open();
    const sent = [
      // Each byte that a value may have, with enough beside it to be worth packing.
      ...[...Array(256).keys()]
        .filter((byte) => byte === 9 || (byte >= 32 && byte !== 127))
        .map((byte) => ({ value: `${'a'.repeat(40)}${String.fromCharCode(byte)}a` })),
      // More than the table holds, again and again, of every size.
      ...Array.from({ length: 300 }, (_, index) => ({
        [`name-${index % 37}`]: `${index % 11}`.repeat((index * index) % 900),
        [`other-${index % 5}`]: 'same',
      })),
      // More than one frame.
      Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`long-${index}`, 'y'.repeat(300)])),
    ];
    for (const headers of sent) {
      const { body } = await answerOf(session.request({ ':path': '/', ...headers }));
      const expected = Object.entries(headers).map(([name, value]) => [name, [value]]);
      assert.deepEqual(JSON.parse(body.toString()), expected);
    }
  },
);

test('what is sent comes back through windows and frames of any size', { timeout: 60_000 }, async (t) => {
  const served = await serve(t, echo);
  const data = Buffer.from(Array.from({ length: 3 * WINDOW + 7 }, (_, index) => (index * 7) % 251));
  for (const settings of [
    {},
    { initialWindowSize: 100 },
    { maxFrameSize: 100_000 },
    { headerTableSize: 0 },
  ]) {
    const session = served.open(settings);
    const answers = Array.from({ length: 5 }, () => {
      const request = session.request({ ':method': 'POST', ':path': '/' });
      request.end(data);
      return answerOf(request);
    });
    for (const { body, trailers } of await Promise.all(answers)) {
      assert.ok(body.equals(data));
      assert.equal(trailers['done'], 'yes');
    }
  }
  assert.deepEqual(served.errors, []);
});

test('a window that is opened later lets go on what waits', { timeout: 60_000 }, async (t) => {
  const session = (await serve(t, echo)).open({ initialWindowSize: 0 });
  const request = session.request({ ':method': 'POST', ':path': '/' });
  const answer = answerOf(request);
  request.end('x'.repeat(1000));
  await once(request, 'response');
  await new Promise<void>((resolve) => session.ping(() => resolve()));
  session.settings({ initialWindowSize: 10_000 });
  assert.equal((await answer).body.length, 1000);
});

test('a stream that nobody reads does not hold up another', { timeout: 60_000 }, async (t) => {
  const served = await serve(t, (stream) => {
    if (stream.headers.path === '/echo') echo(stream);
    else stream.respond(HEADERS);
  });
  const session = served.open();
  const stuck = session.request({ ':method': 'POST', ':path': '/stuck' });
  stuck.on('error', () => undefined);
  stuck.write(Buffer.alloc(2 * WINDOW));
  await once(stuck, 'response');
  const request = session.request({ ':method': 'POST', ':path': '/echo' });
  request.end(Buffer.alloc(5 * WINDOW));
  assert.equal((await answerOf(request)).body.length, 5 * WINDOW);
  // What the stuck one has in the connection's window is free again when it is gone.
  for (let round = 0; round < 5; round += 1) {
    const next = session.request({ ':method': 'POST', ':path': '/stuck' });
    next.on('error', () => undefined);
    next.write(Buffer.alloc(2 * WINDOW));
    await once(next, 'response');
    next.close(constants.NGHTTP2_CANCEL);
    await closed(next);
  }
  const last = session.request({ ':method': 'POST', ':path': '/echo' });
  last.end(Buffer.alloc(5 * WINDOW));
  assert.equal((await answerOf(last)).body.length, 5 * WINDOW);
});

test('a stream that is reset by either side is cut, once', { timeout: 60_000 }, async (t) => {
  let cuts = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const served = await serve(t, (stream) => {
    stream.respond(HEADERS);
    stream.read({
      data: () => stream.reset(ErrorCode.RefusedStream),
      end: () => undefined,
      cut: () => {
        cuts += 1;
        if (cuts === 2) resolve();
      },
    });
  });
  const session = served.open();
  const byUs = session.request({ ':method': 'POST', ':path': '/' });
  byUs.on('error', () => undefined);
  byUs.write('x');
  await closed(byUs);
  assert.equal(byUs.rstCode, constants.NGHTTP2_REFUSED_STREAM);
  const byThem = session.request({ ':method': 'POST', ':path': '/' });
  await once(byThem, 'response');
  byThem.close(constants.NGHTTP2_CANCEL);
  await promise;
  assert.equal(cuts, 2);
  assert.deepEqual(served.errors, []);
});

test(
  'a connection that drains answers what it has, refuses more, and ends',
  { timeout: 60_000 },
  async (t) => {
    const opened = Promise.withResolvers<Http2Stream>();
    const served = await serve(t, (stream) => opened.resolve(stream));
    const session = served.open();
    const request = session.request({ ':path': '/' });
    const answer = answerOf(request);
    const stream = await opened.promise;
    const goodbye = once(session, 'goaway');
    served.connections[0]!.drain();
    await goodbye;
    tell(stream);
    assert.equal((await answer).trailers['done'], 'yes');
    if (!session.destroyed) await once(session, 'close');
    assert.deepEqual(served.errors, []);
  },
);

test(
  'a request that crosses with our goodbye is refused, and those before it are answered',
  { timeout: 60_000 },
  async (t) => {
    const opened = Promise.withResolvers<Http2Stream>();
    const served = await serve(t, (stream) => opened.resolve(stream));
    const socket = connectSocket(served.address);
    const seen: string[] = [];
    const done = Promise.withResolvers<void>();
    const cutter = new FrameCutter((type, _flags, stream, payload) => {
      if (type === FrameType.RstStream) seen.push(`${stream} reset: ${readNumber(payload, 0)}`);
      if (type === FrameType.Headers) seen.push(`${stream} answered`);
      if (type === FrameType.Ping) seen.push('pong');
      if (type === FrameType.Ping) tell(stream1);
      if (type === FrameType.Headers && seen.at(-2) === seen.at(-1)) done.resolve();
    });
    socket.on('data', (chunk: Buffer) => cutter.push(chunk));
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    socket.write(Buffer.from('000000040000000000000003010500000001838684', 'hex'));
    const stream1 = await opened.promise;
    served.connections[0]!.drain();
    // Headers and data of another one, then a ping.
    socket.write(Buffer.from('00000301040000000383868400000400010000000361626364', 'hex'));
    socket.write(Buffer.from('0000080600000000000102030405060708', 'hex'));
    await done.promise;
    assert.deepEqual(seen, [`3 reset: ${ErrorCode.RefusedStream}`, 'pong', '1 answered', '1 answered']);
    socket.destroy();
    assert.deepEqual(served.errors, []);
  },
);

test('bytes of any kind cost their own connection at most', { timeout: 120_000 }, async (t) => {
  const served = await serve(t, echo);
  const good = Buffer.concat([
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    Buffer.from('000000040000000000', 'hex'),
    // POST http /, then data with the end of its stream, then a window and a ping.
    Buffer.from('000003010400000001838684', 'hex'),
    Buffer.from('00000400010000000161626364', 'hex'),
    Buffer.from('00000408000000000000000010', 'hex'),
    Buffer.from('0000080600000000000102030405060708', 'hex'),
  ]);
  const change = fc.tuple(fc.nat(good.length - 1), fc.nat(255));
  await fc.assert(
    fc.asyncProperty(
      fc.array(change, { maxLength: 6 }),
      fc.uint8Array({ maxLength: 40 }),
      fc.nat(good.length),
      async (changes, tail, cut) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[at] = value;
        const socket = connectSocket(served.address);
        socket.on('error', () => undefined);
        socket.resume();
        socket.write(bytes.subarray(0, cut));
        socket.end(Buffer.concat([bytes.subarray(cut), tail]));
        await once(socket, 'close');
      },
    ),
    { numRuns: 500 },
  );
  const { trailers } = await answerOf(served.open().request({ ':path': '/' }));
  assert.equal(trailers['done'], 'yes');
});
