import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';
import { TtrpcClient } from './client.ts';
import { Code, failedPrecondition, isCode, notFound, RpcError } from './errors.ts';
import { FrameType } from './frame.ts';
import { Note, Notes, RawPeer, rawServer, socketDirectory } from './fixture.test.ts';
import { errorFrame, requestFrame, requestPrefix } from './message.ts';
import { TtrpcServer, type TtrpcServerOptions } from './server.ts';
import type { CallContext, ServiceImplementation } from './service.ts';

type Implementation = ServiceImplementation<typeof Notes>;

const defaults: Implementation = {
  echo: async (request) => request,
  wait: (_request, { signal }) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    }),
  fail: async ({ text }) => {
    throw notFound(text);
  },
  async *count({ count }) {
    for (let i = 1; i <= count; i += 1) yield { count: i };
  },
  async sum(requests) {
    let count = 0;
    for await (const request of requests) count += request.count;
    return { count };
  },
  chat: (requests) => requests,
};

async function setUp(
  t: TestContext,
  overrides: Partial<Implementation> = {},
  options: TtrpcServerOptions = {},
) {
  const path = `${await socketDirectory(t)}/s`;
  const server = new TtrpcServer(options).add(Notes, { ...defaults, ...overrides });
  await server.listen(path);
  t.after(() => server.close({ graceMs: 0 }));
  const client = await TtrpcClient.connect(path);
  t.after(() => client.close());
  return { path, server, client, notes: client.service(Notes) };
}

const fails = (code: Code, message?: RegExp) => (error: unknown) => {
  assert.ok(isCode(error, code), String(error));
  if (message !== undefined) assert.match(error.message, message);
  return true;
};

test('a request reaches its method and the response comes back', async (t) => {
  const { notes } = await setUp(t);
  const body = new Uint8Array(100_000).map((_, i) => i);
  assert.deepEqual(await notes.echo({ text: 'äöü', count: -7, body }), { text: 'äöü', count: -7, body });
  assert.deepEqual(await notes.echo({}), { text: '', count: 0, body: new Uint8Array() });
});

test('many calls share one connection and finish in any order', async (t) => {
  const { notes, server } = await setUp(t, {
    echo: async (request) => {
      if (request.count % 3 === 0) await new Promise(setImmediate);
      return request;
    },
  });
  const answers = await Promise.all(Array.from({ length: 500 }, (_, count) => notes.echo({ count })));
  assert.deepEqual(
    answers.map((answer) => answer.count),
    Array.from({ length: 500 }, (_, count) => count),
  );
  assert.equal(server.connections, 1);
});

test('a failure keeps its kind and its words', async (t) => {
  const { notes } = await setUp(t);
  await assert.rejects(
    notes.fail({ text: 'task "x": ünknown' }),
    fails(Code.NotFound, /^task "x": ünknown$/),
  );
});

test('what is thrown without a kind is Unknown to the caller and told to the server', async (t) => {
  const told: Error[] = [];
  const { notes } = await setUp(
    t,
    {
      fail: () => {
        throw new TypeError('boom');
      },
    },
    { onError: (error) => told.push(error) },
  );
  await assert.rejects(notes.fail({}), fails(Code.Unknown, /^boom$/));
  assert.equal(told[0]?.message, 'test.v1.Notes/Fail: boom');
  assert.ok(told[0]?.cause instanceof TypeError);
});

test('a server that cannot listen a second time goes on serving', async (t) => {
  const { notes, server, path } = await setUp(t);
  await assert.rejects(server.listen(path), fails(Code.AlreadyExists, /address already in use/));
  assert.equal((await notes.echo({ count: 1 })).count, 1);
});

test('a service or a method that nobody serves is Unimplemented, by name', async (t) => {
  const { client } = await setUp(t);
  const other = client.service({ ...Notes, fullName: 'test.v1.Other' });
  await assert.rejects(other.echo({}), fails(Code.Unimplemented, /test\.v1\.Other/));
  const newer = client.service({ ...Notes, methods: { later: { ...Notes.methods.echo, name: 'Later' } } });
  await assert.rejects(newer.later({}), fails(Code.Unimplemented, /test\.v1\.Notes\/Later/));
});

