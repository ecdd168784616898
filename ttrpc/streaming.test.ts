import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test, type TestContext } from 'node:test';
import { TtrpcClient } from './client.ts';
import { Code, isCode, notFound } from './errors.ts';
import { Flag, FrameType } from './frame.ts';
import {
  fails,
  gather,
  type Note,
  Notes,
  type NotesImplementation,
  RawPeer,
  rawServer,
  setUp,
  socketDirectory,
} from './fixture.test.ts';
import { decodeRequest, decodeResponse } from './message.ts';
import type { PartialMessage } from './service.ts';

/** A client of ours before a server that is played by the test. */
async function setUpRawServer(t: TestContext) {
  const path = `${await socketDirectory(t)}/s`;
  const { server, peer } = await rawServer(path);
  t.after(() => server.close());
  const client = await TtrpcClient.connect(path);
  t.after(() => client.close());
  return { notes: client.service(Notes), peer: await peer };
}

async function* counting(to: number): AsyncGenerator<PartialMessage<Note>> {
  for (let i = 1; i <= to; i += 1) yield { count: i };
}

/** A source that says when it was told to stop. */
function endless() {
  const stopped = Promise.withResolvers<void>();
  let sent = 0;
  async function* source(): AsyncGenerator<PartialMessage<Note>> {
    try {
      for (;;) {
        sent += 1;
        yield { text: 'x', body: new Uint8Array(1000) };
        await new Promise(setImmediate);
      }
    } finally {
      stopped.resolve();
    }
  }
  return { source: source(), stopped: stopped.promise, sent: () => sent };
}

test('a server streams', async (t) => {
  const { notes } = await setUp(t);
  const counts = (await gather(notes.count({ count: 1000 }))).map((note) => note.count);
  assert.deepEqual(
    counts,
    Array.from({ length: 1000 }, (_, i) => i + 1),
  );
  assert.deepEqual(await gather(notes.count({})), []);
});

test('a client streams', async (t) => {
  const { notes } = await setUp(t);
  assert.equal((await notes.sum(counting(1000))).count, 500_500);
  assert.equal((await notes.sum(counting(0))).count, 0);
});

test('both stream, each waiting for the other', async (t) => {
  const { notes } = await setUp(t);
  let answered = Promise.withResolvers<void>();
  async function* ask() {
    for (const text of ['a', 'b', 'c']) {
      answered = Promise.withResolvers<void>();
      yield { text };
      await answered.promise;
    }
  }
  const heard: string[] = [];
  for await (const { text } of notes.chat(ask())) {
    heard.push(text);
    answered.resolve();
  }
  assert.deepEqual(heard, ['A', 'B', 'C']);
});

test('streams and unary calls share a connection', async (t) => {
  const { notes } = await setUp(t);
  const [counts, sum, echo] = await Promise.all([
    gather(notes.count({ count: 200 })),
    notes.sum(counting(200)),
    notes.echo({ count: 1 }),
  ]);
  assert.deepEqual([counts.length, sum.count, echo.count], [200, 20_100, 1]);
});

test('a failure comes after the messages before it, in every shape', async (t) => {
  const { notes } = await setUp(t, {
    async *count() {
      yield { count: 1 };
      throw notFound('gone');
    },
    sum: async () => {
      throw notFound('gone');
    },
  });
  const responses = notes.count({})[Symbol.asyncIterator]();
  assert.equal((await responses.next()).value?.count, 1);
  await assert.rejects(responses.next(), fails(Code.NotFound, /^gone$/));
  assert.equal((await responses.next()).done, true);
  const { source, stopped } = endless();
  await assert.rejects(notes.sum(source), fails(Code.NotFound));
  await stopped;
});

test('a call that cannot be made fails where its answer is read', async (t) => {
  const { notes, client } = await setUp(t);
  const signal = AbortSignal.abort();
  await assert.rejects(gather(notes.count({}, { signal })), fails(Code.Cancelled));
  await assert.rejects(notes.sum(counting(1), { signal }), fails(Code.Cancelled));
  client.close();
  await assert.rejects(gather(notes.chat(counting(1))), fails(Code.Unavailable));
});

test('a signal ends a stream at once and is left without listeners', async (t) => {
  const { notes } = await setUp(t);
  const controller = new AbortController();
  const { source, stopped } = endless();
  await assert.rejects(async () => {
    for await (const _ of notes.chat(source, { signal: controller.signal })) controller.abort();
  }, fails(Code.Cancelled));
  await stopped;
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
  assert.equal((await notes.echo({ count: 1 })).count, 1);
});

