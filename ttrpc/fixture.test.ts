/** What the tests here share: a service of every shape, written as ts-proto would generate it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import { TtrpcClient } from './client.ts';
import { type Code, isCode, notFound } from './errors.ts';
import { FrameDecoder, HEADER_BYTES, sealFrame } from './frame.ts';
import { TtrpcServer, type TtrpcServerOptions } from './server.ts';
import type { MessageType, ServiceImplementation } from './service.ts';

export interface Note {
  text: string;
  count: number;
  body: Uint8Array;
}

export const Note: MessageType<Note> = {
  encode(message, writer = new BinaryWriter()) {
    if (message.text !== '') writer.uint32(10).string(message.text);
    if (message.count !== 0) writer.uint32(16).int32(message.count);
    if (message.body.length !== 0) writer.uint32(26).bytes(message.body);
    return writer;
  },
  decode(input) {
    const reader = input instanceof BinaryReader ? input : new BinaryReader(input);
    const note = Note.fromPartial({});
    while (reader.pos < reader.len) {
      const [field, wireType] = reader.tag();
      if (field === 1) note.text = reader.string();
      else if (field === 2) note.count = reader.int32();
      else if (field === 3) note.body = reader.bytes();
      else reader.skip(wireType, field);
    }
    return note;
  },
  fromPartial: (partial) => ({
    text: partial.text ?? '',
    count: partial.count ?? 0,
    body: partial.body ?? new Uint8Array(),
  }),
};

const shape = <Q extends boolean, R extends boolean>(name: string, requestStream: Q, responseStream: R) =>
  ({ name, requestType: Note, requestStream, responseType: Note, responseStream, options: {} }) as const;

export const Notes = {
  name: 'Notes',
  fullName: 'test.v1.Notes',
  methods: {
    echo: shape('Echo', false, false),
    wait: shape('Wait', false, false),
    fail: shape('Fail', false, false),
    count: shape('Count', false, true),
    sum: shape('Sum', true, false),
    chat: shape('Chat', true, true),
  },
} as const;

export type NotesImplementation = ServiceImplementation<typeof Notes>;

export const serveNotes: NotesImplementation = {
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
  async *chat(requests) {
    for await (const { text } of requests) yield { text: text.toUpperCase() };
  },
};

/** A server and a client of ours, gone when the test is over. */
export async function setUp(
  t: TestContext,
  overrides: Partial<NotesImplementation> = {},
  options: TtrpcServerOptions = {},
) {
  const path = `${await socketDirectory(t)}/s`;
  const server = new TtrpcServer(options).add(Notes, { ...serveNotes, ...overrides });
  await server.listen(path);
  t.after(() => server.close({ graceMs: 0 }));
  const client = await TtrpcClient.connect(path);
  t.after(() => client.close());
  return { path, server, client, notes: client.service(Notes) };
}

/** For `assert.throws` and `assert.rejects`. */
export const fails = (code: Code, message?: RegExp) => (error: unknown) => {
  assert.ok(isCode(error, code), String(error));
  if (message !== undefined) assert.match(error.message, message);
  return true;
};

/** A directory for sockets, gone when the test is over. */
export async function socketDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'ttrpc-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

export interface RawFrame {
  readonly stream: number;
  readonly type: number;
  readonly flags: number;
  readonly payload: Uint8Array;
}

/** A peer that sends what it likes, byte by byte, and sees frames. */
export class RawPeer {
  readonly socket: Socket;
  readonly closed: Promise<unknown>;
  readonly #frames: RawFrame[] = [];
  #waiting: (() => void) | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    const decoder = new FrameDecoder((stream, type, flags, payload) => {
      this.#frames.push({ stream, type, flags, payload });
      this.#waiting?.();
    });
    socket.on('data', (chunk) => decoder.push(chunk as Buffer));
    socket.on('error', () => {});
    this.closed = once(socket, 'close');
  }

  static async connect(path: string): Promise<RawPeer> {
    const socket = connect({ path });
    await once(socket, 'connect');
    return new RawPeer(socket);
  }

  send(stream: number, type: number, flags: number, payload: Uint8Array = new Uint8Array()): void {
    const frame = new Uint8Array(HEADER_BYTES + payload.length);
    frame.set(payload, HEADER_BYTES);
    this.socket.write(sealFrame(frame, stream, type, flags));
  }

  async receive(): Promise<RawFrame> {
    while (this.#frames.length === 0) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    return this.#frames.shift()!;
  }
}

/** A server that accepts one connection and leaves its bytes to the test. */
export async function rawServer(path: string): Promise<{ server: Server; peer: Promise<RawPeer> }> {
  const server = createServer();
  const peer = new Promise<RawPeer>((resolve) => {
    server.once('connection', (socket) => resolve(new RawPeer(socket)));
  });
  server.listen({ path });
  await once(server, 'listening');
  return { server, peer };
}

/** All that comes, once it has come. */
export async function gather<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of source) all.push(item);
  return all;
}