test('metadata arrives with lower-case keys and all of its values', async (t) => {
  let seen: CallContext['metadata'] | undefined;
  const { notes } = await setUp(t, {
    echo: async (request, context) => {
      seen = context.metadata;
      return request;
    },
  });
  const metadata = [
    ['Containerd-Namespace-TTRPC', 'moby'],
    ['k', 'a'],
    ['K', 'b'],
  ] as const;
  await notes.echo({}, { metadata });
  assert.deepEqual(
    [...seen!],
    [
      ['containerd-namespace-ttrpc', ['moby']],
      ['k', ['a', 'b']],
    ],
  );
  await notes.echo({});
  assert.equal(seen!.size, 0);
});

test('a deadline ends the call on both sides', async (t) => {
  const aborted = Promise.withResolvers<unknown>();
  const { notes } = await setUp(t, {
    wait: (_request, { signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted.resolve(signal.reason);
          reject(new DOMException('aborted', 'AbortError'));
        });
      }),
  });
  await assert.rejects(notes.wait({}, { timeout: 20 }), fails(Code.DeadlineExceeded, /20 ms/));
  assert.ok(isCode(await aborted.promise, Code.DeadlineExceeded));
  assert.equal((await notes.echo({ count: 1 })).count, 1, 'the late response is dropped');
});

test('a call whose time is over is not sent', async (t) => {
  let calls = 0;
  const { notes } = await setUp(t, {
    echo: async (request) => {
      calls += 1;
      return request;
    },
  });
  await assert.rejects(notes.echo({}, { timeout: 0 }), fails(Code.DeadlineExceeded));
  await assert.rejects(notes.echo({}, { signal: AbortSignal.abort() }), fails(Code.Cancelled));
  await notes.echo({}, { timeout: Infinity });
  await notes.echo({}, { timeout: 2 ** 40 });
  assert.equal(calls, 2);
});

test('a signal cancels the call here, and is left without listeners', async (t) => {
  const { notes } = await setUp(t);
  const controller = new AbortController();
  const waiting = notes.wait({}, { signal: controller.signal });
  await notes.echo({}, { signal: controller.signal });
  assert.equal(getEventListeners(controller.signal, 'abort').length, 1);
  controller.abort(new Error('enough'));
  await assert.rejects(waiting, fails(Code.Cancelled));
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
});

test('a call made on behalf of another ends with the code of that one', async (t) => {
  const { notes } = await setUp(t);
  const controller = new AbortController();
  const waiting = notes.wait({}, { signal: controller.signal });
  controller.abort(failedPrecondition('stopped'));
  await assert.rejects(waiting, fails(Code.FailedPrecondition, /stopped/));
});

