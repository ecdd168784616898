/** Serves gRPC on a unix socket. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { type Server as NetServer, type Socket, createServer } from 'node:net';
import type { Logger } from 'pino';
import { unavailable } from '../../ttrpc/errors.ts';
import type { ServiceDefinition, ServiceImplementation } from '../../ttrpc/service.ts';
import { OpenCalls } from './call.ts';
import { type ServedMethod, handlerOf } from './method.ts';

export interface GrpcServerOptions {
  /** Bytes of one message at most. */
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
  readonly log: Logger;
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

/** Of grpc-js's server. */
interface Internals {
  readonly commonServerOptions: object;
}

/**
 * Go's clients reset every stream that they have enough of: `ctr content get` one for each 32 KiB. nghttp2 takes more than 33 a
 * second for an attack and closes the connection (http2.createServer, streamResetRate); those who reach this socket are root.
 */
const HTTP2_OPTIONS = { streamResetBurst: 1_000_000, streamResetRate: 1_000_000 };

const same = (bytes: Buffer): Buffer => bytes;

export class GrpcServer {
  readonly #log: Logger;
  readonly #server: Server;
  readonly #calls = new OpenCalls();
  readonly #sockets = new Set<Socket>();
  #listener: NetServer | undefined;
  #closed: Promise<void> | undefined;

  constructor({ maxReceiveBytes, maxSendBytes, log }: GrpcServerOptions) {
    this.#log = log;
    this.#server = new Server({
      'grpc.max_receive_message_length': maxReceiveBytes,
      'grpc.max_send_message_length': maxSendBytes,
      'grpc.max_concurrent_streams': MAX_CONCURRENT_STREAMS,
      'grpc.enable_channelz': 0,
    });
    // grpc-js has no options for these and hands them to `http2.createServer` as they are (1.14.7).
    Object.assign((this.#server as unknown as Internals).commonServerOptions, HTTP2_OPTIONS);
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
      const { kind, handle } = handlerOf(served, this.#calls, this.#log);
      if (!this.#server.register(path, handle, same, same, kind))
        throw new Error(`${path} is served already`);
    }
  }

  /** Accepts connections on a listening socket, which becomes the server's. Resolves when it does. */
  listen(fd: number): Promise<void> {
    // Connections are handed to grpc-js one by one, as its own listening neither takes a descriptor nor lets the mode of the
    // socket's file be set before the first connection; and its forced shutdown leaves connections open without channelz.
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    const listener = createServer((socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      injector.injectConnection(socket);
    });
    this.#listener = listener;
    this.#closeSessions = () => injector.destroy();
    return new Promise((resolve, reject) => {
      listener.once('error', reject);
      listener.listen({ fd }, () => {
        listener.off('error', reject);
        listener.on('error', (error) => this.#log.error({ err: error }, 'gRPC socket failed'));
        resolve();
      });
    });
  }

  #closeSessions = (): void => undefined;

  /**
   * Accepts nothing new, ends calls that wait, gives the others `grace` milliseconds, then cuts every connection.
   * Resolves when all are gone.
   */
  close(grace: number): Promise<void> {
    this.#closed ??= this.#close(grace);
    return this.#closed;
  }

  async #close(grace: number): Promise<void> {
    const gone = new Promise<void>((resolve) => {
      if (this.#listener === undefined) resolve();
      // Called when the last connection has ended.
      else this.#listener.close(() => resolve());
    });
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
    this.#closeSessions();
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
