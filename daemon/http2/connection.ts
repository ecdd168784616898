/** One connection, from the serving side (RFC 9113). */
import type { Socket } from 'node:net';
import {
  ConnectionError,
  ErrorCode,
  Flag,
  FrameCutter,
  frameHead,
  FrameType,
  numbersFrame,
  readNumber,
  StreamError,
  unpadded,
} from './frame.ts';
import { HeaderDecoder } from './hpack/decoder.ts';
import { NO_TABLE } from './hpack/encoder.ts';
import { Output } from './output.ts';
import { RequestHeaders } from './request-headers.ts';
import { DEFAULT_WINDOW, PeerSettings, settingsFrame } from './settings.ts';
import { Http2Stream, LARGEST_WINDOW, type Link } from './stream.ts';

export interface ConnectionOptions {
  readonly maxConcurrentStreams: number;
  /** Bytes that the peer may send on one stream, and on all, before they are read. */
  readonly streamWindow: number;
  readonly connectionWindow: number;
  /** A request's headers are there. */
  readonly onStream: (stream: Http2Stream) => void;
  /** The peer has broken the rules, or the socket has failed. */
  readonly onError: (error: Error) => void;
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** Bytes of a packed block of headers at most. */
const MOST_HEADER_BYTES = 128 << 10;

/** A peer that leaves this much unread is not read from until it has taken it. */
const MOST_BACKLOG = 1 << 20;

/** Milliseconds for a peer to hear why its connection ends. */
const GOODBYE_MS = 500;

/** What stands before the block in a frame of headers: a stream that it depends on, and a weight. Nobody uses them any more. */
const PRIORITY_BYTES = 5;

/** Headers whose end has not come. */
interface Unfinished {
  readonly stream: number;
  readonly isLast: boolean;
  readonly blocks: Buffer[];
  bytes: number;
}

export class Connection implements Link {
  readonly socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #output: Output;
  readonly #decoder = new HeaderDecoder();
  readonly #settings = new PeerSettings();
  readonly #cutter = new FrameCutter((type, flags, stream, payload) =>
    this.#frame(type, flags, stream, payload),
  );
  readonly #streams = new Map<number, Http2Stream>();
  /** Streams with something to send that the connection has no room for. */
  readonly #waiting = new Set<Http2Stream>();
  #isPumping = false;
  /** Bytes of the preface that are there; all of it once there are settings. */
  #greeted = 0;
  #hasSettings = false;
  #unfinished: Unfinished | undefined;
  /** The latest stream that has been opened, and the latest that was not refused. */
  #opened = 0;
  #last = 0;
  /** What the peer may still send, and what is read without its having been told. */
  #allowed: number;
  #owed = 0;
  /** What we may send. */
  #window = DEFAULT_WINDOW;
  #isDraining = false;
  #isOver = false;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.socket = socket;
    this.#options = options;
    this.#output = new Output(socket, () => this.#pumpAll());
    this.#allowed = options.connectionWindow;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('drain', () => socket.resume());
    socket.on('error', (error) => options.onError(error));
    socket.once('close', () => {
      this.#isOver = true;
      for (const stream of this.#streams.values()) stream.cut();
    });
    this.#output.push(settingsFrame(options.maxConcurrentStreams, options.streamWindow));
    this.sendCredit(0, options.connectionWindow - DEFAULT_WINDOW);
  }

