/** Streams beside a transfer: opened under a name, by which the call that needs one refers to it (containerd, docs/streaming.md). */
import { randomBytes } from 'node:crypto';
import { type StreamingDefinition, StreamInit } from '../proto/gen/containerd/services/streaming.ts';
import { Data, WindowUpdate } from '../proto/gen/containerd/types/transfer.ts';
import { internal } from '../ttrpc/errors.ts';
import type { PartialMessage, ServiceClient } from '../ttrpc/service.ts';
import { type Any, anyOf, typeNameOf } from './any.ts';

const DATA = 'containerd.types.transfer.Data';
const WINDOW = 'containerd.types.transfer.WindowUpdate';

/** Bytes of a message, which is what Go's side has room for. */
const MESSAGE_SIZE = 32 << 10;
/**
 * Bytes that the daemon may send: as many as a message can say, since HTTP/2 has a window of its own, which holds back who is too
 * fast. A smaller one would have to be opened again and again, also when the daemon has just ended the stream: grpc-js takes a
 * write to such a stream for a failure of the call, and drops what it has not handed over yet.
 */
const WINDOW_SIZE = 2 ** 31 - 1;

/** The client's end of a stream. */
export class Stream {
  /** By which calls name it. */
  readonly id: string;
  readonly #incoming: AsyncIterator<Any>;
  readonly #outgoing: Queue;
  #failure: unknown;

  private constructor(id: string, incoming: AsyncIterator<Any>, outgoing: Queue) {
    this.id = id;
    this.#incoming = incoming;
    this.#outgoing = outgoing;
  }

  /** Resolves when the daemon knows the stream. @throws RpcError Unimplemented by a daemon without streams */
  static async open(
    streaming: ServiceClient<typeof StreamingDefinition>,
    signal: AbortSignal,
  ): Promise<Stream> {
    const id = `moor-${Date.now()}-${randomBytes(6).toString('hex')}`;
    const outgoing = new Queue();
    outgoing.put(anyOf('containerd.services.streaming.v1.StreamInit', StreamInit, { id }));
    const incoming = streaming.stream(outgoing, { signal })[Symbol.asyncIterator]();
    const { done } = await incoming.next();
    if (done === true) throw internal('the daemon has closed a stream at once');
    return new Stream(id, incoming, outgoing);
  }

  /** Hands over a message; it is sent when the wire takes it. */
  send(message: Any): void {
    this.#outgoing.put(message);
  }

  /** The next message; undefined at the end. */
  async receive(): Promise<Any | undefined> {
    try {
      const { done, value } = await this.#incoming.next();
      return done === true ? undefined : value;
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  /** Whether this is what the stream itself has failed with; the call that uses the stream knows better why. */
  hasFailedWith(error: unknown): boolean {
    return error !== undefined && this.#failure === error;
  }

  /** Has no more to say. */
  close(): void {
    this.#outgoing.end();
  }
}

/** What waits to be sent. */
class Queue implements AsyncIterable<PartialMessage<Any>> {
  readonly #waiting: PartialMessage<Any>[] = [];
  #ended = false;
  #wake = Promise.withResolvers<void>();

  put(message: PartialMessage<Any>): void {
    this.#waiting.push(message);
    this.#wake.resolve();
  }

  end(): void {
    this.#ended = true;
    this.#wake.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<PartialMessage<Any>> {
    for (;;) {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) yield next;
      if (this.#ended) return;
      await this.#wake.promise;
      this.#wake = Promise.withResolvers();
    }
  }
}

/** Sends bytes as fast as the daemon asks for them, and then the end. */
export async function sendBytes(
  stream: Stream,
  bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  let window = 0;
  for await (const piece of bytes) {
    for (let start = 0; start < piece.length;) {
      while (window <= 0) {
        const message = await stream.receive();
        // The daemon has read all it needs, or has failed, which the call tells.
        if (message === undefined) return;
        window += WindowUpdate.decode(message.value).update;
      }
      const data = Buffer.from(piece.subarray(start, start + Math.min(window, MESSAGE_SIZE)));
      stream.send(anyOf(DATA, Data, { data }));
      window -= data.length;
      start += data.length;
    }
  }
  stream.close();
  while ((await stream.receive()) !== undefined);
}

/** What the daemon sends, as fast as the loop takes it. */
export async function* receiveBytes(stream: Stream): AsyncGenerator<Buffer> {
  let window = 0;
  for (;;) {
    if (window <= WINDOW_SIZE / 2) {
      const update = WINDOW_SIZE - window;
      stream.send(anyOf(WINDOW, WindowUpdate, { update }));
      window += update;
    }
    const message = await stream.receive();
    if (message === undefined) break;
    if (typeNameOf(message) !== DATA) continue;
    const { data } = Data.decode(message.value);
    window -= data.length;
    yield data;
  }
  stream.close();
}
