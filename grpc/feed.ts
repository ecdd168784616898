/**
 * Calls that one message begins and any number answer, on an HTTP/2 connection of their own.
 *
 * @grpc/grpc-js hands on one message at a time, and drops those that have come meanwhile when it loses its connection. A subscriber would
 * never hear of what its daemon told it last, as the daemon after that takes for told what the kernel has taken. Here all that has come
 * is handed on before the loss is.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { createConnection } from 'node:net';
import { watch } from '../ttrpc/deadline.ts';
import { Code, RpcError, cancelled, internal, toRpcError, unavailable, unknown } from '../ttrpc/errors.ts';
import type { CallOptions } from '../ttrpc/service.ts';
import { FrameReader, frameHeader } from './frame.ts';

/** Bytes that wait for a slow reader before its peer is made to wait as well. */
const MAX_WAITING_BYTES = 256 << 10;

const NANOSECONDS = 1_000_000;
/** The largest timeout that the wire can say has eight digits. */
const MAX_TIMEOUT = 99_999_999;

/** The connection. It is made with the first call, and again with the first after it was lost. */
export class Line {
  readonly #path: string;
  readonly #limit: number;
  #way: Way | undefined;
  #closed = false;

  /**
   * @param path of the peer's unix socket
   * @param limit bytes of one message at most
   */
  constructor(path: string, limit: number) {
    this.#path = path;
    this.#limit = limit;
  }

  /**
   * Begins a call at once.
   *
   * @param path `/package.Service/Method`
   */
  open(
    path: string,
    request: Uint8Array,
    headers: Iterable<readonly [string, string]>,
    options: CallOptions = {},
  ): Feed {
    if (this.#closed) throw unavailable(`connection to ${this.#path} has been closed`);
    const { timeout = Infinity } = options;
    const way = this.#connected();
    const { session } = way;
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      te: 'trailers',
      'content-type': 'application/grpc',
      ...(timeout !== Infinity && { 'grpc-timeout': wireTimeout(timeout) }),
      ...Object.fromEntries([...headers, ...(options.metadata ?? [])]),
    });
    // As long as a call is open, the process stays for it.
    way.calls += 1;
    session.ref();
    stream.once('close', () => {
      way.calls -= 1;
      if (way.calls === 0 && !session.destroyed) session.unref();
    });
    return new Feed(stream, request, { peer: this.#path, way, limit: this.#limit, options });
  }

  /** Calls that are open fail. */
  close(): void {
    this.#closed = true;
    this.#way?.session.destroy();
  }

  #connected(): Way {
    const before = this.#way?.session;
    if (before !== undefined && !before.closed && !before.destroyed) return this.#way!;
    const socket = createConnection(this.#path);
    // Its own events come before those that the session makes of them.
    socket.once('connect', () => {
      way.isThere = true;
    });
    socket.once('error', (error) => {
      way.failure = error;
    });
    const session = connect('http://localhost', {
      createConnection: () => socket,
      settings: { enablePush: false },
    });
    // Its calls are told.
    session.on('error', () => undefined);
    const way: Way = { session, isThere: false, failure: undefined, calls: 0 };
    this.#way = way;
    return way;
  }
}

/** One connection to the peer. */
interface Way {
  readonly session: ClientHttp2Session;
  /** Somebody has listened. */
  isThere: boolean;
  failure: Error | undefined;
  /** That are open. */
  calls: number;
}

interface FeedOptions {
  readonly peer: string;
  readonly way: Way;
  readonly limit: number;
  readonly options: CallOptions;
}

/** The answers of a call, in order; all that have come, then its failure if it failed. Can be iterated once. */
export class Feed implements AsyncIterable<Buffer> {
  readonly #stream: ClientHttp2Stream;
  readonly #peer: string;
  readonly #way: Way;
  readonly #reader: FrameReader;
  readonly #unwatch: () => void;
  #messages: Buffer[] = [];
  #bytes = 0;
  #isOver = false;
  #failure: RpcError | undefined;
  /** The status has come. */
  #isAnswered = false;
  #wake: (() => void) | undefined;

