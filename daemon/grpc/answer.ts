/** What goes back to a caller: headers, messages, and at the end a status in trailers. */
import { type ServerHttp2Stream, constants } from 'node:http2';
import { Code, resourceExhausted } from '../../ttrpc/errors.ts';
import { frameHeader, HEADER_BYTES } from '../../grpc/frame.ts';
import type { Status } from './status.ts';

const HEADERS = { ':status': 200, 'content-type': 'application/grpc' } as const;

/** Said with Unimplemented, which is also the answer to an encoding that is not known (gRPC, "Compression"). */
const ACCEPTED = { 'grpc-accept-encoding': 'identity' } as const;

/** Below, moving the bytes behind their header costs less than sending the two one by one. */
const WORTH_TWO_WRITES = 8192;

/** Milliseconds that a caller which has been answered has to end its call. */
const END_AFTER = 1000;

export class Answer {
  readonly #stream: ServerHttp2Stream;
  readonly #limit: number;
  #isOpen = false;
  #isOver = false;
  #trailers: Record<string, string> = { 'grpc-status': '0' };

  /** @param limit bytes of one message at most */
  constructor(stream: ServerHttp2Stream, limit: number) {
    this.#stream = stream;
    this.#limit = limit;
  }

  /** Sends the headers, once. */
  open(): void {
    if (this.#isOpen || this.#isGone) return;
    this.#isOpen = true;
    const stream = this.#stream;
    stream.respond(HEADERS, { waitForTrailers: true });
    stream.once('wantTrailers', () => {
      if (stream.destroyed) return;
      stream.sendTrailers(this.#trailers);
      this.#dismiss();
    });
  }

  /**
   * Sends a message, whose memory is the stream's from now on.
   *
   * @param sent called when the kernel has it; not when the stream fails before
   * @returns false when the caller should be waited for, which `drain` of the stream ends
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
    const written = sent && ((error?: Error | null) => void (error ?? sent()));
    if (length < WORTH_TWO_WRITES)
      return stream.write(Buffer.concat([header, message], HEADER_BYTES + length), written);
    stream.cork();
    stream.write(header);
    const goesOn = stream.write(message, written);
    stream.uncork();
    return goesOn;
  }

  /** Ends in good order. */
  end(): void {
    if (this.#isGone) return;
    this.open();
    this.#close();
  }

  /** Ends with a failure; nothing happens when it has ended. */
  fail({ code, details }: Status): void {
    if (this.#isGone) return;
    this.#trailers = { 'grpc-status': String(code), 'grpc-message': encodeURI(details) };
    if (this.#isOpen) return this.#close();
    this.#isOver = true;
    const accepted = code === Code.Unimplemented ? ACCEPTED : {};
    this.#stream.respond({ ...HEADERS, ...accepted, ...this.#trailers }, { endStream: true });
    this.#stream.resume();
    this.#dismiss();
  }

  #close(): void {
    this.#isOver = true;
    this.#stream.end();
    // What the caller still sends is not wanted, and must not fill its connection's window.
    this.#stream.resume();
  }

  /** Has a caller that goes on sending stop, as its call would stay open for as long as it liked. */
  #dismiss(): void {
    const stream = this.#stream;
    if (stream.readableEnded || stream.destroyed) return;
    // Not at once: a reset overtakes what has yet to be sent. The code is that of a response which needs no more of its
    // request (RFC 9113, 8.1).
    const timer = setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), END_AFTER);
    stream.once('close', () => clearTimeout(timer));
  }

  get #isGone(): boolean {
    return this.#isOver || this.#stream.destroyed || this.#stream.closed;
  }
}
