/** Frames of SPDY/3 on the wire (draft 3, section 2.2 and following). */

/** Why what comes is no SPDY/3. Nothing that follows can be read then. */
export class FrameError extends Error {
  override readonly name = 'FrameError';
}

const VERSION = 3;
const HEADER = 8;
/** Control frames are read as a whole; those of Kubernetes have some hundred bytes. */
const MAX_CONTROL = 64 << 10;

const FIN = 0x01;
const UNIDIRECTIONAL = 0x02;

export const Type = {
  SynStream: 1,
  SynReply: 2,
  RstStream: 3,
  Settings: 4,
  Ping: 6,
  GoAway: 7,
  Headers: 8,
  WindowUpdate: 9,
} as const;

/** Why a stream is reset. */
export const Reset = {
  ProtocolError: 1,
  InvalidStream: 2,
  RefusedStream: 3,
  UnsupportedVersion: 4,
  Cancel: 5,
  InternalError: 6,
  FlowControlError: 7,
  StreamInUse: 8,
  StreamAlreadyClosed: 9,
} as const;
export type Reset = (typeof Reset)[keyof typeof Reset];

/** Why a side goes away. */
export const GoAway = { Ok: 0, ProtocolError: 1, InternalError: 2 } as const;
export type GoAway = (typeof GoAway)[keyof typeof GoAway];

/** The one setting of a peer that matters here. */
export const INITIAL_WINDOW_SIZE = 7;

/** A frame as it was read. `block` is compressed still: all blocks have to be read in their order. */
export type Frame =
  | {
      readonly kind: 'syn-stream';
      readonly id: number;
      readonly fin: boolean;
      readonly unidirectional: boolean;
      readonly block: Buffer;
    }
  | { readonly kind: 'syn-reply'; readonly id: number; readonly fin: boolean; readonly block: Buffer }
  | { readonly kind: 'headers'; readonly id: number; readonly fin: boolean; readonly block: Buffer }
  | { readonly kind: 'rst-stream'; readonly id: number; readonly status: number }
  | { readonly kind: 'settings'; readonly settings: ReadonlyMap<number, number> }
  | { readonly kind: 'ping'; readonly id: number }
  | { readonly kind: 'go-away'; readonly lastId: number; readonly status: number }
  | { readonly kind: 'window-update'; readonly id: number; readonly delta: number }
  /** A part of a data frame; `fin` with its last one. */
  | { readonly kind: 'data'; readonly id: number; readonly fin: boolean; readonly bytes: Buffer };

interface PartialData {
  readonly id: number;
  readonly fin: boolean;
  left: number;
}

/** Cuts what comes into frames. Data is handed on as it comes, so that nobody has to hold 16 MiB of a frame. */
export class FrameReader {
  #held: Buffer = Buffer.alloc(0);
  /** Of a data frame that is not all there. */
  #data: PartialData | undefined;

  /** @throws FrameError */
  *read(chunk: Buffer): Generator<Frame, void, void> {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    for (;;) {
      const frame = this.#data === undefined ? this.#next() : this.#dataOf(this.#data);
      if (frame === undefined) return;
      if (frame !== 'more') yield frame;
    }
  }

  /** @returns undefined when more has to come */
  #next(): Frame | 'more' | undefined {
    const held = this.#held;
    if (held.length < HEADER) return undefined;
    const first = held.readUInt32BE(0);
    const flags = held[4]!;
    const length = held.readUIntBE(5, 3);
    if (first < 0x8000_0000) {
      if (first === 0) throw new FrameError('data for stream 0');
      this.#held = held.subarray(HEADER);
      this.#data = { id: first, fin: (flags & FIN) !== 0, left: length };
      return 'more';
    }
    const version = (first >>> 16) & 0x7fff;
    if (version !== VERSION) throw new FrameError(`a frame of version ${version}`);
    if (length > MAX_CONTROL) throw new FrameError(`a control frame of ${length} bytes`);
    if (held.length < HEADER + length) return undefined;
    this.#held = held.subarray(HEADER + length);
    return control(first & 0xffff, flags, held.subarray(HEADER, HEADER + length)) ?? 'more';
  }

  #dataOf(data: PartialData): Frame | undefined {
    if (this.#held.length === 0 && data.left > 0) return undefined;
    const bytes = this.#held.subarray(0, data.left);
    this.#held = this.#held.subarray(bytes.length);
    data.left -= bytes.length;
    if (data.left === 0) this.#data = undefined;
    return { kind: 'data', id: data.id, fin: data.fin && data.left === 0, bytes };
  }
}

