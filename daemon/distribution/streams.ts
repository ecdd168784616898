/** Streams between a client and a transfer: opened by the client under a name, which the transfer is told. */
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { alreadyExists, cancelled, notFound } from '../../ttrpc/errors.ts';
import type { Namespace } from '../identifiers.ts';
import { untilAborted } from './turns.ts';

/** Messages waiting for a client that does not read. Only what may be lost is ever refused. */
const MAX_WAITING = 1000;

export class Channel {
  readonly #incoming: AsyncIterator<Any>;
  readonly #signal: AbortSignal;
  readonly #waiting: { readonly message: Any; readonly taken: () => void }[] = [];
  #wake = Promise.withResolvers<void>();
  #isClosed = false;

  constructor(incoming: AsyncIterator<Any>, signal: AbortSignal) {
    this.#incoming = incoming;
    this.#signal = signal;
  }

  /** What the client says next; undefined when it has no more to say. Not to be called again before it resolves. */
  async receive(signal?: AbortSignal): Promise<Any | undefined> {
    const { done, value } = await untilAborted(this.#incoming.next(), signal);
    return done === true ? undefined : value;
  }

  /** Resolves when the message is on its way. @throws RpcError Cancelled when the client is gone */
  async send(message: Any, signal?: AbortSignal): Promise<void> {
    if (this.#isClosed || this.#signal.aborted) throw cancelled('the client has closed the stream');
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ message, taken: resolve });
    this.#wake.resolve();
    const ends = signal === undefined ? this.#signal : AbortSignal.any([this.#signal, signal]);
    await untilAborted(promise, ends);
  }

  /** Sends what is not missed when the client is gone or slow. */
  post(message: Any): void {
    if (this.#isClosed || this.#signal.aborted || this.#waiting.length >= MAX_WAITING) return;
    this.#waiting.push({ message, taken: () => undefined });
    this.#wake.resolve();
  }

  /** Ends the stream when everything has been sent. */
  close(): void {
    this.#isClosed = true;
    this.#wake.resolve();
  }

  /** What is sent, until the end. */
  async *outgoing(): AsyncGenerator<Any, void, undefined> {
    for (;;) {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
        next.taken();
        yield next.message;
      }
      if (this.#isClosed) return;
      await untilAborted(this.#wake.promise, this.#signal);
      this.#wake = Promise.withResolvers();
    }
  }
}

export class Streams {
  readonly #channels = new Map<string, Channel>();

  /** @throws RpcError AlreadyExists */
  add(namespace: Namespace, id: string, channel: Channel): Disposable {
    const key = `${namespace}/${id}`;
    if (this.#channels.has(key)) throw alreadyExists(`stream ${JSON.stringify(id)}: already exists`);
    this.#channels.set(key, channel);
    return { [Symbol.dispose]: () => void this.#channels.delete(key) };
  }

  /** @throws RpcError NotFound */
  get(namespace: Namespace, id: string): Channel {
    const channel = this.#channels.get(`${namespace}/${id}`);
    if (channel === undefined) throw notFound(`stream ${JSON.stringify(id)}: not found`);
    return channel;
  }
}
