/** One subscriber's queue. */
import type { Envelope } from '../../proto/gen/containerd/types/event.ts';
import { type RpcError, resourceExhausted } from '../../ttrpc/errors.ts';

/** What waits for one subscriber at most. One that is further behind has stopped reading. */
const MAX_EVENTS = 10_000;
const MAX_BYTES = 64 << 20;

/** Envelopes taken from a queue that is never empty before their room is. */
const COMPACT_AFTER = 1024;

/** What one envelope takes beside its event's bytes, roughly. */
const OVERHEAD_BYTES = 300;

/** Bytes an envelope is counted with. */
export function weightOf(envelope: Envelope): number {
  return (envelope.event?.value.length ?? 0) + OVERHEAD_BYTES;
}

/** Envelopes in order, for one reader. Ends when its signal is aborted, or with a failure when the reader falls behind. */
export class Subscription implements AsyncIterableIterator<Envelope, undefined> {
  readonly #ended: (subscription: Subscription) => void;
  readonly #signal: AbortSignal;
  #queue: Envelope[] = [];
  #head = 0;
  #bytes = 0;
  #over = false;
  #failure: RpcError | undefined;
  #waiting: PromiseWithResolvers<IteratorResult<Envelope, undefined>>[] = [];

  /** @param ended told once, as soon as the subscription takes nothing more */
  constructor(signal: AbortSignal, ended: (subscription: Subscription) => void) {
    this.#signal = signal;
    this.#ended = ended;
    if (signal.aborted) this.#over = true;
    else signal.addEventListener('abort', this.#end, { once: true });
  }

  get over(): boolean {
    return this.#over;
  }

  push(envelope: Envelope): void {
    if (this.#over) return;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      waiting.resolve({ done: false, value: envelope });
      return;
    }
    this.#queue.push(envelope);
    this.#bytes += weightOf(envelope);
    if (this.#queue.length - this.#head <= MAX_EVENTS && this.#bytes <= MAX_BYTES) return;
    this.#failure = resourceExhausted(
      `the subscriber does not keep up: ${this.#queue.length - this.#head} events wait for it; subscribe again`,
    );
    this.#end();
  }

  next(): Promise<IteratorResult<Envelope, undefined>> {
    const envelope = this.#queue[this.#head];
    if (envelope !== undefined) {
      this.#head += 1;
      this.#bytes -= weightOf(envelope);
      if (this.#head === this.#queue.length) this.#clear();
      else if (this.#head >= COMPACT_AFTER) this.#compact();
      return Promise.resolve({ done: false, value: envelope });
    }
    if (this.#failure !== undefined) {
      const failure = this.#failure;
      this.#failure = undefined;
      return Promise.reject(failure);
    }
    if (this.#over) return Promise.resolve({ done: true, value: undefined });
    const waiting = Promise.withResolvers<IteratorResult<Envelope, undefined>>();
    this.#waiting.push(waiting);
    return waiting.promise;
  }

  return(): Promise<IteratorResult<Envelope, undefined>> {
    this.#end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #compact(): void {
    this.#queue = this.#queue.slice(this.#head);
    this.#head = 0;
  }

  #clear(): void {
    this.#queue = [];
    this.#head = 0;
    this.#bytes = 0;
  }

  readonly #end = (): void => {
    if (this.#over) return;
    this.#over = true;
    this.#clear();
    this.#signal.removeEventListener('abort', this.#end);
    for (const { resolve } of this.#waiting) resolve({ done: true, value: undefined });
    this.#waiting = [];
    this.#ended(this);
  };
}
