/** The calling side of ttrpc. */
import { connect, type Socket } from 'node:net';
import { StreamCall, UnaryCall, type PendingCall } from './call.ts';
import { Channel } from './channel.ts';
import { abortion, overBeforeStart } from './deadline.ts';
import { type RpcError, resourceExhausted, toRpcError, unavailable } from './errors.ts';
import { Flag, type FrameError } from './frame.ts';
import { Inbox } from './inbox.ts';
import { requestFrame, requestPrefix } from './message.ts';
import { addressOf, nameOf } from './address.ts';
import type { CallOptions, MethodDefinition, ServiceClient, ServiceDefinition } from './service.ts';

const MAX_STREAM = 2 ** 32 - 1;

/** Why a connection cannot be made to somebody who may well listen (socket(2), connect(2)). */
const EXHAUSTION: { readonly [code: string]: string } = {
  EMFILE: 'too many open files',
  ENFILE: 'too many open files',
  ENOBUFS: 'no buffer space',
  ENOMEM: 'out of memory',
  EAGAIN: 'too many connections wait there',
};

/** One connection on which any number of calls are made at once. Closed connections stay closed: connect anew. */
export class TtrpcClient {
  /** Resolves when the connection is gone, whoever closed it. Never rejects. */
  readonly closed: Promise<void>;
  readonly #channel: Channel;
  readonly #calls = new Map<number, PendingCall>();
  readonly #peer: string;
  #nextStream = 1;
  #lost: RpcError | undefined;

  /** Takes a connected socket over. */
  constructor(socket: Socket, peer = 'peer') {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#peer = peer;
    this.#channel = new Channel(socket, {
      frame: (stream, type, flags, payload) => this.#calls.get(stream)?.frame(type, flags, payload),
      violated: (error) => this.#violated(error),
      closed: (error) => {
        this.#lose(unavailable(`connection to ${peer} is lost${error ? `: ${error.message}` : ''}`, error));
        resolve();
      },
    });
  }

  /**
   * Connects to a unix socket. A path that begins with '@' or a zero byte names an abstract one (unix(7)).
   * @throws RpcError Unavailable, naming the path, when nobody listens there; ResourceExhausted when this process, the host or the
   *         listener can take no connection more; Cancelled when `signal` says so.
   */
  static async connect(path: string, options: { signal?: AbortSignal } = {}): Promise<TtrpcClient> {
    const { signal } = options;
    if (signal?.aborted === true) throw abortion(signal);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = connect({ path: addressOf(path) });
    const onAbort = () => reject(abortion(signal!));
    const onError = (error: NodeJS.ErrnoException) => {
      const why = EXHAUSTION[error.code ?? ''];
      const fail = why === undefined ? unavailable : resourceExhausted;
      reject(fail(`connect to ${nameOf(path)}: ${why ?? error.message}`, error));
    };
    socket.once('connect', resolve).on('error', onError);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await promise;
      return new TtrpcClient(socket, nameOf(path));
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      if (!socket.destroyed) socket.off('error', onError);
    }
  }

  /** The functions that call a service on this connection. They fail with RpcErrors only. */
  service<S extends ServiceDefinition>(definition: S): ServiceClient<S> {
    const functions: Record<string, unknown> = {};
    for (const [key, method] of Object.entries(definition.methods)) {
      functions[key] = this.#caller(method, requestPrefix(definition.fullName, method.name));
    }
    return functions as ServiceClient<S>;
  }

  /** Closes the connection. Calls that wait fail with Unavailable. */
  close(): void {
    this.#lose(unavailable(`connection to ${this.#peer} is closed`));
    this.#channel.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #caller(method: MethodDefinition, prefix: Uint8Array): unknown {
    if (!method.requestStream && !method.responseStream) {
      return (request: object, options?: CallOptions) => this.#unary(method, prefix, request, options);
    }
    const start = (request: object, options?: CallOptions) => this.#stream(method, prefix, request, options);
    if (method.responseStream) {
      return (request: object, options?: CallOptions) => {
        try {
          return start(request, options).responses;
        } catch (error) {
          return failed(toRpcError(error));
        }
      };
    }
    return async (request: object, options?: CallOptions) => start(request, options).single();
  }

  #unary(
    method: MethodDefinition,
    prefix: Uint8Array,
    request: object,
    options?: CallOptions,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      try {
        const stream = this.#admit(options);
        const type = method.requestType;
        const frame = requestFrame({
          stream,
          prefix,
          flags: Flag.None,
          payload: { type, message: type.fromPartial(request) },
          timeout: wireTimeout(options),
          metadata: options?.metadata,
        });
        this.#nextStream = stream + 2;
        const forget = () => this.#calls.delete(stream);
        this.#calls.set(stream, new UnaryCall(method.responseType, options, resolve, reject, forget));
        this.#channel.send(frame);
      } catch (error) {
        reject(toRpcError(error));
      }
    });
  }

  #stream(
    method: MethodDefinition,
    prefix: Uint8Array,
    request: object,
    options?: CallOptions,
  ): StreamCall<unknown, unknown> {
    const stream = this.#admit(options);
    const { requestType, responseType, requestStream, responseStream } = method;
    const frame = requestFrame({
      stream,
      prefix,
      flags: requestStream ? Flag.RemoteOpen : Flag.RemoteClosed,
      payload: requestStream ? undefined : { type: requestType, message: requestType.fromPartial(request) },
      timeout: wireTimeout(options),
      metadata: options?.metadata,
    });
    this.#nextStream = stream + 2;
    const forget = () => this.#calls.delete(stream);
    const call = new StreamCall<unknown, unknown>(
      { channel: this.#channel, stream, requestType, responseType, responseStream, options, forget },
      requestStream ? 'open' : 'local-closed',
    );
    this.#calls.set(stream, call);
    this.#channel.send(frame);
    if (requestStream) void call.pump(request as AsyncIterable<object>);
    return call;
  }

  /** The stream for a new call. It is used up only when its request has been encoded, so that none is skipped. */
  #admit(options: CallOptions | undefined): number {
    if (this.#lost !== undefined) throw this.#lost;
    const over = overBeforeStart(options);
    if (over !== undefined) throw over;
    if (this.#nextStream > MAX_STREAM)
      throw unavailable(`connection to ${this.#peer} has used all of its streams`);
    return this.#nextStream;
  }

  #violated(error: FrameError): void {
    if (error.stream !== undefined) this.#calls.get(error.stream)?.lose(error);
  }

  #lose(error: RpcError): void {
    this.#lost ??= error;
    for (const call of this.#calls.values()) call.lose(this.#lost);
  }
}

/** What the peer is told of the deadline, in milliseconds. */
function wireTimeout(options: CallOptions | undefined): number | undefined {
  return options?.timeout === Infinity ? undefined : options?.timeout;
}

/** The responses of a call that could not be made. */
function failed(error: RpcError): Inbox<unknown> {
  const responses = new Inbox<unknown>(
    { hold() {}, release() {} },
    () => {},
    () => {},
  );
  responses.fail(error);
  return responses;
}
