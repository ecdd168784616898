/**
 * The streaming server: exec, attach and port-forward go over connections of their own, by URLs that the CRI gives to the kubelet, each
 * good for one client and a minute.
 */
import { readFileSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { messageOf, unavailable } from '../../../ttrpc/errors.ts';
import type { Logger } from '../../log.ts';
import { milliseconds } from '../../schema.ts';
import type { Session, Targets } from './session.ts';
import type { StreamingSettings } from './settings.ts';
import { Tokens } from './tokens.ts';
import { UPGRADES, Upgrades } from './upgrades.ts';

const MAX_CONNECTIONS = 4096;
/** For a client to say what it wants. */
const REQUEST_TIMEOUT_MS = 30_000;

export class StreamingServer implements AsyncDisposable {
  readonly #settings: StreamingSettings;
  readonly #targets: Targets;
  readonly #log: Logger;
  readonly #tokens = new Tokens<Session>();
  readonly #sockets = new Set<Socket>();
  #opening: Promise<Server> | undefined;

  /** Listens when it is asked for a URL first: a daemon without pods needs no port. */
  constructor(settings: StreamingSettings, targets: Targets, log: Logger) {
    this.#settings = settings;
    this.#targets = targets;
    this.#log = log;
  }

  /**
   * A URL by which one client can do what the session says, within a minute.
   *
   * @throws RpcError Unavailable when the server cannot listen, ResourceExhausted when too many are waiting
   */
  async url(session: Session): Promise<string> {
    const server = await this.#open();
    const { address, port, family } = server.address() as AddressInfo;
    const host = family === 'IPv6' ? `[${address}]` : address;
    const scheme = this.#settings.tls_cert === '' ? 'http' : 'https';
    return `${scheme}://${host}:${port}/${session.kind}/${this.#tokens.issue(session)}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const opening = this.#opening;
    if (opening === undefined) return;
    const server = await opening.catch(() => undefined);
    const { promise, resolve } = Promise.withResolvers<void>();
    if (server === undefined) return;
    server.close(() => resolve());
    server.closeAllConnections();
    for (const socket of this.#sockets) socket.destroy();
    await promise;
  }

  #open(): Promise<Server> {
    this.#opening ??= this.#listen().catch((error: unknown) => {
      // The port may be free the next time.
      this.#opening = undefined;
      throw unavailable(`the streaming server cannot listen: ${messageOf(error)}`, error);
    });
    return this.#opening;
  }

  async #listen(): Promise<Server> {
    const { address, port, idle_timeout } = this.#settings;
    const upgrades = await Upgrades.load(this.#targets, milliseconds(idle_timeout)!, this.#log);
    const server = this.#create();
    server.maxConnections = MAX_CONNECTIONS;
    server.on('connection', (socket: Socket) => this.#remember(socket));
    server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
      void upgrades.serve(this.#take(request), request, socket, head);
    });
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const [status, text] =
        this.#take(request) === undefined
          ? [404, 'no such streaming request: it is unknown, has been served already, or has expired']
          : [400, `unable to upgrade: only ${UPGRADES} are served`];
      response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' });
      response.end(`${text}\n`);
    });
    await listening(server, address, port);
    server.on('error', (error: unknown) => this.#log.error({ err: error }, 'the streaming server failed'));
    // Its connections are no reason for the daemon to stay.
    server.unref();
    return server;
  }

  #create(): Server {
    const timeouts = { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS };
    const { tls_cert, tls_key } = this.#settings;
    if (tls_cert === '') return process.getBuiltinModule('node:http').createServer(timeouts);
    const pair = { cert: readFileSync(tls_cert), key: readFileSync(tls_key) };
    return process.getBuiltinModule('node:https').createServer({ ...timeouts, ...pair });
  }

  #take({ url = '' }: IncomingMessage): Session | undefined {
    const [, kind, token = ''] = /^\/(exec|attach|portforward)\/([\w-]+)(?:\?.*)?$/s.exec(url) ?? [];
    const session = this.#tokens.take(token);
    return session?.kind === kind ? session : undefined;
  }

  #remember(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }
}

async function listening(server: Server, host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ host, port }, resolve);
  await promise;
  server.off('error', reject);
}
