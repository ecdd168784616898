/**
 * Streams of a command in a container of a pod, or of its first process, and of its pod's ports, by the URLs that the CRI gives for
 * them: WebSockets whose messages begin with the number of their channel, in the fifth version of that protocol.
 */
import type { Duplex, Readable, Writable } from 'node:stream';
import { WebSocket } from 'ws';
import { messageOf, unavailable, unknown } from '../ttrpc/errors.ts';

const PROTOCOL = 'v5.channel.k8s.io';

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const ERROR = 3;
const RESIZE = 4;
/** A message that ends a channel: this and its number. */
const CLOSE = 255;
/** Servers limit what a message may hold. */
const MAX_CHUNK = 32 << 10;
/** Of the two numbers of a port that a server says before anything else. */
const PORT_BYTES = 2;

export interface CommandStreams {
  /** Destroyed at the end. */
  readonly stdin?: Readable;
  /** Not ended. */
  readonly stdout?: Writable;
  readonly stderr?: Writable;
}

/** A command as somebody is connected to it. */
export class RemoteCommand {
  /** Its exit code; 0 of a process that was only attached to. Rejects with an `RpcError` when the connection breaks off. */
  readonly exited: Promise<number>;
  readonly #socket: WebSocket;

  private constructor(socket: WebSocket, streams: CommandStreams) {
    this.#socket = socket;
    this.exited = attend(socket, streams);
    this.exited.catch(() => {});
  }

  /** @throws RpcError Unavailable when nobody can be connected to by the URL */
  static async connect(url: string, streams: CommandStreams, signal: AbortSignal): Promise<RemoteCommand> {
    return new RemoteCommand(await open(url, signal), streams);
  }

  /** Tells the terminal's size. */
  async resize({ columns, rows }: { readonly columns: number; readonly rows: number }): Promise<void> {
    await send(this.#socket, RESIZE, Buffer.from(JSON.stringify({ Width: columns, Height: rows })));
  }

  /** Leaves the command. One that was begun by this connection is ended by the daemon. */
  leave(): void {
    this.#socket.terminate();
  }
}

/**
 * Connects a stream with a port of a pod. Resolves when either side has ended.
 *
 * @throws RpcError Unavailable for a port that nobody listens on, and as connections break off
 */
export async function forwardPort(url: string, connection: Duplex, signal: AbortSignal): Promise<void> {
  const socket = await open(url, signal);
  const [data, error] = [0, 1];
  const closed = closeOf(socket);
  let failure = '';
  const skipped = new Map([
    [data, PORT_BYTES],
    [error, PORT_BYTES],
  ]);
  socket.on('message', (message: Buffer) => {
    const channel = message[0] ?? CLOSE;
    const skip = skipped.get(channel) ?? 0;
    const bytes = message.subarray(1 + skip);
    skipped.set(channel, skip - Math.min(skip, message.length - 1));
    if (channel === error) failure += bytes.toString();
    else if (channel === data) deliver(socket, connection, bytes);
  });
  connection.once('close', () => socket.close());
  void copyIn(socket, data, connection);
  await closed;
  await new Promise<void>((resolve) => {
    if (connection.destroyed) resolve();
    else connection.end(resolve);
  });
  if (failure !== '') throw unavailable(failure);
}

async function open(url: string, signal: AbortSignal): Promise<WebSocket> {
  signal.throwIfAborted();
  // TLS of a streaming server is between it and kubelet, whose authority no client of this daemon's socket has.
  const socket = new WebSocket(url.replace(/^http/, 'ws'), PROTOCOL, { rejectUnauthorized: false });
  const stop = (): void => socket.terminate();
  signal.addEventListener('abort', stop, { once: true });
  socket.once('close', () => signal.removeEventListener('abort', stop));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // Nothing may be missed of what comes with the answer.
  socket.once('open', () => {
    socket.pause();
    resolve();
  });
  socket.once('error', reject);
  try {
    await promise;
    return socket;
  } catch (error) {
    signal.throwIfAborted();
    throw unavailable(`cannot connect to ${new URL(url).host}: ${messageOf(error)}`, error);
  }
}

async function attend(socket: WebSocket, streams: CommandStreams): Promise<number> {
  const closed = closeOf(socket);
  let status = '';
  socket.on('message', (message: Buffer) => {
    const bytes = message.subarray(1);
    if (message[0] === STDOUT) deliver(socket, streams.stdout, bytes);
    else if (message[0] === STDERR) deliver(socket, streams.stderr, bytes);
    else if (message[0] === ERROR) status += bytes.toString();
  });
  const input = streams.stdin && copyIn(socket, STDIN, streams.stdin);
  await closed;
  streams.stdin?.destroy();
  await input;
  return codeOf(status);
}

function closeOf(socket: WebSocket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.on('error', () => {}).once('close', () => resolve());
  socket.resume();
  return promise;
}

/** A reader that is slow holds up what is read. */
function deliver(socket: WebSocket, to: Writable | undefined, bytes: Buffer): void {
  if (to === undefined || bytes.length === 0 || to.destroyed || to.write(bytes)) return;
  socket.pause();
  to.once('drain', () => socket.resume());
}

/** Never rejects: where the input goes has ended then. The input is left as it is, for its other side may go on. */
async function copyIn(socket: WebSocket, channel: number, from: Readable): Promise<void> {
  try {
    for await (const chunk of from.iterator({ destroyOnReturn: false }))
      await sendAll(socket, channel, chunk as Buffer);
    await sent(socket, Buffer.of(CLOSE, channel));
  } catch {
    // The process has ended, or the input was taken away.
  }
}

async function sendAll(socket: WebSocket, channel: number, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; at += MAX_CHUNK)
    await send(socket, channel, bytes.subarray(at, at + MAX_CHUNK));
}

function send(socket: WebSocket, channel: number, bytes: Buffer): Promise<void> {
  return sent(socket, Buffer.concat([Buffer.of(channel), bytes]));
}

function sent(socket: WebSocket, message: Buffer): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.send(message, (error) => (error ? reject(error) : resolve()));
  return promise;
}

/** @param text Kubernetes' metav1.Status; empty when the connection was cut before there was one */
function codeOf(text: string): number {
  if (text === '') throw unavailable('the connection to the process has been cut: its end is not known');
  const { status, reason, message, details } = JSON.parse(text) as {
    readonly status?: string;
    readonly reason?: string;
    readonly message?: string;
    readonly details?: {
      readonly causes?: readonly { readonly reason?: string; readonly message?: string }[];
    };
  };
  if (status === 'Success') return 0;
  const code = details?.causes?.find((cause) => cause.reason === 'ExitCode')?.message;
  if (reason === 'NonZeroExitCode' && code !== undefined) return Number(code);
  throw unknown(message ?? `the process has failed: ${text}`);
}
