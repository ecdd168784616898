/**
 * Frames: what is on the wire before any message is understood. See PROTOCOL.md.
 *
 *     length u32 BE | stream u32 BE | type u8 | flags u8 | length bytes
 */
import { resourceExhausted, RpcError, Code } from './errors.ts';

export const HEADER_BYTES = 10;

/** The most that may follow a header, in bytes; both ways. */
export const MAX_FRAME_BYTES = 4 << 20;

export const FrameType = { Request: 1, Response: 2, Data: 3 } as const;

export const Flag = {
  None: 0,
  /** The sender will send nothing more on this stream. */
  RemoteClosed: 1,
  /** The sender has more to send on this stream. */
  RemoteOpen: 2,
  /** The frame carries no message. An empty message is an empty frame without this flag. */
  NoData: 4,
} as const;

export type FrameHandler = (stream: number, type: number, flags: number, payload: Uint8Array) => void;

/** The peer broke the framing; nothing after this point of the connection can be understood. */
export class FrameError extends RpcError {
  /** The stream of the frame that was refused, when its header was read. */
  readonly stream: number | undefined;

  constructor(message: string, stream?: number) {
    super(stream === undefined ? Code.DataLoss : Code.ResourceExhausted, message);
    this.stream = stream;
  }
}

/**
 * Writes the header into the ten bytes that `frame` begins with.
 * @throws RpcError ResourceExhausted when the rest is larger than a frame may be.
 */
export function sealFrame(frame: Uint8Array, stream: number, type: number, flags: number): Uint8Array {
  const length = frame.length - HEADER_BYTES;
  if (length > MAX_FRAME_BYTES) {
    throw resourceExhausted(`message of ${length} bytes exceeds the limit of ${MAX_FRAME_BYTES}`);
  }
  frame[0] = length >>> 24;
  frame[1] = length >>> 16;
  frame[2] = length >>> 8;
  frame[3] = length;
  frame[4] = stream >>> 24;
  frame[5] = stream >>> 16;
  frame[6] = stream >>> 8;
  frame[7] = stream;
  frame[8] = type;
  frame[9] = flags;
  return frame;
}

function readU32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/**
 * Finds the frames in a byte stream that comes in arbitrary pieces.
 *
 * A payload that lies within one piece is handed on as a view of it; only one that spans pieces is copied, once.
 */
export class FrameDecoder {
  readonly #handler: FrameHandler;
  readonly #header = new Uint8Array(HEADER_BYTES);
  #headerFill = 0;
  #payload: Uint8Array | undefined;
  #payloadFill = 0;
  #stopped = false;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** Hands nothing more to the handler, not even what is left of the current piece. */
  stop(): void {
    this.#stopped = true;
    this.#payload = undefined;
  }

  /** @throws FrameError when a frame is larger than allowed; the decoder is stopped then. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (this.#payload !== undefined) {
        at = this.#fill(this.#payload, chunk, at);
      } else if (this.#headerFill === 0 && chunk.length - at >= HEADER_BYTES) {
        at = this.#begin(chunk, at, chunk, at + HEADER_BYTES);
      } else {
        const taken = Math.min(HEADER_BYTES - this.#headerFill, chunk.length - at);
        this.#header.set(chunk.subarray(at, at + taken), this.#headerFill);
        this.#headerFill += taken;
        at += taken;
        if (this.#headerFill === HEADER_BYTES) at = this.#begin(this.#header, 0, chunk, at);
      }
    }
  }

  /** @throws FrameError when the stream of bytes has ended inside a frame. */
  end(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    if (this.#headerFill > 0 || this.#payload !== undefined) {
      throw new FrameError('connection ended inside a frame');
    }
  }

  /** A header is complete: hands the payload on if it is all here. Answers where to go on in `chunk`. */
  #begin(header: Uint8Array, headerAt: number, chunk: Uint8Array, at: number): number {
    const length = readU32(header, headerAt);
    const stream = readU32(header, headerAt + 4);
    if (length > MAX_FRAME_BYTES) {
      this.stop();
      throw new FrameError(`frame of ${length} bytes exceeds the limit of ${MAX_FRAME_BYTES}`, stream);
    }
    if (chunk.length - at >= length) {
      this.#headerFill = 0;
      const end = at + length;
      this.#handler(stream, header[headerAt + 8]!, header[headerAt + 9]!, chunk.subarray(at, end));
      return end;
    }
    if (header !== this.#header) this.#header.set(header.subarray(headerAt, headerAt + HEADER_BYTES));
    this.#headerFill = HEADER_BYTES;
    this.#payload = new Uint8Array(length);
    this.#payloadFill = 0;
    return at;
  }

  #fill(payload: Uint8Array, chunk: Uint8Array, at: number): number {
    const end = at + Math.min(payload.length - this.#payloadFill, chunk.length - at);
    payload.set(chunk.subarray(at, end), this.#payloadFill);
    this.#payloadFill += end - at;
    if (this.#payloadFill === payload.length) {
      this.#payload = undefined;
      this.#headerFill = 0;
      this.#handler(readU32(this.#header, 4), this.#header[8]!, this.#header[9]!, payload);
    }
    return end;
  }
}