test('a deadline ends a stream on both sides', async (t) => {
  const served = Promise.withResolvers<unknown>();
  const { notes } = await setUp(t, {
    async *count(_request, { signal }) {
      yield { count: 1 };
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      served.resolve(signal.reason);
      yield { count: 2 };
    },
  });
  await assert.rejects(gather(notes.count({}, { timeout: 30 })), fails(Code.DeadlineExceeded));
  assert.ok(isCode(await served.promise, Code.DeadlineExceeded));
});

test('a reader that leaves ends its call here', async (t) => {
  const { notes } = await setUp(t);
  const { source, stopped } = endless();
  for await (const _ of notes.chat(source)) break;
  await stopped;
  assert.equal((await notes.echo({ count: 1 })).count, 1);
});

test('a source that fails fails its call', async (t) => {
  const { notes } = await setUp(t);
  async function* source() {
    yield { count: 1 };
    throw new Error('disk on fire');
  }
  await assert.rejects(notes.sum(source()), fails(Code.Unknown, /disk on fire/));
});

test('a message too large to send fails its stream only', async (t) => {
  const { notes } = await setUp(t);
  async function* source() {
    yield { body: new Uint8Array(5 << 20) };
  }
  await assert.rejects(notes.sum(source()), fails(Code.ResourceExhausted));
  assert.equal((await notes.echo({ count: 1 })).count, 1);
});

test('a source that cannot even stop does no harm', async (t) => {
  const { notes } = await setUp(t);
  const source = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise<never>(() => {}),
      return: () => {
        throw new Error('no');
      },
    }),
  };
  await assert.rejects(notes.sum(source, { timeout: 10 }), fails(Code.DeadlineExceeded));
  assert.equal((await notes.echo({ count: 1 })).count, 1);
});

test('a lost connection fails streams with Unavailable and stops their sources', async (t) => {
  const { notes, client, server } = await setUp(t);
  const { source, stopped } = endless();
  const responses = notes.chat(source)[Symbol.asyncIterator]();
  await responses.next();
  client.close();
  await assert.rejects(async () => {
    while ((await responses.next()).done !== true);
  }, fails(Code.Unavailable));
  await stopped;
  await server.close();
});