  constructor(stream: ClientHttp2Stream, request: Uint8Array, { peer, way, limit, options }: FeedOptions) {
    this.#stream = stream;
    this.#peer = peer;
    this.#way = way;
    this.#reader = new FrameReader(limit);
    this.#unwatch = watch(options, (error) => this.#drop(error));
    stream.on('data', (chunk: Buffer) => this.#take(chunk));
    stream.once('response', (headers) => {
      const { ':status': status = 0, 'grpc-status': code } = headers;
      if (code !== undefined) this.#answered(headers);
      else if (status !== constants.HTTP_STATUS_OK)
        this.#drop(unknown(`${peer} answers with HTTP status ${status}`));
    });
    stream.once('trailers', (headers) => this.#answered(headers));
    // What it means is known when the stream is closed.
    stream.on('error', () => undefined);
    stream.once('close', () => this.#closed());
    stream.end(Buffer.concat([frameHeader(request.length), request]));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    try {
      for (;;) {
        const message = this.#messages.shift();
        if (message !== undefined) {
          this.#bytes -= message.length;
          if (this.#bytes <= MAX_WAITING_BYTES) this.#stream.resume();
          yield message;
        } else if (this.#isOver) {
          if (this.#failure !== undefined) throw this.#failure;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.#drop(cancelled('cancelled by the caller'));
    }
  }

  #take(chunk: Buffer): void {
    if (this.#isOver) return;
    try {
      for (const message of this.#reader.push(chunk)) {
        this.#messages.push(message);
        this.#bytes += message.length;
      }
    } catch (error) {
      this.#drop(toRpcError(error));
    }
    if (this.#bytes > MAX_WAITING_BYTES) this.#stream.pause();
    this.#news();
  }

  #answered(headers: { readonly [key: string]: unknown }): void {
    this.#isAnswered = true;
    const code = Number(headers['grpc-status'] ?? Code.Unknown);
    if (code === Code.Ok) return;
    this.#failure ??= new RpcError(code as Code, textOf(headers['grpc-message']));
  }

  #closed(): void {
    this.#unwatch();
    if (!this.#isAnswered) this.#failure ??= this.#lost();
    this.#isOver = true;
    this.#news();
  }

  /** What it means that the call ends without a status. */
  #lost(): RpcError {
    const { rstCode } = this.#stream;
    const { session, isThere, failure } = this.#way;
    const peer = this.#peer;
    if (!isThere && failure !== undefined)
      return unavailable(`cannot connect to ${peer}: ${failure.message}`, failure);
    if (session.destroyed || rstCode === constants.NGHTTP2_REFUSED_STREAM)
      return unavailable(`the connection to ${peer} was lost`, failure);
    return internal(`${peer} ended the call without a status (HTTP/2 code ${rstCode})`);
  }

  /** Ends the call, whatever may still come. */
  #drop(error: RpcError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#failure = error;
    this.#messages = [];
    this.#unwatch();
    this.#stream.close(constants.NGHTTP2_CANCEL);
    // What is on its way must not fill the window of the connection.
    this.#stream.resume();
    this.#news();
  }

  #news(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

/** gRPC's PROTOCOL-HTTP2, "Timeout": the peer is told a little more rather than less. */
function wireTimeout(milliseconds: number): string {
  if (milliseconds < 1) return `${Math.ceil(milliseconds * NANOSECONDS)}n`;
  const whole = Math.ceil(milliseconds);
  return whole <= MAX_TIMEOUT ? `${whole}m` : `${Math.min(Math.ceil(whole / 1000), MAX_TIMEOUT)}S`;
}

/** Per cent sign and hex digits stand for what a header cannot say. */
function textOf(message: unknown): string {
  const text = typeof message === 'string' ? message : '';
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
