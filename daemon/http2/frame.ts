/** Frames of HTTP/2 (RFC 9113, sections 4 and 6). */

export const FrameType = {
  Data: 0,
  Headers: 1,
  Priority: 2,
  RstStream: 3,
  Settings: 4,
  PushPromise: 5,
  Ping: 6,
  GoAway: 7,
  WindowUpdate: 8,
  Continuation: 9,
} as const;

export const Flag = { EndStream: 0x1, Ack: 0x1, EndHeaders: 0x4, Padded: 0x8, Priority: 0x20 } as const;

/** Why a stream or a connection ends (RFC 9113, section 7). */
export const ErrorCode = {
  NoError: 0,
  ProtocolError: 1,
  FlowControlError: 3,
  StreamClosed: 5,
  FrameSizeError: 6,
  RefusedStream: 7,
  CompressionError: 9,
  EnhanceYourCalm: 11,
} as const;

export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];

/** A peer has broken the rules, and its connection with them. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** A peer has broken the rules of one stream, which ends by that. */
export class StreamError extends Error {
  override readonly name = 'StreamError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export const FRAME_HEADER_BYTES = 9;

/** Bytes of a payload that either side takes unless it has said otherwise, and the most that it may say. */
export const DEFAULT_FRAME_BYTES = 16_384;
export const LARGEST_FRAME_BYTES = 0xff_ff_ff;

/** The highest bit of a stream's number, and of what is added to a window, is reserved. */
const RESERVED = 0x7f_ff_ff_ff;

/** A frame's first nine bytes. */
export function frameHead(type: number, flags: number, stream: number, length: number): Buffer {
  const head = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  head.writeUIntBE(length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return head;
}

/** A frame whose payload is numbers of four bytes. */
export function numbersFrame(type: number, stream: number, ...numbers: number[]): Buffer {
  const payload = Buffer.allocUnsafe(4 * numbers.length);
  numbers.forEach((number, index) => payload.writeUInt32BE(number, 4 * index));
  return Buffer.concat([frameHead(type, 0, stream, payload.length), payload]);
}

/** A number of 31 bits, whatever the highest one says. */
export const readNumber = (payload: Buffer, at: number): number => payload.readUInt32BE(at) & RESERVED;

export type TakeFrame = (type: number, flags: number, stream: number, payload: Buffer) => void;

/** Cuts what arrives into frames. */
export class FrameCutter {
  readonly #take: TakeFrame;
  readonly #head = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  #headLength = 0;
  /** Of a frame that comes in pieces: what there is of it, once its head is whole. */
  #payload: Buffer | undefined;
  #payloadLength = 0;

  constructor(take: TakeFrame) {
    this.#take = take;
  }

  /** @throws ConnectionError for a frame beyond the size of frames; what `take` throws */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payload === undefined) {
        at += this.#fillHead(chunk, at);
        if (this.#headLength < FRAME_HEADER_BYTES) return;
      }
      at += this.#fillPayload(chunk, at);
    }
  }

  #fillHead(chunk: Buffer, at: number): number {
    const count = Math.min(FRAME_HEADER_BYTES - this.#headLength, chunk.length - at);
    chunk.copy(this.#head, this.#headLength, at, at + count);
    this.#headLength += count;
    return count;
  }

  /** The payload shares the chunk's memory where it is in there as a whole. Returns how many bytes were taken. */
  #fillPayload(chunk: Buffer, at: number): number {
    const length = this.#head.readUIntBE(0, 3);
    if (length > DEFAULT_FRAME_BYTES)
      throw new ConnectionError(ErrorCode.FrameSizeError, `a frame of ${length} bytes`);
    if (this.#payload === undefined && chunk.length - at >= length) {
      this.#deliver(chunk.subarray(at, at + length));
      return length;
    }
    this.#payload ??= Buffer.allocUnsafe(length);
    const count = Math.min(length - this.#payloadLength, chunk.length - at);
    chunk.copy(this.#payload, this.#payloadLength, at, at + count);
    this.#payloadLength += count;
    if (this.#payloadLength === length) this.#deliver(this.#payload);
    return count;
  }

  #deliver(payload: Buffer): void {
    this.#payload = undefined;
    this.#payloadLength = 0;
    this.#headLength = 0;
    this.#take(this.#head[3]!, this.#head[4]!, readNumber(this.#head, 5), payload);
  }
}

/** Takes the padding off, if there is any. @throws ConnectionError when there is more of it than bytes */
export function unpadded(flags: number, payload: Buffer): Buffer {
  if ((flags & Flag.Padded) === 0) return payload;
  const [padding] = payload;
  if (padding === undefined || padding >= payload.length)
    throw new ConnectionError(ErrorCode.ProtocolError, 'more padding than bytes');
  return payload.subarray(1, payload.length - padding);
}