/** @returns undefined for a type that is not known, which has to be ignored (section 2.2.1) */
function control(type: number, flags: number, body: Buffer): Frame | undefined {
  const fin = (flags & FIN) !== 0;
  const need = (length: number): void => {
    if (body.length < length)
      throw new FrameError(`a control frame of type ${type} with ${body.length} bytes`);
  };
  const id = (offset = 0): number => body.readUInt32BE(offset) & 0x7fff_ffff;
  switch (type) {
    case Type.SynStream: {
      need(10);
      const unidirectional = (flags & UNIDIRECTIONAL) !== 0;
      return { kind: 'syn-stream', id: id(), fin, unidirectional, block: body.subarray(10) };
    }
    case Type.SynReply:
      need(4);
      return { kind: 'syn-reply', id: id(), fin, block: body.subarray(4) };
    case Type.Headers:
      need(4);
      return { kind: 'headers', id: id(), fin, block: body.subarray(4) };
    case Type.RstStream:
      need(8);
      return { kind: 'rst-stream', id: id(), status: body.readUInt32BE(4) };
    case Type.Settings:
      need(4);
      return { kind: 'settings', settings: settingsOf(body, need) };
    case Type.Ping:
      need(4);
      return { kind: 'ping', id: body.readUInt32BE(0) };
    case Type.GoAway:
      need(8);
      return { kind: 'go-away', lastId: id(), status: body.readUInt32BE(4) };
    case Type.WindowUpdate:
      need(8);
      return { kind: 'window-update', id: id(), delta: id(4) };
    default:
      return undefined;
  }
}

function settingsOf(body: Buffer, need: (length: number) => void): Map<number, number> {
  const count = body.readUInt32BE(0);
  need(4 + count * 8);
  const settings = new Map<number, number>();
  for (let offset = 4; offset < 4 + count * 8; offset += 8)
    settings.set(body.readUIntBE(offset + 1, 3), body.readUInt32BE(offset + 4));
  return settings;
}

export function synReply(id: number, block: Buffer): Buffer {
  return frame(Type.SynReply, 0, [id], block);
}

export function rstStream(id: number, status: Reset): Buffer {
  return frame(Type.RstStream, 0, [id, status]);
}

export function ping(id: number): Buffer {
  return frame(Type.Ping, 0, [id]);
}

export function goAway(lastId: number, status: GoAway): Buffer {
  return frame(Type.GoAway, 0, [lastId, status]);
}

export function windowUpdate(id: number, delta: number): Buffer {
  return frame(Type.WindowUpdate, 0, [id, delta]);
}

/** The header of a data frame; its bytes follow. */
export function dataHeader(id: number, length: number, fin: boolean): Buffer {
  const header = Buffer.alloc(HEADER);
  header.writeUInt32BE(id);
  header.writeUInt32BE(((fin ? FIN : 0) * 0x100_0000 + length) >>> 0, 4);
  return header;
}

function frame(
  type: number,
  flags: number,
  words: readonly number[],
  rest: Buffer = Buffer.alloc(0),
): Buffer {
  const length = words.length * 4 + rest.length;
  const head = Buffer.alloc(HEADER + words.length * 4);
  head.writeUInt32BE((0x8000_0000 + (VERSION << 16) + type) >>> 0);
  head.writeUInt32BE((flags * 0x100_0000 + length) >>> 0, 4);
  for (const [index, value] of words.entries()) head.writeUInt32BE(value >>> 0, HEADER + index * 4);
  return Buffer.concat([head, rest]);
}
