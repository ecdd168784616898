/** A service of every kind, served on a socket of its own, and a grpc-js client for it. */
import * as grpc from '@grpc/grpc-js';
import { mkdtempSync, rmSync } from 'node:fs';
import { type ClientHttp2Stream, connect as http2Connect } from 'node:http2';
import { type Socket, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { VersionResponse } from '../../proto/gen/containerd/services/version.ts';
import type { CallContext, ServiceImplementation } from '../../ttrpc/service.ts';
import { openSocket } from '../socket.ts';
import { GrpcServer, service } from './server.ts';

/** Messages are of any type with a string and another; these are at hand. */
const types = { requestType: VersionResponse, responseType: VersionResponse } as const;

export const EchoDefinition = {
  name: 'Echo',
  fullName: 'test.Echo',
  methods: {
    once: { name: 'Once', ...types, requestStream: false, responseStream: false },
    wait: { name: 'Wait', ...types, requestStream: false, responseStream: false },
    repeat: { name: 'Repeat', ...types, requestStream: false, responseStream: true },
    join: { name: 'Join', ...types, requestStream: true, responseStream: false },
    chat: { name: 'Chat', ...types, requestStream: true, responseStream: true },
  },
} as const;

type Echo = ServiceImplementation<typeof EchoDefinition>;

const absent = (): never => {
  throw new Error('not part of this test');
};

export interface Served {
  readonly server: GrpcServer;
  readonly client: EchoClient;
  readonly address: string;
  /** Lines of the server's log at warn and above. */
  readonly log: { level: number; method?: string; err?: { message: string } }[];
}

const same = (bytes: Buffer): Buffer => bytes;
const text = (bytes: Buffer): string => VersionResponse.decode(bytes).version;
const bytes = (version: string): Buffer =>
  Buffer.from(VersionResponse.encode({ version, revision: '' }).finish());

/** Calls the service by hand, in strings or in raw bytes. */
export class EchoClient {
  readonly #client: grpc.Client;

  constructor(address: string) {
    this.#client = new grpc.Client(`unix:${address}`, grpc.credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
    });
  }

  unary(
    method: 'Once' | 'Wait' | 'Missing',
    request: string | Buffer,
    options: grpc.CallOptions = {},
    metadata = new grpc.Metadata(),
  ): { call: grpc.ClientUnaryCall; response: Promise<string> } {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const call = this.#client.makeUnaryRequest(
      `/test.Echo/${method}`,
      same,
      text,
      typeof request === 'string' ? bytes(request) : request,
      metadata,
      options,
      (error, value) => (error === null ? resolve(value!) : reject(error)),
    );
    return { call, response: promise };
  }

  stream(request: string, options: grpc.CallOptions = {}): grpc.ClientReadableStream<string> {
    return this.#client.makeServerStreamRequest(
      '/test.Echo/Repeat',
      bytes,
      text,
      request,
      new grpc.Metadata(),
      options,
    );
  }

  join(): { call: grpc.ClientWritableStream<string>; response: Promise<string> } {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const call = this.#client.makeClientStreamRequest('/test.Echo/Join', bytes, text, (error, value) =>
      error === null ? resolve(value!) : reject(error),
    );
    return { call, response: promise };
  }

  chat(): grpc.ClientDuplexStream<string, string> {
    return this.#client.makeBidiStreamRequest('/test.Echo/Chat', bytes, text);
  }

  close(): void {
    this.#client.close();
  }
}

/** Serves an implementation until the test ends. */
export async function serve(t: TestContext, implementation: Partial<Echo>, limit = 1 << 20): Promise<Served> {
  const directory = mkdtempSync(join(tmpdir(), 'moor-grpc-'));
  const log: Served['log'] = [];
  const logger = pino({ level: 'warn' }, { write: (line) => void log.push(JSON.parse(line)) });
  const server = new GrpcServer({ maxReceiveBytes: limit, maxSendBytes: limit, log: logger });
  const all: Echo = {
    once: absent,
    wait: absent,
    repeat: absent,
    join: absent,
    chat: absent,
    ...implementation,
  };
  server.add(service(EchoDefinition, all, ['wait']));
  const address = join(directory, 'socket');
  await server.listen(await openSocket(address, { uid: 0, gid: 0 }));
  const client = new EchoClient(address);
  t.after(async () => {
    client.close();
    await server.close(0);
    rmSync(directory, { recursive: true });
  });
  return { server, client, address, log };
}

/** A call without grpc-js, whose connection can be cut. */
export function rawCall(
  address: string,
  method: string,
  headers: { readonly [name: string]: string } = {},
): { socket: Socket; stream: ClientHttp2Stream } {
  const socket = connect(address);
  const session = http2Connect('http://localhost', { createConnection: () => socket });
  session.on('error', () => undefined);
  const stream = session.request({
    ':method': 'POST',
    ':path': `/test.Echo/${method}`,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  });
  stream.on('error', () => undefined);
  return { socket, stream };
}

/** Resolves with the reason when the call's signal is aborted. */
export function aborted({ signal }: CallContext): Promise<unknown> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(signal.reason);
    signal.addEventListener('abort', () => resolve(signal.reason));
  });
}
