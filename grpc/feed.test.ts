import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { type ServerHttp2Stream, createServer } from 'node:http2';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Code, type RpcError, isCode } from '../ttrpc/errors.ts';
import { Line } from './feed.ts';
import { FrameReader, frameHeader } from './frame.ts';

const LIMIT = 1 << 20;
const PATH = '/test.Harbour/Watch';

const framed = (text: string): Buffer =>
  Buffer.concat([frameHeader(Buffer.byteLength(text)), Buffer.from(text)]);

type Answer = (stream: ServerHttp2Stream, request: string, socket: Socket) => void;

interface Served extends Disposable {
  readonly line: Line;
  readonly headers: { readonly [name: string]: unknown }[];
  connections: number;
}

/** A server whose calls are answered so, and a line to it. */
async function served(t: TestContext, answer: Answer): Promise<Served> {
  const directory = mkdtempSync(join(tmpdir(), 'moor-feed-'));
  const server = createServer();
  const path = join(directory, 's');
  const sockets = new Set<Socket>();
  const line = new Line(path, LIMIT);
  const harbour: Served = { line, headers: [], connections: 0, [Symbol.dispose]: () => line.close() };
  server.on('connection', (socket: Socket) => {
    harbour.connections += 1;
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  server.on('sessionError', () => undefined);
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    harbour.headers.push(headers);
    const reader = new FrameReader(LIMIT);
    const messages: Buffer[] = [];
    stream.on('error', () => undefined);
    stream.on('data', (chunk: Buffer) => messages.push(...reader.push(chunk)));
    stream.on('end', () => answer(stream, Buffer.concat(messages).toString(), [...sockets].at(-1)!));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => {
    line.close();
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(directory, { recursive: true });
  });
  return harbour;
}

function open(stream: ServerHttp2Stream, status: string, message?: string): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.once('wantTrailers', () =>
    stream.sendTrailers({ 'grpc-status': status, ...(message !== undefined && { 'grpc-message': message }) }),
  );
}

async function textsOf(feed: AsyncIterable<Buffer>): Promise<string[]> {
  const texts: string[] = [];
  for await (const message of feed) texts.push(message.toString());
  return texts;
}

/** What came, and how it ended then. */
async function outcome(feed: AsyncIterable<Buffer>): Promise<[texts: string[], failure: RpcError]> {
  const texts: string[] = [];
  try {
    for await (const message of feed) texts.push(message.toString());
  } catch (error) {
    return [texts, error as RpcError];
  }
  throw new Error('it ended in good order');
}

test('a call is answered by messages and a status, several of them over one connection', async (t) => {
  const harbour = await served(t, (stream, request) => {
    open(stream, '0');
    for (const part of [request, '', 'two']) stream.write(framed(part));
    stream.end();
  });
  const { line } = harbour;
  const metadata = [['x-b', '2']] as const;
  const feeds = [0, 1].map(() =>
    line.open(PATH, Buffer.from('one'), [['x-a', '1']], { metadata, timeout: 60_000 }),
  );
  for (const feed of feeds) assert.deepEqual(await textsOf(feed), ['one', '', 'two']);
  const { ':path': path, te, 'grpc-timeout': timeout, 'x-a': a, 'x-b': b } = harbour.headers[0]!;
  assert.deepEqual([path, te, timeout, a, b], [PATH, 'trailers', '60000m', '1', '2']);
  assert.equal(harbour.connections, 1);
});

test('all that has come is handed on before the loss of the connection is', async (t) => {
  const count = 500;
  const harbour = await served(t, (stream, _, socket) => {
    open(stream, '0');
    for (let n = 0; n < count - 1; n += 1) stream.write(framed(`${n}`));
    // The kernel has it all, and this process is gone.
    stream.write(framed(`${count - 1}`), () => socket.destroy());
  });
  for (let round = 0; round < 10; round += 1) {
    const [texts, failure] = await outcome(harbour.line.open(PATH, Buffer.of(), []));
    assert.deepEqual([texts.length, texts.at(-1)], [count, `${count - 1}`]);
    assert.ok(isCode(failure, Code.Unavailable), String(failure));
    assert.match(failure.message, /^the connection to .* was lost$/);
  }
  assert.equal(harbour.connections, 10);
});

