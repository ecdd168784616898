/**
 * gRPC as the rest of Moor sees services: functions made from ts-proto's definitions, failing with RpcErrors, cancelled by
 * AbortSignal. The same shape as ttrpc's client, so that code can use either wire.
 */
import {
  type CallOptions as GrpcOptions,
  type Client,
  type ClientDuplexStream,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { abortion, overBeforeStart } from '../ttrpc/deadline.ts';
import { deadlineExceeded, internal, messageOf, RpcError, toRpcError, unavailable } from '../ttrpc/errors.ts';
import type { Line } from './feed.ts';
import type {
  CallOptions,
  MessageType,
  MethodDefinition,
  ServiceClient,
  ServiceDefinition,
} from '../ttrpc/service.ts';

/** Headers that every call of a service client carries, its namespace for one. */
export type Headers = Iterable<readonly [key: string, value: string]>;

/** What all calls on one connection have in common. */
export interface Wire {
  readonly grpc: Client;
  /** For calls that are answered by a stream. */
  readonly line: Line;
  /** How the peer is called in messages about the connection. */
  readonly peer: string;
}

/** The functions that call a service. They fail with RpcErrors only. */
export function serviceOn<S extends ServiceDefinition>(
  wire: Wire,
  definition: S,
  headers: Headers,
): ServiceClient<S> {
  const functions: Record<string, unknown> = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    functions[key] = functionFor(wire, `/${definition.fullName}/${method.name}`, method, headers);
  }
  return functions as ServiceClient<S>;
}

/**
 * Waits until the peer takes the connection.
 *
 * @param timeout milliseconds
 * @throws RpcError Unavailable when it has not by then
 */
export async function ready({ grpc, peer }: Wire, timeout: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const late = (cause?: Error) => reject(unavailable(`cannot connect to ${peer} in time`, cause));
  // grpc-js goes by the time of day alone, which may be set back meanwhile.
  const timer = setTimeout(late, timeout);
  grpc.waitForReady(Date.now() + timeout, (error) => {
    if (error === undefined) resolve();
    else late(error);
  });
  try {
    await promise;
  } finally {
    clearTimeout(timer);
  }
}

function functionFor(wire: Wire, path: string, method: MethodDefinition, headers: Headers): unknown {
  const { requestType, responseType, requestStream, responseStream } = method;
  const encode = (message: object) => bufferOf(requestType.encode(requestType.fromPartial(message)).finish());
  const decode = (bytes: Buffer): object => responseType.decode(bytes);
  if (!requestStream && !responseStream) {
    return (request: object, options?: CallOptions) =>
      unary(wire, path, encode, decode, request, headers, options);
  }
  if (!requestStream) {
    return (request: object, options?: CallOptions) => {
      const over = overBeforeStart(options);
      if (over !== undefined) throw over;
      return decoded(wire.line.open(path, encode(request), headers, options), decode);
    };
  }
  // On the wire a stream in one direction is a stream in both that carries one message the other way.
  const open = (request: object, options?: CallOptions) => {
    const over = overBeforeStart(options);
    if (over !== undefined) throw over;
    const metadata = metadataOf(headers, options);
    const call = whileOpen(wire, () =>
      wire.grpc.makeBidiStreamRequest(path, encode, decode, metadata, grpcOptions(options)),
    );
    return new Responses(wire, call, request as AsyncIterable<object>, options);
  };
  if (responseStream) return open;
  return async (request: object, options?: CallOptions) => single(open(request, options), path);
}