test('a sender is held back by a reader that is slow', async (t) => {
  const gate = Promise.withResolvers<void>();
  const { notes } = await setUp(t, {
    async sum(requests) {
      await gate.promise;
      let count = 0;
      for await (const _ of requests) count += 1;
      return { count };
    },
  });
  const total = 2000;
  let sent = 0;
  async function* source() {
    for (; sent < total; sent += 1) yield { body: new Uint8Array(32 << 10) };
  }
  const call = notes.sum(source());
  let before = -1;
  while (sent !== before) {
    before = sent;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.ok(sent < total / 4, `${sent} of ${total} messages left before the first was read`);
  gate.resolve();
  assert.equal((await call).count, total);
});

test('an implementation that returns early ends the stream of its caller', async (t) => {
  const { notes } = await setUp(t, {
    async *chat(requests) {
      for await (const { text } of requests) {
        yield { text };
        return;
      }
    },
  });
  const { source, stopped } = endless();
  assert.equal((await gather(notes.chat(source))).length, 1);
  await stopped;
  assert.equal((await notes.echo({ count: 1 })).count, 1);
});

test('requests open and close their streams as the protocol says', async (t) => {
  const { notes, peer } = await setUpRawServer(t);
  void gather(notes.count({ count: 1 })).catch(() => {});
  const counted = await peer.receive();
  assert.deepEqual([counted.stream, counted.type, counted.flags], [1, FrameType.Request, Flag.RemoteClosed]);
  notes.sum(counting(1)).catch(() => {});
  const opened = await peer.receive();
  assert.deepEqual([opened.stream, opened.type, opened.flags], [3, FrameType.Request, Flag.RemoteOpen]);
  assert.equal(decodeRequest(opened.payload).payload, undefined);
  const message = await peer.receive();
  assert.deepEqual([message.type, message.flags, [...message.payload]], [FrameType.Data, 0, [0x10, 1]]);
  const last = await peer.receive();
  assert.deepEqual(
    [last.type, last.flags, last.payload.length],
    [FrameType.Data, Flag.RemoteClosed | Flag.NoData, 0],
  );
});

test('a server may end its stream in every way that peers know', async (t) => {
  const { notes, peer } = await setUpRawServer(t);
  const note = Uint8Array.of(0x10, 5);
  const ends: [string, () => void, number][] = [
    ['an empty last frame', () => peer.send(1, FrameType.Data, Flag.RemoteClosed | Flag.NoData), 0],
    ['a last frame with a message', () => peer.send(3, FrameType.Data, Flag.RemoteClosed, note), 1],
    ['a last frame with an empty message', () => peer.send(5, FrameType.Data, Flag.RemoteClosed), 1],
    ['an empty response', () => peer.send(7, FrameType.Response, 0), 0],
    [
      'a response with a message',
      () => peer.send(9, FrameType.Response, 0, Uint8Array.of(0x12, 2, ...note)),
      1,
    ],
  ];
  for (const [name, end, messages] of ends) {
    const responses = gather(notes.count({}));
    await peer.receive();
    end();
    assert.equal((await responses).length, messages, name);
  }
  const single = notes.sum(counting(0));
  await peer.receive();
  peer.send(11, FrameType.Data, 0, note);
  await assert.rejects(single, fails(Code.Internal, /does not stream/));
});

test('data that cannot be decoded fails the stream', async (t) => {
  const { notes, peer } = await setUpRawServer(t);
  const responses = gather(notes.count({}));
  await peer.receive();
  peer.send(1, FrameType.Data, 0, Uint8Array.of(0x0a, 9));
  await assert.rejects(responses, fails(Code.Internal, /cannot be decoded/));
});

const prefix = (method: string) =>
  Buffer.concat([
    Uint8Array.of(0x0a, 13),
    Buffer.from(Notes.fullName),
    Uint8Array.of(0x12, method.length),
    Buffer.from(method),
  ]);

async function setUpRawClient(t: TestContext, overrides: Partial<NotesImplementation> = {}) {
  const { path } = await setUp(t, overrides);
  const peer = await RawPeer.connect(path);
  t.after(() => peer.socket.destroy());
  return peer;
}

test('a request with a message begins a stream with it, as Go takes it', async (t) => {
  const peer = await setUpRawClient(t);
  peer.send(
    1,
    FrameType.Request,
    Flag.RemoteOpen,
    Buffer.concat([prefix('Sum'), Uint8Array.of(0x1a, 2, 0x10, 5)]),
  );
  peer.send(1, FrameType.Data, Flag.RemoteClosed, Uint8Array.of(0x10, 6));
  const answer = await peer.receive();
  assert.deepEqual([...decodeResponse(answer.payload).payload!], [0x10, 11]);
});

test('a request without flags is all that a client streams', async (t) => {
  const peer = await setUpRawClient(t);
  peer.send(1, FrameType.Request, 0, Buffer.concat([prefix('Sum'), Uint8Array.of(0x1a, 2, 0x10, 5)]));
  assert.deepEqual([...decodeResponse((await peer.receive()).payload).payload!], [0x10, 5]);
});

test('a stream is ended with an empty last frame, as Go ends it', async (t) => {
  const peer = await setUpRawClient(t);
  peer.send(
    1,
    FrameType.Request,
    Flag.RemoteClosed,
    Buffer.concat([prefix('Count'), Uint8Array.of(0x1a, 2, 0x10, 1)]),
  );
  const message = await peer.receive();
  assert.deepEqual([message.type, message.flags, [...message.payload]], [FrameType.Data, 0, [0x10, 1]]);
  const last = await peer.receive();
  assert.deepEqual(
    [last.type, last.flags, last.payload.length],
    [FrameType.Data, Flag.RemoteClosed | Flag.NoData, 0],
  );
});

test('data where none may come is refused on its stream', async (t) => {
  const aborted = Promise.withResolvers<void>();
  const peer = await setUpRawClient(t, {
    wait: (_request, { signal }) => {
      signal.addEventListener('abort', () => aborted.resolve());
      return new Promise(() => {});
    },
  });
  const codeOf = async () => decodeResponse((await peer.receive()).payload).code;
  peer.send(1, FrameType.Request, 0, prefix('Wait'));
  peer.send(1, FrameType.Data, 0);
  assert.equal(await codeOf(), Code.InvalidArgument, 'on a unary call');
  await aborted.promise;
  peer.send(9, FrameType.Data, 0);
  assert.equal(await codeOf(), Code.InvalidArgument, 'on a stream that was not opened');
  peer.send(11, FrameType.Request, Flag.RemoteOpen, prefix('Sum'));
  peer.send(11, FrameType.Data, 0, Uint8Array.of(0x0a, 9));
  assert.equal(await codeOf(), Code.InvalidArgument, 'that cannot be decoded');
  peer.send(11, FrameType.Data, 0, Uint8Array.of(0x0a, 9));
  peer.send(13, FrameType.Request, 0, prefix('Echo'));
  assert.equal((await peer.receive()).stream, 13, 'data that crossed with the end of its call is dropped');
});
