/** What goes back to a caller: headers, messages, and at the end a status in trailers. */
import { Code, resourceExhausted } from '../../ttrpc/errors.ts';
import { frameHeader, HEADER_BYTES } from '../../grpc/frame.ts';
import { ErrorCode } from '../http2/frame.ts';
import { headerBlock } from '../http2/hpack/encoder.ts';
import type { Http2Stream } from '../http2/stream.ts';
import type { Status } from './status.ts';

const HEADERS = { ':status': '200', 'content-type': 'application/grpc' };

/** Said with Unimplemented, which is also the answer to an encoding that is not known (gRPC, "Compression"). */
const ACCEPTED = { 'grpc-accept-encoding': 'identity' };

const OPENING = headerBlock(HEADERS);
const SUCCESS = headerBlock({ 'grpc-status': '0' });

/** Below, moving the bytes behind their header costs less than sending the two one by one. */
const WORTH_TWO_WRITES = 8192;

/** Milliseconds that a caller which has been answered has to end its call. */
const END_AFTER = 1000;

export class Answer {
  readonly #stream: Http2Stream;
  readonly #limit: number;
  #isOpen = false;
  #isOver = false;

  /** @param limit bytes of one message at most */
  constructor(stream: Http2Stream, limit: number) {
    this.#stream = stream;
    this.#limit = limit;
  }

  /** Sends the headers, once. */
  open(): void {
    if (this.#isOpen || this.#isGone) return;
    this.#isOpen = true;
    this.#stream.respond(OPENING);
  }

  /**
   * Sends a message, whose memory is the stream's from now on.
   *
   * @param sent called when the kernel has it; not when the stream fails before
   * @returns false when the caller should be waited for, see `drained` of the stream
   * @throws RpcError ResourceExhausted for one beyond the limit
   */
  write(message: Uint8Array, sent?: () => void): boolean {
    const { length } = message;
    if (length > this.#limit)
      throw resourceExhausted(`trying to send message larger than max (${length} vs. ${this.#limit})`);
    this.open();
    if (this.#isGone) return true;
    const stream = this.#stream;
    const header = frameHeader(length);
    if (length < WORTH_TWO_WRITES)
      return stream.write(Buffer.concat([header, message], HEADER_BYTES + length), sent);
    stream.write(header);
    return stream.write(message, sent);
  }

  /** Ends in good order. */
  end(): void {
    if (this.#isGone) return;
    this.open();
    this.#close(SUCCESS);
  }

  /** Ends with a failure; nothing happens when it has ended. */
  fail({ code, details }: Status): void {
    if (this.#isGone) return;
    const trailers = { 'grpc-status': String(code), 'grpc-message': encodeURI(details) };
    if (this.#isOpen) return this.#close(headerBlock(trailers));
    this.#isOver = true;
    const accepted = code === Code.Unimplemented ? ACCEPTED : {};
    this.#stream.discard();
    this.#stream.respond(headerBlock({ ...HEADERS, ...accepted, ...trailers }), true);
    this.#dismiss();
  }

  #close(trailers: Buffer): void {
    this.#isOver = true;
    // What the caller still sends is not wanted, and must not fill its connection's window.
    this.#stream.discard();
    this.#stream.end(trailers, () => this.#dismiss());
  }

  /** Has a caller that goes on sending stop, as its call would stay open for as long as it liked. */
  #dismiss(): void {
    const stream = this.#stream;
    if (stream.hasAll || stream.isClosed) return;
    // Not at once: some callers let a reset overtake what has been sent. The code is that of a response which needs no more of its
    // request (RFC 9113, 8.1).
    const timer = setTimeout(() => stream.reset(ErrorCode.NoError), END_AFTER);
    stream.onClosed(() => clearTimeout(timer));
  }

  get #isGone(): boolean {
    return this.#isOver || this.#stream.isClosed;
  }
}
