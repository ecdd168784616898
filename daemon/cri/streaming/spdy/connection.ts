/**
 * The server's side of a SPDY/3.1 connection as the kubelet and kubectl speak it (Go's spdystream): streams that the peer opens, over
 * anything that carries bytes.
 */
import type { Duplex } from 'node:stream';
import { messageOf } from '../../../../ttrpc/errors.ts';
import {
  type Frame,
  FrameError,
  FrameReader,
  GoAway,
  INITIAL_WINDOW_SIZE,
  Reset,
  dataHeader,
  goAway,
  ping,
  rstStream,
  synReply,
  windowUpdate,
} from './frame.ts';
import { HeaderBlockError, HeaderReader, HeaderWriter } from './header-block.ts';
import { type Link, SpdyStream, WINDOW } from './stream.ts';

/** Open at a time: a browser behind a forwarded port has some dozens, and each of its connections is two. */
const MAX_STREAMS = 1000;
/** Answers that the peer asks for and does not read. */
const MAX_UNREAD_ANSWERS = 256 << 10;
const CLOSE_TIMEOUT_MS = 10_000;

export class SpdyConnection {
  readonly #transport: Duplex;
  readonly #accept: (stream: SpdyStream) => void;
  readonly #frames = new FrameReader();
  readonly #reader = new HeaderReader();
  readonly #writer = new HeaderWriter();
  readonly #streams = new Map<number, SpdyStream>();
  readonly #full = new Set<SpdyStream>();
  readonly #closed = Promise.withResolvers<void>();
  readonly #link: Link = {
    isWindowed: () => this.#isWindowed,
    reply: (id) => this.#answer(synReply(id, this.#writer.write(new Map()))),
    reset: (id, status) => this.#answer(rstStream(id, status)),
    taken: (id, bytes) => this.#answer(windowUpdate(id, bytes)),
    data: (id, bytes, fin, sent) => this.#send(id, bytes, fin, sent),
    hold: (stream, isFull) => this.#hold(stream, isFull),
    forget: (stream) => void this.#streams.delete(stream.id),
  };
  #lastId = 0;
  #unreadAnswers = 0;
  #isWindowed = false;
  #initialWindow = WINDOW;
  #isClosing = false;

  /** @param accept gets each stream, and has to `reply` or `refuse` */
  constructor(transport: Duplex, accept: (stream: SpdyStream) => void) {
    this.#transport = transport;
    this.#accept = accept;
    transport.on('data', (chunk: Buffer) => this.#read(chunk));
    transport.on('end', () => transport.destroy());
    transport.on('error', () => undefined);
    transport.on('close', () => this.#end());
  }

  /** Resolves when the connection is gone, for whatever reason. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Says goodbye, after what has been written, and lets go when the peer has taken it. */
  close(): void {
    this.#leave(GoAway.Ok);
  }

  destroy(): void {
    this.#transport.destroy();
  }

  #leave(status: GoAway): void {
    if (this.#isClosing) return;
    this.#isClosing = true;
    const transport = this.#transport;
    if (transport.destroyed) return;
    transport.write(goAway(this.#lastId, status));
    transport.end();
    // What the peer still sends is of no interest, its end is.
    this.#full.clear();
    transport.resume();
    const timer = setTimeout(() => transport.destroy(), CLOSE_TIMEOUT_MS);
    timer.unref();
    void this.closed.then(() => clearTimeout(timer));
  }

  #read(chunk: Buffer): void {
    if (this.#isClosing) return;
    try {
      for (const frame of this.#frames.read(chunk)) this.#handle(frame);
    } catch (error) {
      if (!(error instanceof FrameError || error instanceof HeaderBlockError)) throw error;
      this.#fail(messageOf(error));
    }
  }

  #handle(frame: Frame): void {
    switch (frame.kind) {
      case 'syn-stream':
        return this.#open(frame);
      case 'syn-reply':
        // To a stream that was never opened from here.
        this.#reader.read(frame.block);
        return this.#answer(rstStream(frame.id, Reset.InvalidStream));
      case 'headers':
        this.#reader.read(frame.block);
        if (frame.fin) this.#streams.get(frame.id)?.deliver(Buffer.alloc(0), true);
        return;
      case 'data':
        return this.#deliver(frame.id, frame.bytes, frame.fin);
      case 'rst-stream':
        return this.#streams.get(frame.id)?.abandon(new Error(`stream ${frame.id} was reset by the peer`));
      case 'settings':
        return this.#set(frame.settings.get(INITIAL_WINDOW_SIZE));
      case 'ping':
        // The numbers of those that a client asks with are odd; the others answer.
        return frame.id % 2 === 1 ? this.#answer(ping(frame.id)) : undefined;
      case 'window-update':
        this.#isWindowed = true;
        return this.#streams.get(frame.id)?.widen(frame.delta);
      case 'go-away':
        // Its streams go on until they have ended, and it closes.
        return;
    }
  }

  #open({ id, fin, unidirectional, block }: Extract<Frame, { kind: 'syn-stream' }>): void {
    const headers = this.#reader.read(block);
    if (id % 2 === 0 || id <= this.#lastId) {
      // Ids that come twice would mix up what belongs to whom (draft 3, section 2.3.2).
      return this.#fail(`stream ${id} after stream ${this.#lastId}`);
    }
    this.#lastId = id;
    if (this.#streams.size >= MAX_STREAMS) return this.#answer(rstStream(id, Reset.RefusedStream));
    const stream = new SpdyStream(this.#link, id, headers, this.#initialWindow);
    this.#streams.set(id, stream);
    if (unidirectional) stream.end();
    this.#accept(stream);
    if (fin) stream.deliver(Buffer.alloc(0), true);
  }

  #deliver(id: number, bytes: Buffer, fin: boolean): void {
    const stream = this.#streams.get(id);
    if (stream !== undefined) stream.deliver(bytes, fin);
    else if (id > this.#lastId || id % 2 === 0) this.#answer(rstStream(id, Reset.InvalidStream));
    // Else it was on its way when the stream was closed here.
  }

  #set(window: number | undefined): void {
    if (window === undefined) return;
    if (window > 0x7fff_ffff) throw new FrameError(`a window of ${window} bytes`);
    this.#isWindowed = true;
    // It holds for the streams that are open, too.
    for (const stream of this.#streams.values()) stream.widen(window - this.#initialWindow);
    this.#initialWindow = window;
  }

  #send(id: number, bytes: Buffer, fin: boolean, sent: (error?: Error | null) => void): void {
    const transport = this.#transport;
    if (transport.destroyed || this.#isClosing) return sent(new Error('the connection is closed'));
    transport.cork();
    transport.write(dataHeader(id, bytes.length, fin), bytes.length === 0 ? sent : undefined);
    if (bytes.length > 0) transport.write(bytes, sent);
    transport.uncork();
  }

  #answer(frame: Buffer): void {
    if (this.#transport.destroyed || this.#isClosing) return;
    this.#unreadAnswers += frame.length;
    if (this.#unreadAnswers > MAX_UNREAD_ANSWERS) return this.destroy();
    this.#transport.write(frame, () => {
      this.#unreadAnswers -= frame.length;
    });
  }

  /** One stream that nobody takes from holds up the others, as it does in Go: there is one wire, and no limit but its. */
  #hold(stream: SpdyStream, isFull: boolean): void {
    if (isFull) {
      this.#full.add(stream);
      this.#transport.pause();
    } else if (this.#full.delete(stream) && this.#full.size === 0 && !this.#transport.destroyed) {
      this.#transport.resume();
    }
  }

  #fail(reason: string): void {
    this.#leave(GoAway.ProtocolError);
    for (const stream of this.#streams.values()) stream.abandon(new Error(reason));
  }

  #end(): void {
    this.#isClosing = true;
    for (const stream of this.#streams.values()) stream.abandon(new Error('the connection was closed'));
    this.#closed.resolve();
  }
}
