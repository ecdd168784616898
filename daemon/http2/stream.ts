/** One stream of a connection: a request, and what is answered. */
import type { Socket } from 'node:net';
import { ErrorCode, StreamError } from './frame.ts';
import type { RequestHeaders } from './request-headers.ts';

/** Who takes what a stream's peer sends. */
export interface Reader {
  /** Its bytes count against the stream's window until `consumed` is called for them. */
  data(chunk: Buffer): void;
  /** The peer has sent all. */
  end(): void;
  /** The stream has been cut off: reset by either side, or its connection is gone. Nothing comes behind this. */
  cut(): void;
}

/** What a stream needs of its connection. */
export interface Link {
  readonly socket: Socket;
  /** Bytes of data that the connection may send just now, in one frame. */
  readonly room: number;
  /** Has the stream send when it can. */
  pump(stream: Http2Stream): void;
  sendHeaders(stream: number, block: Buffer, isLast: boolean): void;
  /** @param sent called when the kernel has it */
  sendData(stream: number, data: Uint8Array, sent?: () => void): void;
  sendReset(stream: number, code: ErrorCode): void;
  /** Adds to the peer's window for a stream. */
  sendCredit(stream: number, bytes: number): void;
  /** Bytes of the connection's window that are free again. */
  consumed(bytes: number): void;
  forget(stream: Http2Stream): void;
}

export interface Windows {
  /** Bytes that the peer may send before they are consumed. */
  readonly ours: number;
  /** Bytes that we may send at first. */
  readonly theirs: number;
}

interface Message {
  readonly bytes: Uint8Array;
  readonly sent: (() => void) | undefined;
}

/** What came of an attempt to send: there may be more; the connection has no room; there is no more, or the peer has to grant more first. */
export type Sending = 'sent' | 'held up' | 'done';

/** Bytes that wait to be sent, above which a writer is told to wait. */
const HIGH_WATER = 64 << 10;

/** A window has 31 bits (RFC 9113, section 6.9.1). */
export const LARGEST_WINDOW = 2 ** 31 - 1;

const NOBODY: Reader = { data: () => undefined, end: () => undefined, cut: () => undefined };

export class Http2Stream {
  readonly id: number;
  readonly headers: RequestHeaders;
  readonly #link: Link;
  #reader: Reader = NOBODY;
  #isDiscarding = false;
  /** What the peer may still send, what it has sent that is not consumed, and what is consumed without its having been told. */
  readonly #largest: number;
  #allowed: number;
  #unconsumed = 0;
  #owed = 0;
  #hasAll = false;

  /** What we may send, and what is to be sent. */
  #window: number;
  #messages: Message[] = [];
  /** Bytes of the first message that have been sent. */
  #offset = 0;
  #waiting = 0;
  #last: { readonly trailers: Buffer; readonly sent: () => void } | undefined;
  #hasAnswered = false;
  #drained: (() => void)[] = [];

  #isClosed = false;
  #onClosed: (() => void) | undefined;

  constructor(id: number, headers: RequestHeaders, link: Link, windows: Windows) {
    this.id = id;
    this.headers = headers;
    this.#link = link;
    this.#largest = windows.ours;
    this.#allowed = windows.ours;
    this.#window = windows.theirs;
  }

  get socket(): Socket {
    return this.#link.socket;
  }

  /** Both sides are done, or it has been cut off. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The peer has sent all. */
  get hasAll(): boolean {
    return this.#hasAll;
  }

  /** To be said before the event loop goes on, as nothing is kept for later. */
  read(reader: Reader): void {
    this.#reader = reader;
  }

