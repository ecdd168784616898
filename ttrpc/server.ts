/** The serving side of ttrpc. */
import { chmodSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { addressOf, isAbstract, nameOf } from './address.ts';
import { Connection } from './connection.ts';
import { alreadyExists, messageOf, type RpcError, unavailable } from './errors.ts';
import type { ServedMethod } from './served-call.ts';
import type { ServiceDefinition, ServiceImplementation } from './service.ts';

export interface TtrpcServerOptions {
  /**
   * Told what no caller can be blamed for or told in full: a peer that breaks the protocol, an implementation that
   * throws something other than an RpcError, a listener that fails. For a log.
   */
  readonly onError?: (error: Error) => void;
  /** Sees every connection before anything is read from it, and may destroy it. */
  readonly onConnection?: (socket: Socket) => void;
}

/** How long calls in flight may take once the server closes, unless told otherwise. */
const DEFAULT_GRACE_MS = 1000;

export class TtrpcServer {
  readonly #options: TtrpcServerOptions;
  readonly #methods = new Map<string, Map<string, ServedMethod>>();
  readonly #listeners = new Set<Server>();
  readonly #connections = new Set<Connection>();
  #closing: Promise<void> | undefined;

  constructor(options: TtrpcServerOptions = {}) {
    this.#options = options;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#connections.size;
  }

  /**
   * Serves a definition, now or after connections exist.
   * @throws RpcError AlreadyExists when a service of that name is served.
   */
  add<S extends ServiceDefinition>(definition: S, implementation: ServiceImplementation<S>): this {
    const { fullName } = definition;
    if (this.#methods.has(fullName)) throw alreadyExists(`service ${fullName} is served already`);
    const methods = new Map<string, ServedMethod>();
    for (const [key, method] of Object.entries(definition.methods)) {
      // The types of this one function are those of its method; the map of all methods cannot say so.
      const serve = implementation[key] as ServedMethod['serve'];
      methods.set(method.name, {
        fullName: `${fullName}/${method.name}`,
        definition: method,
        serve: (request, context) => serve.call(implementation, request, context),
      });
    }
    this.#methods.set(fullName, methods);
    return this;
  }

  /**
   * Listens on a unix socket that only its owner may use (0600). '@' or a zero byte begins an abstract name, which has
   * no mode. `close` removes the socket's file.
   * @throws RpcError AlreadyExists when the path is taken; Unavailable when it cannot be used.
   */
  async listen(path: string): Promise<void> {
    try {
      await this.#listen((server) => {
        if (isAbstract(path)) server.listen({ path: addressOf(path) });
        else bindPrivately(server, path);
      });
    } catch (error) {
      throw listenError(`listen on ${nameOf(path)}`, error);
    }
  }

  /**
   * Listens on a socket that listens already: one that was inherited, say. It is closed with the server.
   * @throws RpcError Unavailable when `fd` is no socket.
   */
  async listenFd(fd: number): Promise<void> {
    try {
      await this.#listen((server) => server.listen({ fd }));
    } catch (error) {
      throw listenError(`listen on descriptor ${fd}`, error);
    }
  }

  /** Serves a connected socket, and takes it over. */
  serve(socket: Socket): void {
    if (this.#closing !== undefined) {
      socket.destroy();
      return;
    }
    this.#options.onConnection?.(socket);
    const connection = new Connection(socket, this.#methods, (error) => this.#report(error));
    this.#connections.add(connection);
    void connection.closed.then(() => this.#connections.delete(connection));
  }

  /**
   * Accepts nothing more, lets calls in flight end for `graceMs` milliseconds (1000 if not said), then cuts them off.
   * Resolves when every listener and connection is gone. A call's own implementation must not wait for it.
   */
  close(options: { graceMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(options.graceMs ?? DEFAULT_GRACE_MS);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #listen(bind: (server: Server) => void): Promise<void> {
    if (this.#closing !== undefined) throw unavailable('the server is closed');
    const server = createServer((socket) => this.serve(socket));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject).once('listening', resolve);
    try {
      bind(server);
      await promise;
    } catch (error) {
      server.close();
      throw error;
    }
    server.off('error', reject).on('error', (error) => this.#report(error));
    this.#listeners.add(server);
    server.once('close', () => this.#listeners.delete(server));
    if (this.#closing !== undefined) server.close();
  }

  async #close(graceMs: number): Promise<void> {
    const listeners = [...this.#listeners].map(
      (listener) =>
        new Promise<void>((resolve) => {
          listener.close(() => resolve());
        }),
    );
    const connections = [...this.#connections];
    for (const connection of connections) connection.drain();
    const cut = setTimeout(() => {
      for (const connection of connections) connection.destroy();
    }, graceMs);
    await Promise.all([...listeners, ...connections.map((connection) => connection.closed)]);
    clearTimeout(cut);
  }

  #report(error: Error): void {
    const { onError } = this.#options;
    // Apart from the call it is about: an observer that throws must not change what the peer is told.
    if (onError !== undefined) queueMicrotask(() => onError(error));
  }
}

/**
 * Nobody else can connect at any moment: the mask holds while the socket's file is made, which `listen` does before it
 * returns. The mask leaves the owner's own bits alone, because it also applies to what the thread pool creates just now.
 */
function bindPrivately(server: Server, path: string): void {
  const mask = process.umask(0o077);
  try {
    server.listen({ path });
  } finally {
    process.umask(mask);
  }
  if (server.listening) chmodSync(path, 0o600);
}

function listenError(what: string, error: unknown): RpcError {
  const message = `${what}: ${messageOf(error)}`;
  const taken = error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';
  return taken ? alreadyExists(message, error) : unavailable(message, error);
}