test('a lost connection fails its calls with Unavailable and aborts those who serve them', async (t) => {
  const serving = Promise.withResolvers<AbortSignal>();
  const { client, notes, server } = await setUp(t, {
    wait: (request, context) => {
      serving.resolve(context.signal);
      return defaults.wait(request, context);
    },
  });
  const waiting = notes.wait({});
  const signal = await serving.promise;
  client.close();
  await assert.rejects(waiting, fails(Code.Unavailable));
  await client.closed;
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
  assert.ok(isCode(signal.reason, Code.Cancelled));
  await assert.rejects(notes.echo({}), fails(Code.Unavailable, /closed/));
  await server.close();
  assert.equal(server.connections, 0);
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

test('nobody at the address is Unavailable and names it', async (t) => {
  const path = `${await socketDirectory(t)}/nobody`;
  await assert.rejects(TtrpcClient.connect(path), fails(Code.Unavailable, new RegExp(path)));
  await assert.rejects(TtrpcClient.connect('@ttrpc-nobody'), fails(Code.Unavailable, /@ttrpc-nobody/));
  await assert.rejects(TtrpcClient.connect(path, { signal: AbortSignal.abort() }), fails(Code.Cancelled));
});

test('an abstract socket works under both spellings', async () => {
  const name = `ttrpc-test-${process.pid}`;
  await using server = new TtrpcServer().add(Notes, defaults);
  await server.listen(`@${name}`);
  for (const path of [`@${name}`, `\0${name}`]) {
    using client = await TtrpcClient.connect(path);
    assert.equal((await client.service(Notes).echo({ count: 3 })).count, 3);
  }
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

test('an oversized request or response fails its own call only', async (t) => {
  const { notes } = await setUp(t, {
    count: defaults.count,
    fail: async () => ({ body: new Uint8Array(5 << 20) }),
  });
  await assert.rejects(notes.echo({ body: new Uint8Array(5 << 20) }), fails(Code.ResourceExhausted));
  await assert.rejects(notes.fail({}), fails(Code.ResourceExhausted));
  const body = new Uint8Array((4 << 20) - 100).fill(7);
  assert.deepEqual((await notes.echo({ body })).body, body);
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

test('an oversized response fails its call with ResourceExhausted and the others with Unavailable', async (t) => {
  const path = `${await socketDirectory(t)}/s`;
  const { server, peer } = await rawServer(path);
  t.after(() => server.close());
  const client = await TtrpcClient.connect(path);
  const notes = client.service(Notes);
  const first = notes.echo({});
  const second = notes.echo({});
  await (await peer).receive();
  (await peer).socket.write(Uint8Array.of(0xff, 0, 0, 0, 0, 0, 0, 1, 2, 0));
  await assert.rejects(first, fails(Code.ResourceExhausted));
  await assert.rejects(second, fails(Code.Unavailable, /exceeds the limit/));
  await client.closed;
});

test('a server that dies inside a frame fails the call with Unavailable', async (t) => {
  const path = `${await socketDirectory(t)}/s`;
  const { server, peer } = await rawServer(path);
  t.after(() => server.close());
  const client = await TtrpcClient.connect(path);
  const call = client.service(Notes).echo({});
  await (await peer).receive();
  (await peer).socket.end(Uint8Array.of(0, 0, 0, 9, 0, 0, 0, 1, 2));
  await assert.rejects(call, fails(Code.Unavailable, /inside a frame/));
});

test('responses that make no sense fail their call only', async (t) => {
  const path = `${await socketDirectory(t)}/s`;
  const { server, peer: accepted } = await rawServer(path);
  t.after(() => server.close());
  using client = await TtrpcClient.connect(path);
  const notes = client.service(Notes);
  const data = notes.echo({});
  const garbage = notes.echo({});
  const strange = notes.echo({});
  const empty = notes.echo({});
  const peer = await accepted;
  await peer.receive();
  peer.send(99, FrameType.Response, 0);
  peer.send(1, FrameType.Data, 0);
  peer.send(3, FrameType.Response, 0, Uint8Array.of(0x12, 0xff));
  peer.socket.write(errorFrame(5, new RpcError(77 as Code, 'odd')));
  peer.send(7, FrameType.Response, 0);
  await assert.rejects(data, fails(Code.Internal));
  await assert.rejects(garbage, fails(Code.Internal, /cannot be decoded/));
  await assert.rejects(strange, fails(Code.Unknown, /odd/));
  assert.deepEqual(await empty, Note.fromPartial({}), 'a response without status is a success');
  peer.socket.destroy();
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
  ttrpc.add(Notes, defaults);
  raw.removeAllListeners('connection').on('connection', (socket) => ttrpc.serve(socket));
  using first = await TtrpcClient.connect(path);
  assert.equal((await first.service(Notes).echo({ count: 2 })).count, 2);
  using second = await TtrpcClient.connect(path);
  await assert.rejects(second.service(Notes).echo({}), fails(Code.Unavailable));
  await ttrpc.close();
  await first.closed;
});

test('a service cannot be served twice', () => {
  assert.throws(() => new TtrpcServer().add(Notes, defaults).add(Notes, defaults), fails(Code.AlreadyExists));
});

test('a client over a socket that is gone already is closed', async (t) => {
  const { path } = await setUp(t);
  const socket = connect({ path });
  socket.destroy();
  const client = new TtrpcClient(socket);
  await client.closed;
  await assert.rejects(client.service(Notes).echo({}), fails(Code.Unavailable));
});
