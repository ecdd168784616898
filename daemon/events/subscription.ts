/** One subscriber's queue. */
import type { Envelope } from '../../proto/gen/containerd/types/event.ts';
import { Code, type RpcError, isCode, resourceExhausted } from '../../ttrpc/errors.ts';
import { reached } from '../failpoint.ts';
import type { Follower } from './followers.ts';
import type { Entry } from './journal.ts';

/** What waits for one subscriber at most. One that is further behind has stopped reading. */
const MAX_EVENTS = 10_000;
const MAX_BYTES = 64 << 20;

/** Envelopes taken from a queue that is never empty before their room is. */
const COMPACT_AFTER = 1024;

/** Events that were not for a subscriber, before that is taken down. */
const SKIPPED = 256;

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
  readonly #follower: Follower | undefined;
  /** Numbers of the events that the reader has, and has not yet said that it has passed on. */
  readonly #underway: number[] = [];
  #queue: Entry[] = [];
  #head = 0;
  #bytes = 0;
  /** Of what waits, from before the subscription: the reader is not behind for that. */
  #replayed = 0;
  #over = false;
  #failure: RpcError | undefined;
  #waiting: PromiseWithResolvers<IteratorResult<Envelope, undefined>>[] = [];

  /**
   * @param ended told once, as soon as the subscription takes nothing more
   * @param follower of a client, which is kept up to date by `passedOn`
   */
  constructor(signal: AbortSignal, ended: (subscription: Subscription) => void, follower?: Follower) {
    this.#signal = signal;
    this.#ended = ended;
    this.#follower = follower;
    if (signal.aborted) this.#over = true;
    else signal.addEventListener('abort', this.#end, { once: true });
  }

  get over(): boolean {
    return this.#over;
  }

  /** Tells what was published before; ahead of the first `push`. */
  replay(entry: Entry): void {
    if (this.#over) return;
    this.#queue.push(entry);
    this.#bytes += weightOf(entry.envelope);
    this.#replayed += 1;
  }

  push(entry: Entry): void {
    if (this.#over) return;
    const { envelope } = entry;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      waiting.resolve(this.#handed(entry));
      return;
    }
    this.#queue.push(entry);
    this.#bytes += weightOf(envelope);
    if (this.#queue.length - this.#head - this.#replayed <= MAX_EVENTS && this.#bytes <= MAX_BYTES) return;
    this.#failure = resourceExhausted(
      `the subscriber does not keep up: ${this.#queue.length - this.#head} events wait for it; subscribe again`,
    );
    this.#end();
  }

  next(): Promise<IteratorResult<Envelope, undefined>> {
    const entry = this.#queue[this.#head];
    if (entry !== undefined) {
      this.#head += 1;
      if (this.#replayed > 0) this.#replayed -= 1;
      this.#bytes -= weightOf(entry.envelope);
      if (this.#head === this.#queue.length) this.#clear();
      else if (this.#head >= COMPACT_AFTER) this.#compact();
      return Promise.resolve(this.#handed(entry));
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

  /** An event was none for this subscriber. That is taken down now and then, so that little has to be looked through afterwards. */
  skip(sequence: number): void {
    const isBusy = this.#underway.length > 0 || this.#queue.length > this.#head;
    if (this.#follower === undefined || isBusy || this.#over) return;
    if (sequence - this.#follower.told >= SKIPPED) this.#follower.tell(sequence);
  }

  /** The reader has passed one more event on to where it outlives the daemon. */
  passedOn(): void {
    const sequence = this.#underway.shift();
    if (sequence === undefined || this.#over) return;
    reached('event-passed-on');
    this.#follower?.tell(sequence);
  }

  return(): Promise<IteratorResult<Envelope, undefined>> {
    this.#end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #handed({ sequence, envelope }: Entry): IteratorResult<Envelope, undefined> {
    if (this.#follower !== undefined) this.#underway.push(sequence);
    return { done: false, value: envelope };
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
    // One whom the daemon leaves is going to come back.
    const isLeft = this.#signal.aborted && isCode(this.#signal.reason, Code.Unavailable);
    if (isLeft) this.#follower?.leave();
    else this.#follower?.forget();
    this.#ended(this);
  };
}
