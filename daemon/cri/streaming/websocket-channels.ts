/**
 * The channels of a WebSocket as Kubernetes has them: each message begins with the number of its channel, a byte, or a digit before
 * base64. The fifth version adds a message that ends a channel: 255 and its number.
 */
import { Readable, Writable } from 'node:stream';
import type { RawData, WebSocket } from 'ws';

const CLOSE_SIGNAL = 255;
const ZERO = 0x30;
const HIGH_WATER_MARK = 64 << 10;

/** How messages are written, by what was agreed upon. */
export interface Framing {
  readonly isBase64: boolean;
  /** Whether channels are ended one by one. */
  readonly canEnd: boolean;
}

/** Normal closure (RFC 6455, section 7.4.1), and what a client did that it may not. */
const NORMAL = 1000;
const UNSUPPORTED = 1003;

export class WebSocketChannels {
  readonly #socket: WebSocket;
  readonly #framing: Framing;
  readonly #inputs = new Map<number, Readable>();
  readonly #full = new Set<number>();
  readonly #gone = new AbortController();

  constructor(socket: WebSocket, framing: Framing) {
    this.#socket = socket;
    this.#framing = framing;
    socket.on('message', (data, isBinary) => this.#receive(data, isBinary));
    socket.on('error', () => undefined);
    socket.on('close', () => this.#end());
  }

  /** Aborted when the client is gone. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** What the client sends there. What it sends to other channels is forgotten. */
  input(channel: number): Readable {
    const stream = new Readable({
      highWaterMark: HIGH_WATER_MARK,
      read: () => this.#hold(channel, false),
      destroy: (error, done) => {
        this.#inputs.delete(channel);
        this.#hold(channel, false);
        done(error);
      },
    });
    stream.on('error', () => undefined);
    this.#inputs.set(channel, stream);
    return stream;
  }

  output(channel: number): Writable {
    const stream = new Writable({
      highWaterMark: HIGH_WATER_MARK,
      write: (chunk: Buffer, _encoding, done) => this.send(channel, chunk, done),
    });
    stream.on('error', () => undefined);
    return stream;
  }

  send(channel: number, bytes: Buffer, sent: (error?: Error | null) => void = () => undefined): void {
    if (this.#framing.isBase64) {
      this.#socket.send(`${channel}${bytes.toString('base64')}`, { binary: false }, sent);
    } else {
      this.#socket.send(Buffer.concat([Buffer.of(channel), bytes]), { binary: true }, sent);
    }
  }

  /** Says goodbye. Resolves when the client is gone. */
  async close(): Promise<void> {
    this.#full.clear();
    this.#socket.resume();
    this.#socket.close(NORMAL);
    if (this.gone.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.gone.addEventListener('abort', () => resolve(), { once: true });
    await promise;
  }

  #receive(data: RawData, isBinary: boolean): void {
    const message = data as Buffer;
    if (isBinary === this.#framing.isBase64) {
      return this.#socket.close(UNSUPPORTED, 'a message of the other kind than was agreed upon');
    }
    const [first] = message;
    if (first === undefined) return;
    if (this.#framing.canEnd && first === CLOSE_SIGNAL) {
      const channel = message[1] ?? CLOSE_SIGNAL;
      this.#inputs.get(channel)?.push(null);
      this.#inputs.delete(channel);
      return;
    }
    const channel = this.#framing.isBase64 ? first - ZERO : first;
    const rest = message.subarray(1);
    const bytes = this.#framing.isBase64 ? Buffer.from(rest.toString('latin1'), 'base64') : rest;
    const input = this.#inputs.get(channel);
    if (input === undefined || bytes.length === 0) return;
    if (!input.push(bytes)) this.#hold(channel, true);
  }

  /** One channel that nobody takes from holds up the others: there is one wire. */
  #hold(channel: number, isFull: boolean): void {
    if (isFull) {
      this.#full.add(channel);
      this.#socket.pause();
    } else if (this.#full.delete(channel) && this.#full.size === 0) {
      this.#socket.resume();
    }
  }

  #end(): void {
    this.#gone.abort();
    for (const input of this.#inputs.values()) input.destroy(new Error('the connection was closed'));
  }
}
