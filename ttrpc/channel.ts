/** A connection that carries frames. Knows nothing of calls. */
import type { Socket } from 'node:net';
import { FrameDecoder, FrameError, type FrameHandler } from './frame.ts';

/** What the owner of a channel is told. */
export interface ChannelOwner {
  readonly frame: FrameHandler;
  /** The peer sent a frame too large. The connection ends as this returns; a last frame may be sent from within. */
  violated(error: FrameError): void;
  /** The connection is gone. Called once; `error` is why, undefined when it was closed in good order. */
  closed(error: Error | undefined): void;
}

export class Channel {
  readonly #socket: Socket;
  readonly #owner: ChannelOwner;
  readonly #decoder: FrameDecoder;
  #holds = 0;
  /** Nothing is sent or resumed any more. */
  #dead = false;
  /** The owner has been told. */
  #told = false;
  #error: Error | undefined;
  #waiting: (() => void)[] = [];

  /** Takes the connected socket over. */
  constructor(socket: Socket, owner: ChannelOwner) {
    this.#socket = socket;
    this.#owner = owner;
    this.#decoder = new FrameDecoder(owner.frame);
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.once('close', () => this.#closed());
    if (socket.destroyed) {
      // The event may be over already. Told later, as for any other connection: the owner is still being made.
      process.nextTick(() => this.#closed());
      return;
    }
    socket.on('drain', () => this.#wake());
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.once('end', () => this.#ended());
  }

  get closed(): boolean {
    return this.#dead;
  }

  /** Bytes that wait to be taken by the kernel. */
  get backlog(): number {
    return this.#socket.writableLength;
  }

  /** Sends one frame with one write. False when the sender of a stream should wait for `drained`. */
  send(frame: Uint8Array): boolean {
    if (this.#dead || !this.#socket.writable) return true;
    return this.#socket.write(frame);
  }

  /** Resolves when the kernel has taken what was written, or the connection is gone. */
  drained(): Promise<void> {
    if (this.#dead || !this.#socket.writableNeedDrain) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  /** Reads nothing more until `release`. Holds add up. What was read before still arrives. */
  hold(): void {
    this.#holds += 1;
    if (this.#holds === 1) this.#socket.pause();
  }

  release(): void {
    this.#holds -= 1;
    if (this.#holds === 0 && !this.#dead) this.#socket.resume();
  }

  /** Closes once everything that was sent is in the kernel's hands. */
  end(): void {
    this.#decoder.stop();
    this.#socket.destroySoon();
  }

  /** Closes at once. */
  destroy(error?: Error): void {
    this.#error ??= error;
    this.#dead = true;
    this.#decoder.stop();
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    try {
      // A plain view: messages would otherwise hold Buffers where their types promise Uint8Arrays.
      this.#decoder.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length));
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.#owner.violated(error);
      this.destroy(error);
    }
  }

  #ended(): void {
    try {
      this.#decoder.end();
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.#error ??= error;
    }
    this.#socket.destroySoon();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  #closed(): void {
    if (this.#told) return;
    this.#told = true;
    this.#dead = true;
    this.#decoder.stop();
    this.#wake();
    this.#owner.closed(this.#error);
  }
}
