/** Serves gRPC on a unix socket, on Node's own HTTP/2 (grpc/grpc, doc/PROTOCOL-HTTP2.md). */
import {
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  constants,
  createServer,
} from 'node:http2';
import { type Server as NetServer, type Socket, createServer as createNetServer } from 'node:net';
import type { Logger } from 'pino';
import { Code, messageOf, unavailable } from '../../ttrpc/errors.ts';
import type { ServiceDefinition, ServiceImplementation } from '../../ttrpc/service.ts';
import { Answer } from './answer.ts';
import { OpenCalls } from './call.ts';
import { firstCall } from './first-call.ts';
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

const HTTP2_OPTIONS = {
  settings: { maxConcurrentStreams: MAX_CONCURRENT_STREAMS, initialWindowSize: CALL_WINDOW },
  // Callers are root; what they may have in flight is limited by the windows. The default of 10 MB cuts off busy connections.
  maxSessionMemory: Number.MAX_SAFE_INTEGER,
  /**
   * Go's clients reset every stream that they have enough of: `ctr content get` one for each 32 KiB. nghttp2 takes more than 33 a
   * second for an attack and closes the connection (http2.createServer, streamResetRate); those who reach this socket are root.
   */
  streamResetBurst: 1_000_000,
  streamResetRate: 1_000_000,
};

export class GrpcServer {
  readonly #http: Http2Server;
  readonly #methods = new Map<string, ServedMethod>();
  readonly #serving: Serving;
  readonly #calls = new OpenCalls();
  readonly #sockets = new Set<Socket>();
  /** Connections without a call yet. */
  readonly #silent = new Set<Socket>();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #listeners = new Set<NetServer>();
  #closed: Promise<void> | undefined;

  constructor(options: GrpcServerOptions) {
    this.#serving = { ...options, calls: this.#calls };
    this.#http = createServer(HTTP2_OPTIONS);
    this.#http.on('session', (session) => this.#opened(session));
    this.#http.on('sessionError', (error) => options.log.debug({ err: error }, 'a gRPC connection failed'));
    this.#http.on('stream', (stream: ServerHttp2Stream, headers) => {
      const method = this.#methods.get(headers[':path'] ?? '');
      if (method !== undefined && isGrpc(headers) && isPlain(headers))
        void serve(method, stream, headers, this.#serving);
      else this.#refuse(stream, headers);
    });
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
    // Connections are handed on one by one, as a server of http2's does not say which sockets it has.
    const listener = createNetServer((socket) => void this.#accept(socket));
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

  async #accept(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    this.#silent.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    const served = await firstCall(socket);
    this.#silent.delete(socket);
    if (served !== undefined) this.#http.emit('connection', served);
  }

  #opened(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.once('close', () => this.#sessions.delete(session));
    session.setLocalWindowSize(CONNECTION_WINDOW);
    if (this.#closed !== undefined) session.close();
  }

  /** Tells a caller that there is no such method, and whoever is no caller that this is no place for him. */
  #refuse(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    stream.on('error', (error) =>
      this.#serving.log.debug({ error: messageOf(error) }, 'a refused call failed'),
    );
    if (!isGrpc(headers)) {
      stream.respond({ ':status': constants.HTTP_STATUS_UNSUPPORTED_MEDIA_TYPE }, { endStream: true });
      return;
    }
    const details = isPlain(headers)
      ? unknownMethod(headers[':path'])
      : `messages are not understood in the encoding ${JSON.stringify(headers['grpc-encoding'])}`;
    new Answer(stream, 0).fail({ code: Code.Unimplemented, details: details.slice(0, 512) });
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
    for (const session of this.#sessions) session.close();
    for (const socket of this.#silent) socket.destroy();
    // An implementation that does not heed its signal is not waited for: nobody is there to take its answer.
    await gone;
    over = true;
    clearTimeout(stop);
    clearTimeout(cut);
  }

  #cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** Milliseconds a stopped call or a written answer has to leave. */
const CUT_AFTER = 500;

function isGrpc(headers: IncomingHttpHeaders): boolean {
  // Not grpc-web, which has its trailers elsewhere.
  return /^application\/grpc(?:$|[+;])/.test(headers['content-type'] ?? '');
}

/** Whether messages come as they are. Compression is of no use on a unix socket. */
function isPlain({ 'grpc-encoding': encoding = 'identity' }: IncomingHttpHeaders): boolean {
  return encoding === 'identity';
}

function unknownMethod(path = ''): string {
  const [, service = '', method = ''] = path.split('/');
  return `unknown method ${method} for service ${service}`;
}
