/** Messages on a stream of bytes: a byte for compression, four for the length, the message (gRPC over HTTP2, "Length-Prefixed-Message"). */
import { invalidArgument, resourceExhausted, unimplemented } from '../ttrpc/errors.ts';

export const HEADER_BYTES = 5;

/** The header of a message that is so long, and not compressed. */
export function frameHeader(length: number): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  header[0] = 0;
  header.writeUInt32BE(length, 1);
  return header;
}

/** Bytes of a chunk that is worth an object of its own. */
const SMALL = 4096;

const EMPTY = Buffer.alloc(0);

/** Cuts what arrives into messages. */
export class FrameReader {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #length = 0;
  /** Bytes that the next step takes: a header, or the message it has announced. */
  #wanted = HEADER_BYTES;
  #inMessage = false;

  /** @param limit bytes of one message at most */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * @returns the messages that are complete now; they may share the chunk's memory
   * @throws RpcError ResourceExhausted for one beyond the limit, Unimplemented for a compressed one
   */
  push(chunk: Buffer): Buffer[] {
    const messages: Buffer[] = [];
    this.#keep(chunk);
    this.#length += chunk.length;
    while (this.#length >= this.#wanted) {
      const bytes = this.#take(this.#wanted);
      if (this.#inMessage) messages.push(bytes);
      this.#wanted = this.#inMessage ? HEADER_BYTES : this.#announced(bytes);
      this.#inMessage = !this.#inMessage;
    }
    return messages;
  }

  /** @throws RpcError InvalidArgument when the stream ends in the middle of a message */
  end(): void {
    if (this.#length > 0 || this.#inMessage)
      throw invalidArgument('the stream ended in the middle of a message: invalid argument');
  }

  #announced(header: Buffer): number {
    if (header[0] !== 0) throw unimplemented('compressed messages are not understood: not implemented');
    const length = header.readUInt32BE(1);
    if (length > this.#limit)
      throw resourceExhausted(`received message larger than max (${length} vs. ${this.#limit})`);
    return length;
  }

  /** Small pieces are joined with their equals, or a message that comes byte by byte would take a hundred times its size. */
  #keep(chunk: Buffer): void {
    const chunks = this.#chunks;
    let last = chunk;
    for (let before = chunks.at(-1); before !== undefined; before = chunks.at(-1)) {
      if (last.length >= SMALL || before.length > last.length) break;
      chunks.pop();
      last = Buffer.concat([before, last]);
    }
    chunks.push(last);
  }

  #take(count: number): Buffer {
    const [first = EMPTY] = this.#chunks;
    // Joined only when all of a message is there, so that no byte is moved twice.
    const whole = first.length >= count ? first : Buffer.concat(this.#chunks, this.#length);
    if (whole !== first) this.#chunks = [whole];
    if (whole.length > count) this.#chunks[0] = whole.subarray(count);
    else this.#chunks.shift();
    this.#length -= count;
    return whole.subarray(0, count);
  }
}
