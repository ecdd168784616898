/** One stream of a SPDY connection, as Node's own kind of stream. */
import { Duplex } from 'node:stream';
import { Reset } from './frame.ts';
import type { Headers } from './header-block.ts';

/** What both sides may send before the other one has taken some of it (draft 3, section 2.6.8). */
export const WINDOW = 64 << 10;
const MAX_WINDOW = 0x7fff_ffff;
/** Of a data frame, so that the frames of other streams come in between. */
const PIECE = 32 << 10;

/** What a stream asks of its connection. */
export interface Link {
  /** Whether the peer has shown that it counts what it takes. Go's never does, and would never let go on. */
  isWindowed(): boolean;
  reply(id: number): void;
  data(id: number, bytes: Buffer, fin: boolean, sent: (error?: Error | null) => void): void;
  reset(id: number, status: Reset): void;
  taken(id: number, bytes: number): void;
  /** Nobody takes what comes on this stream now, or somebody does again. */
  hold(stream: SpdyStream, isFull: boolean): void;
  forget(stream: SpdyStream): void;
}

export class SpdyStream extends Duplex {
  readonly id: number;
  readonly headers: Headers;
  readonly #link: Link;
  #isReplied = false;
  /** Nothing comes any more. */
  #isFinished = false;
  /** Told to the peer, or by it: there is no stream to reset. */
  #isGone = false;
  #window: number;
  #unreported = 0;
  #waiting: (() => void) | undefined;

  /** @param window how much the peer takes at first */
  constructor(link: Link, id: number, headers: Headers, window: number) {
    super({ highWaterMark: WINDOW, allowHalfOpen: true });
    this.#link = link;
    this.id = id;
    this.headers = headers;
    this.#window = window;
    // Who waits for the stream learns it; a stream that nobody waits for any more is none to end the daemon.
    this.on('error', () => undefined);
  }

  /** Accepts it. The peer sends nothing before, and takes nothing. */
  reply(): void {
    if (this.#isReplied || this.destroyed) return;
    this.#isReplied = true;
    this.#link.reply(this.id);
  }

  refuse(): void {
    if (this.destroyed) return;
    this.#link.reset(this.id, Reset.RefusedStream);
    this.#isGone = true;
    this.destroy();
  }

  /** What the connection has for it. */
  deliver(bytes: Buffer, fin: boolean): void {
    if (this.#isFinished) {
      this.#link.reset(this.id, Reset.StreamAlreadyClosed);
      this.#isGone = true;
      this.destroy(new Error(`stream ${this.id}: data after its end`));
      return;
    }
    this.#unreported += bytes.length;
    const goesOn = bytes.length === 0 || this.push(bytes);
    if (fin) {
      this.#isFinished = true;
      this.push(null);
      // A stream of which nobody wants to read has ended all the same.
    } else if (goesOn) this.#report();
    else this.#link.hold(this, true);
  }

  /** The peer, or the connection, has let go of it. */
  abandon(error?: Error): void {
    this.#isGone = true;
    this.destroy(error);
  }

  /** The peer takes so much more. */
  widen(delta: number): void {
    this.#window += delta;
    if (this.#window > MAX_WINDOW) {
      this.#link.reset(this.id, Reset.FlowControlError);
      this.abandon(new Error(`stream ${this.id}: a window beyond what is possible`));
      return;
    }
    const waiting = this.#waiting;
    if (waiting === undefined || this.#window <= 0) return;
    this.#waiting = undefined;
    waiting();
  }

  override _read(): void {
    this.#link.hold(this, false);
    this.#report();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#send(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#link.data(this.id, Buffer.alloc(0), true, done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const isOver = this.#isFinished && this.writableFinished;
    if (!this.#isGone && !isOver)
      this.#link.reset(this.id, error === null ? Reset.Cancel : Reset.InternalError);
    this.#isGone = true;
    this.#waiting = undefined;
    this.#link.hold(this, false);
    this.#link.forget(this);
    done(error);
  }

  #send(chunk: Buffer, done: (error?: Error | null) => void): void {
    if (this.destroyed) return done(new Error(`stream ${this.id} is closed`));
    const room = this.#link.isWindowed() ? Math.min(this.#window, PIECE) : PIECE;
    if (room <= 0) {
      this.#waiting = () => this.#send(chunk, done);
      return;
    }
    const piece = chunk.subarray(0, room);
    this.#window -= piece.length;
    const rest = chunk.subarray(piece.length);
    this.#link.data(this.id, piece, false, (error) => {
      if (error != null || rest.length === 0) done(error);
      else this.#send(rest, done);
    });
  }

  /** Tells the peer what has been taken, half a window at a time. */
  #report(): void {
    if (this.#unreported < WINDOW / 2 || this.#isFinished || this.#isGone) return;
    this.#link.taken(this.id, this.#unreported);
    this.#unreported = 0;
  }
}
