/** Serves gRPC on a unix socket, on HTTP/2 of our own (grpc/grpc, doc/PROTOCOL-HTTP2.md). */
import { type Server, type Socket, createServer } from 'node:net';
import type { Logger } from 'pino';
import { Code, unavailable } from '../../ttrpc/errors.ts';
import type { ServiceDefinition, ServiceImplementation } from '../../ttrpc/service.ts';
import { Connection } from '../http2/connection.ts';
import { headerBlock } from '../http2/hpack/encoder.ts';
import type { RequestHeaders } from '../http2/request-headers.ts';
import type { Http2Stream } from '../http2/stream.ts';
import { Answer } from './answer.ts';
import { OpenCalls } from './call.ts';
import { type ServedMethod, type Serving, serve } from './method.ts';
import type { CallObserver } from './observer.ts';

export interface GrpcServerOptions {
  /** Bytes of one message at most. */
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
  readonly log: Logger;
  /** Is told of every call. */
  readonly observer?: CallObserver | undefined;
}

/** A service's definition with its implementation, ready for either wire. */
export interface Service<S extends ServiceDefinition = ServiceDefinition> {
  readonly definition: S;
  readonly implementation: ServiceImplementation<S>;
  /** Unary methods that may wait without end; a draining server ends them at once. */
  readonly waits?: readonly (keyof S['methods'])[];
}

/** Ties the types of a service's parts together. */
export function service<S extends ServiceDefinition>(
  definition: S,
  implementation: ServiceImplementation<S>,
  waits: readonly (keyof S['methods'])[] = [],
): Service {
  return { definition, implementation, waits } as Service;
}

/** Enough for every container of a host to be waited for over one connection, as kubelet and dockerd do. */
const MAX_CONCURRENT_STREAMS = 100_000;

/** Bytes that a caller may send before we have read them: of one call, and of a connection. */
const CALL_WINDOW = 1 << 20;
const CONNECTION_WINDOW = 4 << 20;

const NOT_GRPC = headerBlock({ ':status': '415' });

export class GrpcServer {
  readonly #methods = new Map<string, ServedMethod>();
  readonly #serving: Serving;
  readonly #calls = new OpenCalls();
  readonly #connections = new Set<Connection>();
  readonly #listeners = new Set<Server>();
  #closed: Promise<void> | undefined;

  constructor(options: GrpcServerOptions) {
    this.#serving = { ...options, calls: this.#calls };
  }

  /** Adds a service; before `listen`. */
  add({ definition, implementation, waits = [] }: Service): void {
    for (const [key, method] of Object.entries(definition.methods)) {
      const path = `/${definition.fullName}/${method.name}`;
      const served: ServedMethod = {
        definition: method,
        path,
        waits: waits.includes(key),
        implementation: (implementation[key] as ServedMethod['implementation']).bind(implementation),
      };
      if (this.#methods.has(path)) throw new Error(`${path} is served already`);
      this.#methods.set(path, served);
    }
  }

  /** Accepts connections on a listening socket, which becomes the server's, as others may be. Resolves when it does. */
  listen(fd: number): Promise<void> {
    const listener = createServer((socket) => this.#serve(socket));
    this.#listeners.add(listener);
    return new Promise((resolve, reject) => {
      listener.once('error', reject);
      listener.listen({ fd }, () => {
        listener.off('error', reject);
        listener.on('error', (error) => this.#serving.log.error({ err: error }, 'gRPC socket failed'));
        resolve();
      });
    });
  }

  #serve(socket: Socket): void {
    const connection = new Connection(socket, {
      maxConcurrentStreams: MAX_CONCURRENT_STREAMS,
      streamWindow: CALL_WINDOW,
      connectionWindow: CONNECTION_WINDOW,
      onStream: (stream) => this.#call(stream),
      onError: (error) => this.#serving.log.debug({ err: error }, 'a gRPC connection failed'),
    });
    this.#connections.add(connection);
    socket.once('close', () => this.#connections.delete(connection));
    if (this.#closed !== undefined) connection.drain();
  }

  #call(stream: Http2Stream): void {
    const { headers } = stream;
    const method = this.#methods.get(headers.path);
    if (method !== undefined && isGrpc(headers) && isPlain(headers))
      void serve(method, stream, this.#serving);
    else refuse(stream);
  }

  /**
   * Accepts nothing new, ends calls that wait, gives the others `grace` milliseconds, then cuts every connection.
   * Resolves when all are gone.
   */
  close(grace: number): Promise<void> {
    this.#closed ??= this.#close(grace);
    return this.#closed;
  }

  async #close(grace: number): Promise<void> {
    // Each is called back when its last connection has ended.
    const gone = Promise.all(
      [...this.#listeners].map((listener) => new Promise<void>((resolve) => listener.close(() => resolve()))),
    );
    const reason = unavailable('the daemon is shutting down');
    const stop = setTimeout(() => this.#calls.stopAll(reason), grace);
    let cut = setTimeout(() => this.#cut(), grace + CUT_AFTER);
    let over = false;
    void this.#calls.drain(reason).then(() => {
      if (over) return;
      clearTimeout(stop);
      // What is left are answers on their way out.
      clearTimeout(cut);
      cut = setTimeout(() => this.#cut(), CUT_AFTER);
    });
    // Says goodbye: calls in progress go on, new ones are for another connection.
    for (const connection of this.#connections) connection.drain();
    // An implementation that does not heed its signal is not waited for: nobody is there to take its answer.
    await gone;
    over = true;
    clearTimeout(stop);
    clearTimeout(cut);
  }

  #cut(): void {
    for (const { socket } of this.#connections) socket.destroy();
  }
}

/** Milliseconds a stopped call or a written answer has to leave. */
const CUT_AFTER = 500;

/** Tells a caller that there is no such method, and whoever is no caller that this is no place for him. */
function refuse(stream: Http2Stream): void {
  const { headers } = stream;
  if (!isGrpc(headers)) {
    stream.discard();
    stream.respond(NOT_GRPC, true);
    return;
  }
  const details = isPlain(headers)
    ? unknownMethod(headers.path)
    : `messages are not understood in the encoding ${JSON.stringify(encodingOf(headers))}`;
  new Answer(stream, 0).fail({ code: Code.Unimplemented, details: details.slice(0, 512) });
}

function isGrpc(headers: RequestHeaders): boolean {
  // Not grpc-web, which has its trailers elsewhere.
  return /^application\/grpc(?:$|[+;])/.test(headers.one('content-type') ?? '');
}

/** Whether messages come as they are. Compression is of no use on a unix socket. */
const isPlain = (headers: RequestHeaders): boolean => encodingOf(headers) === 'identity';

function encodingOf({ fields }: RequestHeaders): string {
  return fields.get('grpc-encoding')?.join(', ') ?? 'identity';
}

function unknownMethod(path: string): string {
  const [, service = '', method = ''] = path.split('/');
  return `unknown method ${method} for service ${service}`;
}
