/** What a peer has said that it takes (RFC 9113, section 6.5). */
import {
  ConnectionError,
  DEFAULT_FRAME_BYTES,
  ErrorCode,
  FrameType,
  frameHead,
  LARGEST_FRAME_BYTES,
} from './frame.ts';
import { LARGEST_WINDOW } from './stream.ts';

const Setting = {
  HeaderTableSize: 1,
  EnablePush: 2,
  MaxConcurrentStreams: 3,
  InitialWindowSize: 4,
  MaxFrameSize: 5,
} as const;

/** A setting's number and its value. */
const SETTING_BYTES = 6;

const DEFAULT_TABLE_BYTES = 4096;
export const DEFAULT_WINDOW = 65_535;

/** The frame that says how many streams a peer may open, and how much it may send on each before that is read. */
export function settingsFrame(maxConcurrentStreams: number, initialWindowSize: number): Buffer {
  const payload = Buffer.alloc(2 * SETTING_BYTES);
  payload.writeUInt16BE(Setting.MaxConcurrentStreams, 0);
  payload.writeUInt32BE(maxConcurrentStreams, 2);
  payload.writeUInt16BE(Setting.InitialWindowSize, SETTING_BYTES);
  payload.writeUInt32BE(initialWindowSize, SETTING_BYTES + 2);
  return Buffer.concat([frameHead(FrameType.Settings, 0, 0, payload.length), payload]);
}

export class PeerSettings {
  /** Bytes that may be sent on a stream before the peer has read any. */
  initialWindow = DEFAULT_WINDOW;
  /** Bytes of a frame's payload at most. */
  maxFrame = DEFAULT_FRAME_BYTES;
  /** The table for headers has become smaller, which the next block has to acknowledge. */
  hasSmallerTable = false;
  #table = DEFAULT_TABLE_BYTES;

  /** @throws ConnectionError for settings that there cannot be */
  apply(payload: Buffer): void {
    if (payload.length % SETTING_BYTES !== 0)
      throw new ConnectionError(ErrorCode.FrameSizeError, 'a setting that is cut off');
    for (let at = 0; at < payload.length; at += SETTING_BYTES)
      this.#set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
  }

  #set(setting: number, value: number): void {
    switch (setting) {
      case Setting.HeaderTableSize:
        this.hasSmallerTable ||= value < this.#table;
        this.#table = value;
        break;
      case Setting.EnablePush:
        if (value > 1) throw new ConnectionError(ErrorCode.ProtocolError, `push: ${value}`);
        break;
      case Setting.InitialWindowSize:
        if (value > LARGEST_WINDOW)
          throw new ConnectionError(ErrorCode.FlowControlError, `a window of ${value} bytes`);
        this.initialWindow = value;
        break;
      case Setting.MaxFrameSize:
        if (value < DEFAULT_FRAME_BYTES || value > LARGEST_FRAME_BYTES)
          throw new ConnectionError(ErrorCode.ProtocolError, `frames of ${value} bytes`);
        this.maxFrame = value;
        break;
      // How many streams we may open: none are. Unknown ones are passed over.
      default:
    }
  }
}
