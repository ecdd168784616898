/** A connection of a caller whose name for the server HTTP/2 forbids: the same bytes, with that name mended (`authority.ts`). */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { mendAuthority } from './authority.ts';
import { FrameType, blockIn, frameAt, isAnswerToSettings, isTooLong } from './http2-frame.ts';

/** The client's first bytes, before any frame. */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

export class MendedSocket extends Duplex {
  readonly #socket: Socket;
  /** The beginning of a frame that has not come whole. */
  #rest: Buffer = Buffer.alloc(0);
  /** Bytes still to come of what passes as it is. */
  #passing = PREFACE.length;
  #owesAnswer: boolean;

  /** @param owesAnswer whether the first answer to settings is to be left out */
  constructor(socket: Socket, owesAnswer: boolean) {
    super();
    this.#socket = socket;
    this.#owesAnswer = owesAnswer;
    socket.on('data', (chunk: Buffer) => {
      if (!this.#pass(chunk)) socket.pause();
    });
    socket.on('end', () => this.push(null));
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  override _writev(chunks: { readonly chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#socket.write(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  /** Hands on what has come, but for the beginning of a frame that has to be seen whole. Returns whether more is wanted. */
  #pass(chunk: Buffer): boolean {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let wants = true;
    let at = 0;
    const hand = (end: number) => {
      if (end > at) wants = this.push(bytes.subarray(at, end));
      at = end;
    };
    while (at < bytes.length) {
      if (this.#passing > 0) {
        const end = Math.min(bytes.length, at + this.#passing);
        this.#passing -= end - at;
        hand(end);
        continue;
      }
      const frame = frameAt(bytes, at);
      if (frame === undefined) break;
      if (frame.type === FrameType.Headers && !isTooLong(frame)) {
        if (frame.end > bytes.length) break;
        mendAuthority(blockIn(bytes, frame));
      } else if (this.#owesAnswer && isAnswerToSettings(frame)) {
        this.#owesAnswer = false;
        at = frame.end;
        continue;
      }
      this.#passing = frame.end - frame.start;
    }
    this.#rest = bytes.subarray(at);
    return wants;
  }
}