  /** Data that still come are not wanted, nor those that have come and are not consumed. */
  discard(): void {
    if (this.#isDiscarding) return;
    this.#isDiscarding = true;
    this.#credit(this.#unconsumed);
  }

  /** So many bytes of what has been read are out of the way. */
  consumed(bytes: number): void {
    if (!this.#isDiscarding) this.#credit(bytes);
  }

  #credit(bytes: number): void {
    if (this.#isClosed || bytes === 0) return;
    this.#unconsumed -= bytes;
    this.#link.consumed(bytes);
    this.#owed += bytes;
    if (this.#hasAll || this.#owed < this.#largest / 2) return;
    this.#allowed += this.#owed;
    this.#link.sendCredit(this.id, this.#owed);
    this.#owed = 0;
  }

  /** Called once, when it is closed. */
  onClosed(closed: () => void): void {
    this.#onClosed = closed;
  }

  // ---- the answer ----

  respond(block: Buffer, isLast = false): void {
    if (this.#isClosed) return;
    this.#link.sendHeaders(this.id, block, isLast);
    if (isLast) this.#answered();
  }

  /**
   * Sends bytes, whose memory is the stream's from now on.
   *
   * @param sent called when the kernel has them all; not when the stream is cut off before
   * @returns false when the peer should be waited for, see `drained`
   */
  write(bytes: Uint8Array, sent?: () => void): boolean {
    if (this.#isClosed) return true;
    this.#messages.push({ bytes, sent });
    this.#waiting += bytes.length;
    this.#link.pump(this);
    return this.#waiting < HIGH_WATER;
  }

  /** Resolves when more may be written, or nothing any more. */
  drained(): Promise<void> {
    if (this.#isClosed || this.#waiting < HIGH_WATER) return Promise.resolve();
    return new Promise((resolve) => {
      this.#drained.push(resolve);
    });
  }

  /**
   * Ends the answer behind all that was written.
   *
   * @param sent called when that is so; not when the stream is cut off before
   */
  end(trailers: Buffer, sent: () => void): void {
    if (this.#isClosed) return;
    this.#last = { trailers, sent };
    this.#link.pump(this);
  }

  reset(code: ErrorCode): void {
    if (this.#isClosed) return;
    this.#link.sendReset(this.id, code);
    this.cut();
  }

  // ---- for the connection ----

  /** Sends what goes into one frame. */
  sendFrame(): Sending {
    const [message] = this.#messages;
    if (message !== undefined) {
      const { bytes, sent } = message;
      const { room } = this.#link;
      const left = bytes.length - this.#offset;
      const count = Math.min(left, this.#window, room);
      if (count <= 0 && left > 0) return room === 0 ? 'held up' : 'done';
      const isWhole = count === left;
      this.#link.sendData(
        this.id,
        bytes.subarray(this.#offset, this.#offset + count),
        isWhole ? sent : undefined,
      );
      this.#window -= count;
      this.#waiting -= count;
      this.#offset = isWhole ? 0 : this.#offset + count;
      if (isWhole) this.#messages.shift();
      if (this.#waiting < HIGH_WATER) this.#wake();
      if (this.#messages.length > 0) return 'sent';
    }
    const last = this.#last;
    if (last !== undefined) {
      this.#last = undefined;
      this.#link.sendHeaders(this.id, last.trailers, true);
      this.#answered();
      last.sent();
    }
    return 'done';
  }

  /** Data have come. @param count bytes that they take in the windows, padding included. @throws StreamError */
  receive(data: Buffer, count: number): void {
    this.#unconsumed += count;
    if (this.#hasAll) throw new StreamError(ErrorCode.StreamClosed, 'data behind the end');
    this.#allowed -= count;
    if (this.#allowed < 0) throw new StreamError(ErrorCode.FlowControlError, 'data beyond the window');
    this.#credit(this.#isDiscarding ? count : count - data.length);
    if (data.length > 0 && !this.#isDiscarding) this.#reader.data(data);
  }

  receiveEnd(): void {
    if (this.#hasAll) return;
    this.#hasAll = true;
    this.#reader.end();
    if (this.#hasAnswered) this.#close();
  }

  /** The peer lets us send more, or less where its settings have changed. @throws StreamError beyond all bounds */
  grant(bytes: number): void {
    this.#window += bytes;
    if (this.#window > LARGEST_WINDOW)
      throw new StreamError(ErrorCode.FlowControlError, 'a window beyond all bounds');
    if (this.#window > 0 && this.#messages.length > 0) this.#link.pump(this);
  }

  /** It is over before both sides are done. */
  cut(): void {
    if (this.#isClosed) return;
    const reader = this.#reader;
    this.#close();
    reader.cut();
  }

  #answered(): void {
    this.#hasAnswered = true;
    if (this.#hasAll) this.#close();
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#link.consumed(this.#unconsumed);
    this.#messages = [];
    this.#waiting = 0;
    this.#reader = NOBODY;
    this.#link.forget(this);
    this.#wake();
    this.#onClosed?.();
  }

  #wake(): void {
    const waiting = this.#drained;
    if (waiting.length === 0) return;
    this.#drained = [];
    for (const resolve of waiting) resolve();
  }
}
