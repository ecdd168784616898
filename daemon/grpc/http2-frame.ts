/** Frames of HTTP/2 as they come over a connection (RFC 9113, sections 4.1 and 6). */

export const FrameType = { Headers: 1, Priority: 2, Settings: 4, WindowUpdate: 8 } as const;

const Flag = { Answer: 1, Padded: 8, Priority: 0x20 } as const;

const HEADER_SIZE = 9;
/** Of its payload, as long as nobody has asked for more. */
const MAX_PAYLOAD = 1 << 14;
const MAX_WINDOW = 2 ** 31;
/** What a priority takes: a stream and a weight. */
const PRIORITY_SIZE = 5;

/** Where a frame is among other bytes; it may end beyond them. */
export interface FrameAt {
  readonly type: number;
  readonly flags: number;
  readonly start: number;
  readonly end: number;
}

/** The frame that begins at an offset; undefined before all of its header is there. */
export function frameAt(bytes: Buffer, start: number): FrameAt | undefined {
  if (bytes.length < start + HEADER_SIZE) return undefined;
  const end = start + HEADER_SIZE + bytes.readUIntBE(start, 3);
  return { type: bytes[start + 3]!, flags: bytes[start + 4]!, start, end };
}

export function isTooLong({ start, end }: FrameAt): boolean {
  return end - start > HEADER_SIZE + MAX_PAYLOAD;
}

/** The whole frames from an offset on; undefined when one is longer than it may be. */
export function framesFrom(bytes: Buffer, offset: number): FrameAt[] | undefined {
  const frames: FrameAt[] = [];
  for (let start = offset; ;) {
    const frame = frameAt(bytes, start);
    if (frame !== undefined && isTooLong(frame)) return undefined;
    if (frame === undefined || frame.end > bytes.length) return frames;
    frames.push(frame);
    start = frame.end;
  }
}

/** Whether it says that settings have been taken. */
export function isAnswerToSettings({ type, flags, start, end }: FrameAt): boolean {
  return type === FrameType.Settings && (flags & Flag.Answer) !== 0 && end - start === HEADER_SIZE;
}

/** Whether it lets the other side send more, within what is allowed whatever the window was (6.9.1). */
export function opensWindow(bytes: Buffer, { type, start, end }: FrameAt): boolean {
  const isWhole = type === FrameType.WindowUpdate && end - start === HEADER_SIZE + 4;
  return isWhole && bytes.readUInt32BE(start + HEADER_SIZE) < MAX_WINDOW / 2;
}

/** The packed headers in a frame of headers; in the same memory. */
export function blockIn(bytes: Buffer, { flags, start, end }: FrameAt): Buffer {
  const payload = bytes.subarray(start + HEADER_SIZE, end);
  const isPadded = (flags & Flag.Padded) !== 0;
  const padding = isPadded ? (payload[0] ?? 0) : 0;
  const before = (isPadded ? 1 : 0) + ((flags & Flag.Priority) === 0 ? 0 : PRIORITY_SIZE);
  return payload.subarray(before, Math.max(before, payload.length - padding));
}
