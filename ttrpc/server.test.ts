import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { test } from 'node:test';
import { TtrpcClient } from './client.ts';
import { Code } from './errors.ts';
import {
  fails,
  Note,
  Notes,
  RawPeer,
  rawServer,
  serveNotes,
  setUp,
  socketDirectory,
} from './fixture.test.ts';
import { FrameType } from './frame.ts';
import { decodeResponse, requestFrame, requestPrefix } from './message.ts';
import { TtrpcServer } from './server.ts';
import type { CallContext } from './service.ts';

const rawRequest = (stream: number, method: string, body: number) =>
  requestFrame({
    stream,
    flags: 0,
    prefix: requestPrefix(Notes.fullName, method),
    payload: { type: Note, message: Note.fromPartial({ body: new Uint8Array(body) }) },
    timeout: undefined,
    metadata: undefined,
  });

test('a server that cannot listen a second time goes on serving', async (t) => {
  const { notes, server, path } = await setUp(t);
  await assert.rejects(server.listen(path), fails(Code.AlreadyExists, /address already in use/));
  assert.equal((await notes.echo({ count: 1 })).count, 1);
});

test('a signal that is asked for after the connection is lost is aborted already', async (t) => {
  const context = Promise.withResolvers<CallContext>();
  const { client, notes, server } = await setUp(t, {
    wait: async (_request, given) => {
      context.resolve(given);
      return new Promise(() => {});
    },
  });
  notes.wait({}).catch(() => {});
  const given = await context.promise;
  client.close();
  await server.close({ graceMs: 0 });
  assert.ok(given.signal.aborted);
});

test('the socket is private, the mask is left as it was, and the file goes with the server', async (t) => {
  const before = process.umask();
  const { path, server } = await setUp(t);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.equal(process.umask(), before);
  await server.close();
  await assert.rejects(stat(path), { code: 'ENOENT' });
  await assert.rejects(server.listen(path), fails(Code.Unavailable, /closed/));
});

test('a path that is taken, or cannot be, is refused by name', async (t) => {
  const { path } = await setUp(t);
  await using second = new TtrpcServer();
  await assert.rejects(second.listen(path), fails(Code.AlreadyExists, new RegExp(path)));
  await assert.rejects(second.listen(`${path}/below`), fails(Code.Unavailable, /below/));
  await assert.rejects(second.listenFd(0x7fff), fails(Code.Unavailable, /32767/));
});

test('a request that cannot be decoded is InvalidArgument', async (t) => {
  const { path } = await setUp(t);
  const peer = await RawPeer.connect(path);
  t.after(() => peer.socket.destroy());
  peer.send(1, FrameType.Request, 0, Uint8Array.of(0x0a, 0xff));
  assert.match(Buffer.from((await peer.receive()).payload).toString(), /request cannot be decoded/);
  const garbage = {
    ...Note,
    encode: (_: Note, writer: Parameters<typeof Note.encode>[1]) => writer!.raw(Uint8Array.of(0x0a, 0x7f)),
  };
  peer.socket.write(
    requestFrame({
      stream: 3,
      flags: 0,
      prefix: requestPrefix(Notes.fullName, 'Echo'),
      payload: { type: garbage, message: Note.fromPartial({}) },
      timeout: undefined,
      metadata: undefined,
    }),
  );
  const answer = await peer.receive();
  assert.equal(answer.stream, 3);
  assert.deepEqual([...answer.payload.subarray(2, 4)], [0x08, Code.InvalidArgument]);
});

test('stream numbers must be odd and must increase', async (t) => {
  const { path } = await setUp(t);
  const peer = await RawPeer.connect(path);
  t.after(() => peer.socket.destroy());
  for (const [stream, words] of [
    [2, /odd number/],
    [5, /unknown service/],
    [5, /must increase/],
    [3, /must increase/],
  ] as const) {
    peer.send(stream, FrameType.Request, 0);
    const answer = await peer.receive();
    assert.equal(answer.stream, stream);
    assert.match(Buffer.from(answer.payload).toString(), words);
  }
});

test('frames of types that are not known yet are passed over', async (t) => {
  const { path } = await setUp(t);
  const peer = await RawPeer.connect(path);
  t.after(() => peer.socket.destroy());
  peer.send(1, 9, 0xff, Buffer.from('whatever'));
  peer.send(1, FrameType.Response, 0, Buffer.from('whatever'));
  peer.send(1, FrameType.Request, 0);
  assert.equal((await peer.receive()).stream, 1);
});

test('a connection that sends garbage dies alone', async (t) => {
  const told: Error[] = [];
  const { path, notes, server } = await setUp(t, {}, { onError: (error) => told.push(error) });
  const peer = await RawPeer.connect(path);
  peer.socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await peer.closed;
  assert.equal((await notes.echo({ count: 1 })).count, 1);
  assert.equal(server.connections, 1);
  assert.match(told[0]?.message ?? '', /exceeds the limit/);
});

