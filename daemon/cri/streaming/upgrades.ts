/** From an HTTP request to a protocol of streams: what the client speaks is agreed upon here. */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { WebSocket, WebSocketServer } from 'ws';
import { messageOf } from '../../../ttrpc/errors.ts';
import type { Logger } from '../../log.ts';
import type { Session, Targets } from './session.ts';
import { COMMAND_PROTOCOLS, serveSpdyCommand } from './spdy-command.ts';
import { FORWARD_PROTOCOL, serveSpdyForward } from './spdy-forward.ts';
import { WEBSOCKET_COMMANDS, serveWebSocketCommand } from './websocket-command.ts';
import { WEBSOCKET_FORWARDS, serveWebSocketForward } from './websocket-forward.ts';

/** For people. */
export const UPGRADES = 'SPDY/3.1 and WebSocket';
const SPDY = 'spdy/3.1';
/** Of one message of a WebSocket; clients send some ten KiB. */
const MAX_MESSAGE = 1 << 20;

/** Why a request is refused before anything is upgraded. */
class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly status: string;
  readonly headers: readonly string[];

  constructor(status: string, message: string, headers: readonly string[] = []) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

export class Upgrades {
  readonly #targets: Targets;
  readonly #idleMs: number;
  readonly #log: Logger;
  readonly #webSockets: WebSocketServer;
  /** What has been agreed upon with clients of WebSocket that are being answered. */
  readonly #agreed = new WeakMap<IncomingMessage, string>();

  private constructor(targets: Targets, idleMs: number, log: Logger, webSockets: WebSocketServer) {
    this.#targets = targets;
    this.#idleMs = idleMs;
    this.#log = log;
    this.#webSockets = webSockets;
    webSockets.on('headers', (headers, request) => {
      const protocol = this.#agreed.get(request);
      if (protocol !== undefined) headers.push(`Sec-WebSocket-Protocol: ${protocol}`);
    });
  }

  /** @param idleMs after which a connection on which nothing comes or goes is closed */
  static async load(targets: Targets, idleMs: number, log: Logger): Promise<Upgrades> {
    const { WebSocketServer } = await import('ws');
    const webSockets = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: MAX_MESSAGE,
    });
    return new Upgrades(targets, idleMs, log, webSockets);
  }

  /** Serves one client until it is gone. Never rejects. */
  async serve(
    session: Session | undefined,
    request: IncomingMessage,
    socket: Socket,
    head: Buffer,
  ): Promise<void> {
    socket.on('error', (error) => this.#log.debug({ err: error }, 'a streaming connection failed'));
    try {
      if (session === undefined) {
        const reason = 'no such streaming request: it is unknown, has been served already, or has expired';
        throw new Refusal('404 Not Found', reason);
      }
      const wish = request.headers.upgrade?.toLowerCase();
      socket.setNoDelay(true);
      if (wish === SPDY) await this.#spdy(session, request, socket, head);
      else if (wish === 'websocket') await this.#webSocket(session, request, socket, head);
      else throw new Refusal('400 Bad Request', `unable to upgrade: only ${UPGRADES} are served`);
    } catch (error) {
      if (error instanceof Refusal) return refuse(socket, error);
      this.#log.debug(
        { err: error, kind: session?.kind },
        `a streaming client is given up: ${messageOf(error)}`,
      );
      socket.destroy();
    }
  }

  async #spdy(session: Session, request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const known = session.kind === 'portforward' ? [FORWARD_PROTOCOL] : COMMAND_PROTOCOLS;
    const protocol = agreed(request, known);
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n' +
        `X-Stream-Protocol-Version: ${protocol}\r\n\r\n`,
    );
    if (head.length > 0) socket.unshift(head);
    this.#limit(socket);
    if (session.kind === 'portforward') await serveSpdyForward(session, socket, this.#targets);
    else await serveSpdyCommand(session, protocol, socket, this.#targets);
  }

  async #webSocket(session: Session, request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const isForward = session.kind === 'portforward';
    const known = isForward ? WEBSOCKET_FORWARDS : [...WEBSOCKET_COMMANDS.keys()];
    const protocol = this.#subprotocol(request, known);
    const { promise, resolve } = Promise.withResolvers<WebSocket | undefined>();
    // What is no WebSocket is answered by the server, and the socket closed.
    socket.once('close', () => resolve(undefined));
    this.#webSockets.handleUpgrade(request, socket, head, resolve);
    const client = await promise;
    if (client === undefined) return;
    this.#limit(socket);
    if (isForward) await serveWebSocketForward(session, protocol, client, this.#targets);
    else await serveWebSocketCommand(session, protocol, client, this.#targets);
  }

  /**
   * Agreed upon here and not by `ws`, which refuses names with a slash as RFC 6455 has it (section 4.1): kubectl's own has one.
   *
   * @returns what both know, the best first; empty for a client that offers nothing
   */
  #subprotocol(request: IncomingMessage, known: readonly string[]): string {
    const offered = listOf(request.headers['sec-websocket-protocol']);
    delete request.headers['sec-websocket-protocol'];
    if (offered.length === 0) return '';
    const protocol = known.find((each) => offered.includes(each));
    if (protocol === undefined) throw unknownProtocol(offered);
    this.#agreed.set(request, protocol);
    return protocol;
  }

  #limit(socket: Socket): void {
    socket.setTimeout(this.#idleMs, () => socket.destroy());
  }
}

/** The first of those that the client offers which is known; of one that offers none, the oldest. */
function agreed(request: IncomingMessage, known: readonly string[]): string {
  const offered = listOf(request.headers['x-stream-protocol-version']);
  if (offered.length === 0) return known.at(-1)!;
  const protocol = offered.find((each) => known.includes(each));
  if (protocol !== undefined) return protocol;
  throw unknownProtocol(
    offered,
    known.map((each) => `X-Accepted-Stream-Protocol-Versions: ${each}`),
  );
}

/** A header that may come several times, with several values each. */
function listOf(header: string | readonly string[] | undefined): string[] {
  const values = [header ?? []].flat().flatMap((line) => line.split(','));
  return values.map((each) => each.trim()).filter((each) => each !== '');
}

function unknownProtocol(offered: readonly string[], headers: readonly string[] = []): Refusal {
  const names = offered.join(', ').slice(0, 200);
  return new Refusal('403 Forbidden', `unable to upgrade: none of the protocols ${names} is known`, headers);
}

function refuse(socket: Socket, { status, message, headers }: Refusal): void {
  const lines = [
    `HTTP/1.1 ${status}`,
    'Content-Type: text/plain; charset=utf-8',
    'Connection: close',
    ...headers,
  ];
  socket.end(`${lines.join('\r\n')}\r\n\r\n${message}\n`, () => socket.destroy());
}
