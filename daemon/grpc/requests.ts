/** What a caller sends: one message, or a stream of them. */
import { cancelled, unimplemented } from '../../ttrpc/errors.ts';
import type { OpenCall } from './call.ts';
import { FrameReader } from '../../grpc/frame.ts';

/**
 * The one message of a call that has no more.
 *
 * @throws RpcError Cancelled when the caller leaves before it is whole, Unimplemented for none and for a second one
 */
export function onlyMessage(call: OpenCall, limit: number): Promise<Buffer> {
  const { stream } = call;
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const reader = new FrameReader(limit);
  let only: Buffer | undefined;
  stream.read({
    data: (chunk) => {
      stream.consumed(chunk.length);
      try {
        for (const message of reader.push(chunk)) {
          if (only !== undefined) throw unimplemented('more than one message has come: not implemented');
          only = message;
        }
      } catch (error) {
        stream.discard();
        reject(error);
      }
    },
    end: () => {
      try {
        reader.end();
        if (only === undefined) throw unimplemented('no message has come: not implemented');
        resolve(only);
      } catch (error) {
        reject(error);
      }
    },
    cut: () => {
      call.gone();
      reject(cancelled('the caller is gone'));
    },
  });
  return promise;
}

/** A stream of messages, of which the caller sends as many as its window holds ahead of their being read. */
export class Requests {
  readonly #call: OpenCall;
  readonly #reader: FrameReader;
  #chunks: Buffer[] = [];
  #messages: Buffer[] = [];
  #hasAll = false;
  #isCut = false;
  #wake: (() => void) | undefined;

  constructor(call: OpenCall, limit: number) {
    this.#call = call;
    this.#reader = new FrameReader(limit);
    call.stream.read({
      data: (chunk) => {
        this.#chunks.push(chunk);
        this.#wake?.();
      },
      end: () => {
        this.#hasAll = true;
        this.#wake?.();
      },
      cut: () => {
        this.#isCut = true;
        call.gone();
        this.#wake?.();
      },
    });
  }

  /**
   * The next one, or undefined behind the last.
   *
   * @throws RpcError Cancelled when the caller leaves; ResourceExhausted, Unimplemented and InvalidArgument for what is no message
   */
  async next(): Promise<Buffer | undefined> {
    for (;;) {
      // A stream that is cut off does not look like one that is finished.
      if (this.#isCut) throw this.#call.signal.reason;
      const message = this.#messages.shift();
      if (message !== undefined) return message;
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#messages = this.#reader.push(chunk);
        this.#call.stream.consumed(chunk.length);
      } else if (this.#hasAll) {
        this.#reader.end();
        return undefined;
      } else {
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    }
  }
}