test('who sends an oversized frame is told on its stream, then cut off', async (t) => {
  const { path } = await setUp(t);
  const peer = await RawPeer.connect(path);
  peer.socket.write(Uint8Array.of(0, 0x40, 0, 1, 0, 0, 0, 7, 1, 0));
  const answer = await peer.receive();
  assert.equal(answer.stream, 7);
  assert.deepEqual([...answer.payload.subarray(2, 4)], [0x08, Code.ResourceExhausted]);
  await peer.closed;
});

test('a client that does not read its answers is not read from', async (t) => {
  let served = 0;
  const { path } = await setUp(t, {
    echo: async (request) => {
      served += 1;
      return request;
    },
  });
  const peer = await RawPeer.connect(path);
  t.after(() => peer.socket.destroy());
  peer.socket.pause();
  const total = 200;
  for (let i = 0; i < total; i += 1) peer.socket.write(rawRequest(2 * i + 1, 'Echo', 256 << 10));
  let before = -1;
  while (served !== before) {
    before = served;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.ok(served < total / 2, `${served} of ${total} requests were served with no answer read`);
  peer.socket.resume();
  for (let i = 0; i < total; i += 1) assert.equal((await peer.receive()).type, FrameType.Response);
});

test('a connection has an end to its calls in flight', async (t) => {
  const { path } = await setUp(t, { wait: () => new Promise(() => {}) });
  const peer = await RawPeer.connect(path);
  t.after(() => peer.socket.destroy());
  const limit = 1 << 14;
  peer.socket.write(
    Buffer.concat(Array.from({ length: limit + 1 }, (_, i) => rawRequest(2 * i + 1, 'Wait', 0))),
  );
  const answer = await peer.receive();
  assert.equal(answer.stream, 2 * limit + 1);
  assert.equal(decodeResponse(answer.payload).code, Code.ResourceExhausted);
});

test('a server that closes lets calls in flight end and refuses new ones', async (t) => {
  const gate = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const { path, notes, server } = await setUp(t, {
    wait: async () => {
      begun.resolve();
      await gate.promise;
      return { text: 'served' };
    },
  });
  const waiting = notes.wait({});
  await begun.promise;
  const closed = server.close({ graceMs: 10_000 });
  await assert.rejects(notes.echo({}), fails(Code.Unavailable, /closing/));
  await assert.rejects(TtrpcClient.connect(path), fails(Code.Unavailable));
  gate.resolve();
  assert.equal((await waiting).text, 'served');
  await closed;
});

test('a server that closes cuts off what takes longer than its grace', async (t) => {
  const { notes, server } = await setUp(t);
  const waiting = assert.rejects(notes.wait({}), fails(Code.Unavailable));
  await notes.echo({});
  await server.close({ graceMs: 10 });
  await waiting;
});

test('a connection can be served that something else accepted, and refused', async (t) => {
  const path = `${await socketDirectory(t)}/s`;
  const { server: raw } = await rawServer(path);
  t.after(() => raw.close());
  const ttrpc = new TtrpcServer({
    onConnection: (socket) => void (ttrpc.connections > 0 && socket.destroy()),
  });
  ttrpc.add(Notes, serveNotes);
  raw.removeAllListeners('connection').on('connection', (socket) => ttrpc.serve(socket));
  using first = await TtrpcClient.connect(path);
  assert.equal((await first.service(Notes).echo({ count: 2 })).count, 2);
  using second = await TtrpcClient.connect(path);
  await assert.rejects(second.service(Notes).echo({}), fails(Code.Unavailable));
  await ttrpc.close();
  await first.closed;
});

test('a service cannot be served twice', () => {
  assert.throws(
    () => new TtrpcServer().add(Notes, serveNotes).add(Notes, serveNotes),
    fails(Code.AlreadyExists),
  );
});

test('a socket that was inherited is served', async (t) => {
  const path = `${await socketDirectory(t)}/s`;
  // Node cannot make a listening socket without accepting from it; Perl, which every Debian has, can.
  const listen = `$^F = 9; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; bind($s, sockaddr_un(shift)) or die;
    listen($s, 5) or die; exec @ARGV, fileno($s)`;
  const serve = `
    import { Notes, serveNotes } from '${import.meta.resolve('./fixture.test.ts')}';
    import { TtrpcServer } from '${import.meta.resolve('./server.ts')}';
    const server = new TtrpcServer().add(Notes, serveNotes);
    await server.listenFd(Number(process.argv[1]));
    process.on('SIGTERM', () => void server.close());
    process.stdout.write('serving');`;
  const node = [process.execPath, '--input-type=module', '-e', serve];
  const child = spawn('perl', ['-MSocket', '-e', listen, path, ...node], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit');
  await once(child.stdout, 'data');
  using client = await TtrpcClient.connect(path);
  assert.equal((await client.service(Notes).echo({ count: 4 })).count, 4);
  child.kill('SIGTERM');
  assert.deepEqual(await exited, [0, null]);
});