function unary(
  wire: Wire,
  path: string,
  encode: (message: object) => Buffer,
  decode: (bytes: Buffer) => object,
  request: object,
  headers: Headers,
  options: CallOptions | undefined,
): Promise<object> {
  return new Promise((resolve, reject) => {
    const over = overBeforeStart(options);
    if (over !== undefined) return reject(over);
    const signal = options?.signal;
    const onAbort = () => call.cancel();
    const onEnd = (error: ServiceError | null, response?: object) => {
      signal?.removeEventListener('abort', onAbort);
      if (error !== null) reject(failureOf(wire, error, options));
      else if (response === undefined) reject(internal(`${path} ended without an answer`));
      else resolve(response);
    };
    const metadata = metadataOf(headers, options);
    const call = whileOpen(wire, () =>
      wire.grpc.makeUnaryRequest(path, encode, decode, request, metadata, grpcOptions(options), onEnd),
    );
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** grpc-js throws a plain Error at calls on a connection that has been closed. */
function whileOpen<T>(wire: Wire, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw unavailable(`connection to ${wire.peer}: ${messageOf(error)}`, error);
  }
}

/** The answers of a streaming call. Leaving the loop early cancels the call. Can be iterated once. */
class Responses implements AsyncIterable<object> {
  readonly #wire: Wire;
  readonly #call: ClientDuplexStream<object, object>;
  readonly #options: CallOptions | undefined;
  readonly #onAbort: () => void;
  #sendFailure: RpcError | undefined;

  constructor(
    wire: Wire,
    call: ClientDuplexStream<object, object>,
    requests: AsyncIterable<object>,
    options: CallOptions | undefined,
  ) {
    const signal = options?.signal;
    this.#wire = wire;
    this.#call = call;
    this.#options = options;
    this.#onAbort = () => call.cancel();
    // A cancelled call reports its end once more after the loop has been left.
    call.on('error', () => {});
    call.on('close', () => signal?.removeEventListener('abort', this.#onAbort));
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    void this.#send(requests);
  }

  async #send(requests: AsyncIterable<object>): Promise<void> {
    const call = this.#call;
    try {
      for await (const request of requests) {
        if (call.destroyed || call.writableEnded) return;
        if (!call.write(request)) await drained(call);
      }
      call.end();
    } catch (error) {
      this.#sendFailure = toRpcError(error);
      call.cancel();
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<object> {
    try {
      for await (const message of this.#call) yield message as object;
    } catch (error) {
      if (this.#sendFailure !== undefined) throw this.#sendFailure;
      throw failureOf(this.#wire, error as ServiceError, this.#options);
    } finally {
      this.#call.cancel();
      this.#options?.signal?.removeEventListener('abort', this.#onAbort);
    }
  }
}

/** Resolves when the stream takes more or will never again. */
function drained(call: ClientDuplexStream<object, object>): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      call.off('drain', done).off('close', done).off('error', done);
      resolve();
    };
    call.on('drain', done).on('close', done).on('error', done);
  });
}

async function single(responses: AsyncIterable<object>, path: string): Promise<object> {
  for await (const response of responses) return response;
  throw internal(`${path} ended without an answer`);
}

async function* decoded(
  messages: AsyncIterable<Buffer>,
  decode: (bytes: Buffer) => object,
): AsyncGenerator<object> {
  for await (const message of messages) yield decode(message);
}

function metadataOf(headers: Headers, options: CallOptions | undefined): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of headers) metadata.set(key, value);
  for (const [key, value] of options?.metadata ?? []) metadata.set(key, value);
  return metadata;
}

function grpcOptions(options: CallOptions | undefined): GrpcOptions {
  const timeout = options?.timeout;
  return timeout === undefined || timeout === Infinity ? {} : { deadline: Date.now() + timeout };
}

/** grpc-js insists on a Buffer. This one shares the encoder's memory. */
function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** What grpc-js says when nobody listens: it wraps the cause in words of its own. */
const NO_CONNECTION =
  /^No connection established\. Last error: (?:Error: )?(.*?)(?: \(\d{4}-\d\d-\d\dT[^)]*\))?(?:\. Resolution note: .*)?$/s;

function failureOf(wire: Wire, error: ServiceError, options: CallOptions | undefined): RpcError {
  if (options?.signal?.aborted === true) return abortion(options.signal);
  // grpc-js writes a report of its internals.
  if (error.code === status.DEADLINE_EXCEEDED && options?.timeout !== undefined) {
    return deadlineExceeded(`not answered within ${options.timeout} ms`, error);
  }
  if (error.code === undefined) return internal(`connection to ${wire.peer}: ${error.message}`, error);
  const reason = NO_CONNECTION.exec(error.details)?.[1];
  const message = reason === undefined ? error.details : `cannot connect to ${wire.peer}: ${reason}`;
  return new RpcError(error.code, message, { cause: error });
}

export type { CallOptions, MessageType, ServiceClient, ServiceDefinition };