  /** Takes no more requests, and ends when those in progress have been answered. */
  drain(): void {
    if (this.#isDraining || this.#isOver) return;
    this.#isDraining = true;
    this.#output.push(numbersFrame(FrameType.GoAway, 0, this.#last, ErrorCode.NoError));
    this.#endWhenIdle();
  }

  // ---- for its streams ----

  get room(): number {
    if (this.#isOver || !this.#output.hasRoom) return 0;
    return Math.min(this.#window, this.#settings.maxFrame);
  }

  pump(stream: Http2Stream): void {
    this.#waiting.add(stream);
    this.#pumpAll();
  }

  sendHeaders(stream: number, block: Buffer, isLast: boolean): void {
    let whole = block;
    if (this.#settings.hasSmallerTable) {
      this.#settings.hasSmallerTable = false;
      whole = Buffer.concat([NO_TABLE, block]);
    }
    const { maxFrame } = this.#settings;
    for (let at = 0; at === 0 || at < whole.length; at += maxFrame) {
      const piece = whole.subarray(at, at + maxFrame);
      const type = at === 0 ? FrameType.Headers : FrameType.Continuation;
      const end = at + maxFrame >= whole.length ? Flag.EndHeaders : 0;
      const last = isLast && at === 0 ? Flag.EndStream : 0;
      this.#output.push(frameHead(type, end | last, stream, piece.length));
      this.#output.push(piece);
    }
  }

  sendData(stream: number, data: Uint8Array, sent?: () => void): void {
    this.#window -= data.length;
    this.#output.push(frameHead(FrameType.Data, 0, stream, data.length));
    this.#output.push(data, sent);
  }

  sendReset(stream: number, code: ErrorCode): void {
    if (!this.#isOver) this.#output.push(numbersFrame(FrameType.RstStream, stream, code));
  }

  sendCredit(stream: number, bytes: number): void {
    this.#output.push(numbersFrame(FrameType.WindowUpdate, stream, bytes));
  }

  consumed(bytes: number): void {
    this.#owed += bytes;
    if (this.#isOver || this.#owed < this.#options.connectionWindow / 2) return;
    this.#allowed += this.#owed;
    this.sendCredit(0, this.#owed);
    this.#owed = 0;
  }

  forget(stream: Http2Stream): void {
    this.#streams.delete(stream.id);
    this.#waiting.delete(stream);
    this.#endWhenIdle();
  }

  // ---- sending ----

  /** A frame of each stream in turn, for as long as there is room. */
  #pumpAll(): void {
    // What is sent may have others woken, who write and come back here.
    if (this.#isPumping) return;
    this.#isPumping = true;
    for (let goesOn = true; goesOn;) {
      goesOn = false;
      for (const stream of this.#waiting) {
        const sending = stream.sendFrame();
        if (sending === 'done') this.#waiting.delete(stream);
        if (sending === 'sent') goesOn = true;
      }
    }
    this.#isPumping = false;
  }

  #endWhenIdle(): void {
    if (!this.#isDraining || this.#isOver || this.#streams.size > 0) return;
    this.#isOver = true;
    this.#output.flush();
    this.socket.end();
  }

  // ---- receiving ----

  #read(chunk: Buffer): void {
    if (this.#isOver) return;
    try {
      this.#cutter.push(this.#greeted < PREFACE.length ? this.#greet(chunk) : chunk);
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      this.#fail(error);
    }
    if (this.#output.backlog > MOST_BACKLOG) this.socket.pause();
  }

  /** Returns what stands behind the preface. */
  #greet(chunk: Buffer): Buffer {
    const length = Math.min(PREFACE.length - this.#greeted, chunk.length);
    if (PREFACE.compare(chunk, 0, length, this.#greeted, this.#greeted + length) !== 0)
      throw new ConnectionError(ErrorCode.ProtocolError, 'no HTTP/2');
    this.#greeted += length;
    return chunk.subarray(length);
  }

  #fail(error: ConnectionError): void {
    this.#isOver = true;
    this.#options.onError(error);
    this.#output.push(numbersFrame(FrameType.GoAway, 0, this.#last, error.code));
    this.#output.flush();
    this.socket.resume();
    this.socket.end();
    const timer = setTimeout(() => this.socket.destroy(), GOODBYE_MS);
    this.socket.once('close', () => clearTimeout(timer));
    for (const stream of this.#streams.values()) stream.cut();
  }

  #frame(type: number, flags: number, stream: number, payload: Buffer): void {
    if (!this.#hasSettings && (type !== FrameType.Settings || (flags & Flag.Ack) !== 0))
      throw violation('something before the settings');
    if (this.#unfinished !== undefined && type !== FrameType.Continuation)
      throw violation('something between headers and their end');
    switch (type) {
      case FrameType.Data:
        return this.#data(flags, stream, payload);
      case FrameType.Headers:
        return this.#headers(flags, stream, payload);
      case FrameType.Continuation:
        return this.#continuation(flags, stream, payload);
      case FrameType.RstStream:
        return this.#reset(stream, payload);
      case FrameType.Settings:
        return this.#applySettings(flags, stream, payload);
      case FrameType.Ping:
        return this.#ping(flags, stream, payload);
      case FrameType.WindowUpdate:
        return this.#grant(stream, payload);
      case FrameType.PushPromise:
        throw violation('a promise to a server');
      // Priorities are for nobody any more, and a client's goodbye changes nothing: it opens no more streams.
      default:
    }
  }

  #data(flags: number, id: number, payload: Buffer): void {
    this.#demandOpened(id);
    this.#allowed -= payload.length;
    if (this.#allowed < 0) throw new ConnectionError(ErrorCode.FlowControlError, 'data beyond the window');
    const data = unpadded(flags, payload);
    const stream = this.#streams.get(id);
    // What crossed with our last word.
    if (stream === undefined) return this.consumed(payload.length);
    this.#orReset(stream, () => {
      stream.receive(data, payload.length);
      if ((flags & Flag.EndStream) !== 0) stream.receiveEnd();
    });
  }

  #headers(flags: number, stream: number, payload: Buffer): void {
    if (stream % 2 === 0) throw violation('headers of a stream that no client opens');
    let block = unpadded(flags, payload);
    if ((flags & Flag.Priority) !== 0) {
      if (block.length < PRIORITY_BYTES)
        throw new ConnectionError(ErrorCode.FrameSizeError, 'half a priority');
      block = block.subarray(PRIORITY_BYTES);
    }
    const isLast = (flags & Flag.EndStream) !== 0;
    if ((flags & Flag.EndHeaders) !== 0) return this.#open(stream, isLast, block);
    this.#unfinished = { stream, isLast, blocks: [Buffer.from(block)], bytes: block.length };
  }

  #continuation(flags: number, stream: number, payload: Buffer): void {
    const unfinished = this.#unfinished;
    if (unfinished?.stream !== stream) throw violation('more of headers that have ended');
    unfinished.bytes += payload.length;
    // An empty one costs its sender nine bytes, and us more.
    const isEndless = payload.length === 0 && (flags & Flag.EndHeaders) === 0;
    if (unfinished.bytes > MOST_HEADER_BYTES || isEndless)
      throw new ConnectionError(ErrorCode.EnhanceYourCalm, 'headers that do not end');
    unfinished.blocks.push(Buffer.from(payload));
    if ((flags & Flag.EndHeaders) === 0) return;
    this.#unfinished = undefined;
    this.#open(stream, unfinished.isLast, Buffer.concat(unfinished.blocks));
  }

  /** A block of headers is whole: a request, or what may stand behind its data. It is read in any case, as others build on it. */
  #open(id: number, isLast: boolean, block: Buffer): void {
    const headers = new RequestHeaders();
    this.#decoder.decode(block, (name, value) => headers.add(name, value));
    const known = this.#streams.get(id);
    if (known !== undefined) {
      if (isLast) known.receiveEnd();
      else known.reset(ErrorCode.ProtocolError);
      return;
    }
    // Of a stream that has been closed, by us perhaps a moment ago.
    if (id <= this.#opened) return;
    this.#opened = id;
    if (this.#isDraining || this.#streams.size >= this.#options.maxConcurrentStreams)
      return this.sendReset(id, ErrorCode.RefusedStream);
    this.#last = id;
    const windows = { ours: this.#options.streamWindow, theirs: this.#settings.initialWindow };
    const stream = new Http2Stream(id, headers, this, windows);
    this.#streams.set(id, stream);
    this.#orReset(stream, () => {
      headers.complete();
      this.#options.onStream(stream);
      if (isLast) stream.receiveEnd();
    });
  }

  #reset(id: number, payload: Buffer): void {
    demandLength(payload, 4);
    this.#demandOpened(id);
    this.#streams.get(id)?.cut();
  }

  #applySettings(flags: number, stream: number, payload: Buffer): void {
    if (stream !== 0) throw violation('settings of a stream');
    if ((flags & Flag.Ack) !== 0) return demandLength(payload, 0);
    this.#hasSettings = true;
    const before = this.#settings.initialWindow;
    this.#settings.apply(payload);
    // First, as the peer goes by its former settings until it has this.
    this.#output.push(frameHead(FrameType.Settings, Flag.Ack, 0, 0));
    const more = this.#settings.initialWindow - before;
    if (more !== 0) for (const open of this.#streams.values()) this.#orReset(open, () => open.grant(more));
  }

  #ping(flags: number, stream: number, payload: Buffer): void {
    if (stream !== 0) throw violation('a ping of a stream');
    demandLength(payload, 8);
    if ((flags & Flag.Ack) !== 0) return;
    this.#output.push(frameHead(FrameType.Ping, Flag.Ack, 0, payload.length));
    this.#output.push(Buffer.from(payload));
  }

  #grant(id: number, payload: Buffer): void {
    demandLength(payload, 4);
    const bytes = readNumber(payload, 0);
    if (id !== 0) {
      this.#demandOpened(id);
      const stream = this.#streams.get(id);
      if (stream === undefined) return;
      if (bytes === 0) stream.reset(ErrorCode.ProtocolError);
      else this.#orReset(stream, () => stream.grant(bytes));
      return;
    }
    if (bytes === 0) throw violation('nothing added to the window');
    this.#window += bytes;
    if (this.#window > LARGEST_WINDOW)
      throw new ConnectionError(ErrorCode.FlowControlError, 'a window beyond all bounds');
    this.#pumpAll();
  }

  #demandOpened(id: number): void {
    if (id === 0 || id % 2 === 0 || id > this.#opened)
      throw violation(`a frame of stream ${id}, which is none`);
  }

  #orReset(stream: Http2Stream, action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof StreamError)) throw error;
      stream.reset(error.code);
    }
  }
}

const violation = (what: string): ConnectionError => new ConnectionError(ErrorCode.ProtocolError, what);

function demandLength(payload: Buffer, length: number): void {
  if (payload.length !== length)
    throw new ConnectionError(ErrorCode.FrameSizeError, `${payload.length} bytes where ${length} belong`);
}
