/** What comes over a connection before its first call, and how the connection is to be served. */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { mendAuthority } from './authority.ts';
import { FrameType, blockIn, framesFrom, isAnswerToSettings, opensWindow } from './http2-frame.ts';
import { MendedSocket, PREFACE } from './mended-socket.ts';

/** Settings without a change. Callers written in Go call nobody who has not sent theirs. */
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, FrameType.Settings, 0, 0, 0, 0, 0]);

/** What may come first without needing an answer, and is right or wrong whatever comes later. */
const QUIET: readonly number[] = [FrameType.Settings, FrameType.Priority];

/** Bytes that may come first; whoever sends more is none of the callers that need help. */
const MOST = 1 << 16;

/** Milliseconds that a caller has to answer settings. */
const ANSWER_WITHIN = 200;

/**
 * Waits for a first call and returns what is to be served: the socket itself, whose bytes nghttp2 reads without Node, or a stream that mends
 * the names by which its caller calls the server. Undefined when the caller leaves.
 *
 * It takes settings to get some callers to call, and nghttp2 will send its own and count the answers: the answer to these is left out.
 */
export function firstCall(socket: Socket): Promise<Duplex | undefined> {
  const { promise, resolve } = Promise.withResolvers<Duplex | undefined>();
  const opening = new Opening();
  let timer: NodeJS.Timeout | undefined;
  const settle = (served: Duplex | undefined) => {
    clearTimeout(timer);
    socket.off('readable', read).off('end', leave).off('close', leave).off('error', leave);
    resolve(served);
  };
  const leave = () => {
    socket.destroy();
    settle(undefined);
  };
  const serve = (isMended: boolean) => {
    socket.off('readable', read);
    socket.unshift(opening.bytes);
    settle(isMended ? new MendedSocket(socket, opening.owesAnswer) : socket);
  };
  const read = () => {
    for (let chunk; (chunk = socket.read() as Buffer | null) !== null;) opening.add(chunk);
    const next = opening.next();
    if (next === 'serve' || next === 'mend') serve(next === 'mend');
    else if (next === 'ask') socket.write(EMPTY_SETTINGS);
    else if (next === 'answer') timer ??= setTimeout(() => serve(true), ANSWER_WITHIN);
  };
  socket.on('readable', read).on('end', leave).on('close', leave).on('error', leave);
  return promise;
}

/** The bytes of a connection so far. */
class Opening {
  bytes: Buffer = Buffer.alloc(0);
  #isAsked = false;
  #isAnswered = false;

  add(chunk: Buffer): void {
    this.bytes = Buffer.concat([this.bytes, chunk]);
  }

  /** Whether settings that were sent here have yet to be answered. */
  get owesAnswer(): boolean {
    return this.#isAsked && !this.#isAnswered;
  }

  /** What is to be done: send settings, wait for the answer, or serve it in either way. Undefined until more has come. */
  next(): 'ask' | 'answer' | 'mend' | 'serve' | undefined {
    const { bytes } = this;
    const begin = bytes.subarray(0, PREFACE.length);
    if (!begin.equals(PREFACE.subarray(0, begin.length))) return 'serve';
    const frames = framesFrom(bytes, PREFACE.length);
    if (frames === undefined || bytes.length > MOST) return this.owesAnswer ? 'mend' : 'serve';
    const answer = frames.find(isAnswerToSettings);
    if (answer !== undefined && this.owesAnswer) {
      this.#isAnswered = true;
      this.bytes = Buffer.concat([bytes.subarray(0, answer.start), bytes.subarray(answer.end)]);
      return this.next();
    }
    const telling = frames.find((frame) => !QUIET.includes(frame.type) && !opensWindow(bytes, frame));
    if (telling !== undefined) {
      if (telling.type !== FrameType.Headers || mendAuthority(blockIn(bytes, telling))) return 'mend';
      return this.owesAnswer ? 'answer' : 'serve';
    }
    if (this.#isAsked || frames.length === 0) return undefined;
    this.#isAsked = true;
    return 'ask';
  }
}
