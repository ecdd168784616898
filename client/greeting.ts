/**
 * Asking a daemon who it is, in the least time. Node's HTTP/2 and a gRPC library take longer to load than a Go program needs for all
 * of it, so these two calls, which send nothing and get one short message each, are written out here (RFC 9113; gRPC's
 * PROTOCOL-HTTP2). Whatever is not as expected is left to the ordinary client, which knows how to fail.
 */
import { connect, type Socket } from 'node:net';
import { IntrospectionDefinition } from '../proto/gen/containerd/services/introspection.ts';
import type { ServerResponse } from '../proto/gen/containerd/services/introspection.ts';
import { VersionDefinition, type VersionResponse } from '../proto/gen/containerd/services/version.ts';

export interface Greeting {
  readonly version: VersionResponse;
  readonly server: ServerResponse;
}

/** Frame types and flags (RFC 9113, section 6). */
const DATA = 0;
const HEADERS = 1;
const SETTINGS = 4;
const PING = 6;
const WINDOW_UPDATE = 8;
const END_STREAM = 0x1;
const ACK = 0x1;
const END_HEADERS = 0x4;
const PADDED = 0x8;

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const FRAME_HEADER = 9;
/** Before a message of gRPC: whether it is compressed, and its length. */
const MESSAGE_HEADER = 5;

const VERSION_STREAM = 1;
const SERVER_STREAM = 3;

/** Milliseconds, after which the ordinary client has a try. */
const PATIENCE = 1000;

/**
 * @param path of the daemon's socket
 * @returns undefined when anything is unusual, as when nobody listens
 */
export async function greet(path: string, namespace: string): Promise<Greeting | undefined> {
  const socket = connect(path);
  const timer = setTimeout(() => socket.destroy(), PATIENCE);
  try {
    const answers = await exchange(socket, namespace);
    const version = messageIn(answers.get(VERSION_STREAM));
    const server = messageIn(answers.get(SERVER_STREAM));
    if (version === undefined || server === undefined) return undefined;
    const { methods } = VersionDefinition;
    return {
      version: methods.version.responseType.decode(version),
      server: IntrospectionDefinition.methods.server.responseType.decode(server),
    };
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

/** The data of each stream, once both have ended. @throws Error */
async function exchange(socket: Socket, namespace: string): Promise<Map<number, Buffer>> {
  const { methods } = VersionDefinition;
  const calls = [
    ...call(VERSION_STREAM, `/${VersionDefinition.fullName}/${methods.version.name}`, namespace),
    ...call(
      SERVER_STREAM,
      `/${IntrospectionDefinition.fullName}/${IntrospectionDefinition.methods.server.name}`,
      namespace,
    ),
  ];
  socket.write(Buffer.concat([Buffer.from(PREFACE), frame(SETTINGS, 0, 0), ...calls]));
  const answers = new Map<number, Buffer>();
  const open = new Set([VERSION_STREAM, SERVER_STREAM]);
  let received: Buffer = Buffer.alloc(0);
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk as Buffer]);
    for (;;) {
      if (received.length < FRAME_HEADER) break;
      const end = FRAME_HEADER + received.readUIntBE(0, 3);
      if (received.length < end) break;
      const [type = 0, flags = 0] = received.subarray(3, 5);
      const stream = received.readUInt32BE(5);
      const payload = received.subarray(FRAME_HEADER, end);
      received = received.subarray(end);
      if (type === SETTINGS && (flags & ACK) === 0) socket.write(frame(SETTINGS, ACK, 0));
      else if (type === PING && (flags & ACK) === 0) socket.write(frame(PING, ACK, 0, payload));
      else if (type === DATA && (flags & PADDED) === 0)
        answers.set(stream, Buffer.concat([answers.get(stream) ?? Buffer.alloc(0), payload]));
      else if (![HEADERS, SETTINGS, PING, WINDOW_UPDATE].includes(type))
        throw new Error(`a frame of type ${type}`);
      if ((type === DATA || type === HEADERS) && (flags & END_STREAM) !== 0) open.delete(stream);
      if (open.size === 0) return answers;
    }
  }
  throw new Error('the connection has ended');
}

/** The one message of an answer. A failure has none. */
function messageIn(data: Buffer | undefined): Buffer | undefined {
  if (data === undefined || data.length < MESSAGE_HEADER || data[0] !== 0) return undefined;
  return data.readUInt32BE(1) === data.length - MESSAGE_HEADER ? data.subarray(MESSAGE_HEADER) : undefined;
}

/** A call with an empty message. */
function call(stream: number, path: string, namespace: string): Buffer[] {
  const fields = {
    ':method': 'POST',
    ':scheme': 'http',
    ':path': path,
    ':authority': 'localhost',
    'content-type': 'application/grpc',
    te: 'trailers',
    'containerd-namespace': namespace,
  };
  const block = Buffer.concat(Object.entries(fields).flatMap(([name, value]) => field(name, value)));
  return [
    frame(HEADERS, END_HEADERS, stream, block),
    frame(DATA, END_STREAM, stream, Buffer.alloc(MESSAGE_HEADER)),
  ];
}

/** A header field as it is, in no table (RFC 7541, section 6.2.2). */
function field(name: string, value: string): Buffer[] {
  return [Buffer.of(0), text(name), text(value)];
}

/** @throws RangeError for a text whose length takes more than a byte */
function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  if (bytes.length >= 0x7f) throw new RangeError(`too long: ${value}`);
  return Buffer.concat([Buffer.of(bytes.length), bytes]);
}

function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(FRAME_HEADER);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}