test('a status is the failure of the call, after its messages or in their place', async (t) => {
  const harbour = await served(t, (stream, request) => {
    if (request === 'none') {
      stream.respond(
        { ':status': 200, 'grpc-status': '5', 'grpc-message': 'no%20ship%3A %C3%A4' },
        { endStream: true },
      );
      return;
    }
    open(stream, '8', '100% full');
    stream.end(framed('some'));
  });
  const [none, notFound] = await outcome(harbour.line.open(PATH, Buffer.from('none'), []));
  assert.deepEqual([none, notFound.code, notFound.message], [[], Code.NotFound, 'no ship: ä']);
  const [some, exhausted] = await outcome(harbour.line.open(PATH, Buffer.from('some'), []));
  assert.deepEqual(
    [some, exhausted.code, exhausted.message],
    [['some'], Code.ResourceExhausted, '100% full'],
  );
});

test('who is not there, is no gRPC, says too much or ends without a status is named', async (t) => {
  const harbour = await served(t, (stream, request) => {
    if (request === 'web') {
      stream.respond({ ':status': 404 }, { endStream: true });
      return;
    }
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
    if (request === 'large') stream.end(frameHeader(LIMIT + 1));
    else stream.end();
  });
  const failureOf = async (request: string) =>
    (await outcome(harbour.line.open(PATH, Buffer.from(request), [])))[1];
  const web = await failureOf('web');
  assert.deepEqual([web.code, /answers with HTTP status 404/.test(web.message)], [Code.Unknown, true]);
  assert.equal((await failureOf('large')).code, Code.ResourceExhausted);
  const mute = await failureOf('mute');
  assert.deepEqual([mute.code, /without a status/.test(mute.message)], [Code.Internal, true]);
  const nobody = new Line('/nowhere/at/all', LIMIT);
  const [, failure] = await outcome(nobody.open(PATH, Buffer.of(), []));
  assert.equal(failure.code, Code.Unavailable);
  assert.match(failure.message, /^cannot connect to \/nowhere\/at\/all: connect ENOENT/);
  nobody.close();
  assert.throws(() => nobody.open(PATH, Buffer.of(), []), /has been closed/);
});

test(
  'a call ends with its signal, its time, its reader and its line, and the peer is told',
  { timeout: 60_000 },
  async (t) => {
    let left = 4;
    const told = Promise.withResolvers<void>();
    const harbour = await served(t, (stream) => {
      open(stream, '0');
      stream.write(framed('first'));
      stream.once('close', () => {
        left -= 1;
        if (left === 0) told.resolve();
      });
    });
    const { line } = harbour;
    const stop = new AbortController();
    const aborted = line.open(PATH, Buffer.of(), [], { signal: stop.signal });
    const first = await aborted[Symbol.asyncIterator]().next();
    assert.equal(String(first.value), 'first');
    stop.abort();
    assert.equal((await outcome(aborted))[1].code, Code.Cancelled);
    const late = await outcome(line.open(PATH, Buffer.of(), [], { timeout: 200 }));
    assert.equal(late[1].code, Code.DeadlineExceeded);
    for await (const message of line.open(PATH, Buffer.of(), [])) {
      assert.equal(message.toString(), 'first');
      break;
    }
    const cut = line.open(PATH, Buffer.of(), []);
    const iterator = cut[Symbol.asyncIterator]();
    await iterator.next();
    line.close();
    await assert.rejects(iterator.next(), (error) => isCode(error, Code.Unavailable));
    await told.promise;
  },
);

test('a slow reader makes its peer wait, and loses nothing', async (t) => {
  const message = 'x'.repeat(64 << 10);
  const count = 200;
  let sent = 0;
  const harbour = await served(t, (stream) => {
    open(stream, '0');
    const send = (): void => {
      while (sent < count) {
        sent += 1;
        if (!stream.write(framed(message))) return void stream.once('drain', send);
      }
      stream.end();
    };
    send();
  });
  const iterator = harbour.line.open(PATH, Buffer.of(), [])[Symbol.asyncIterator]();
  await iterator.next();
  let before = -1;
  while (before !== sent) {
    before = sent;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  assert.ok(sent < 60, `${sent} messages were taken for a reader of one`);
  let taken = 1;
  while ((await iterator.next()).done !== true) taken += 1;
  assert.equal(taken, count);
});
