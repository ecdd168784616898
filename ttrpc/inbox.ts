/** What a stream has received and nobody has taken yet. */
import { resourceExhausted, type RpcError } from './errors.ts';

/** What an inbox needs of its connection: to stop and restart its reading. Holds add up. */
export interface Tap {
  hold(): void;
  release(): void;
}

/** An inbox with this many messages or bytes stops its connection from reading. */
const MAX_MESSAGES = 64;
const MAX_BYTES = 1 << 20;

/**
 * How long a full inbox may stop its connection, in milliseconds. All calls of the connection wait meanwhile, and two
 * sides that wait for each other would do so for ever. Go's ttrpc gives a reader the same five seconds.
 */
export const STALL_MS = 5000;

interface Taker<T> {
  resolve(result: IteratorResult<T, undefined>): void;
  reject(error: RpcError): void;
}

type Ending = { readonly kind: 'end' } | { readonly kind: 'failure'; readonly error: RpcError };

/**
 * A bounded queue with one reader, who sees what was received, in order, and then the end or the failure. A reader that
 * leaves (`break`, `return()`) is reported to `onLeave`; one that does not come for its messages, to `onStall`.
 */
export class Inbox<T> implements AsyncIterableIterator<T, undefined> {
  readonly #tap: Tap;
  readonly #onLeave: () => void;
  readonly #onStall: (error: RpcError) => void;
  #queue: { readonly message: T; readonly bytes: number }[] = [];
  #bytes = 0;
  #takers: Taker<T>[] = [];
  #ending: Ending | undefined;
  #stall: NodeJS.Timeout | undefined;

  constructor(tap: Tap, onStall: (error: RpcError) => void, onLeave: () => void) {
    this.#tap = tap;
    this.#onStall = onStall;
    this.#onLeave = onLeave;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Adds a message that took `bytes` on the wire. */
  push(message: T, bytes: number): void {
    if (this.#ending !== undefined) return;
    const taker = this.#takers.shift();
    if (taker !== undefined) {
      taker.resolve({ value: message, done: false });
      return;
    }
    this.#queue.push({ message, bytes });
    this.#bytes += bytes;
    if (this.#isFull()) this.#hold();
  }

  /** Nothing more will come. */
  end(): void {
    this.#close({ kind: 'end' });
  }

  /** Nothing more will come, and not in good order: the reader is told after the last message. */
  fail(error: RpcError): void {
    this.#close({ kind: 'failure', error });
  }

  /** Fails the reader at once; what is queued is dropped. */
  abort(error: RpcError): void {
    this.#drop();
    this.#close({ kind: 'failure', error });
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const entry = this.#queue.shift();
    if (entry !== undefined) {
      this.#bytes -= entry.bytes;
      if (!this.#isFull()) this.#release();
      else this.#stall?.refresh();
      return Promise.resolve({ value: entry.message, done: false });
    }
    const ending = this.#ending;
    if (ending === undefined) {
      return new Promise((resolve, reject) => {
        this.#takers.push({ resolve, reject });
      });
    }
    // Told once; who asks again is told of the end, as by any iterator.
    this.#ending = { kind: 'end' };
    return ending.kind === 'failure'
      ? Promise.reject(ending.error)
      : Promise.resolve({ value: undefined, done: true });
  }

  return(): Promise<IteratorResult<T, undefined>> {
    const left = this.#ending === undefined;
    this.#drop();
    this.#ending = undefined;
    this.#close({ kind: 'end' });
    if (left) this.#onLeave();
    return Promise.resolve({ value: undefined, done: true });
  }

  #isFull(): boolean {
    return this.#queue.length >= MAX_MESSAGES || this.#bytes >= MAX_BYTES;
  }

  #drop(): void {
    this.#queue = [];
    this.#bytes = 0;
  }

  #close(ending: Ending): void {
    this.#release();
    if (this.#ending !== undefined) return;
    const takers = this.#takers;
    this.#takers = [];
    if (takers.length === 0 || ending.kind === 'end') {
      this.#ending = ending;
    } else {
      takers.shift()?.reject(ending.error);
      this.#ending = { kind: 'end' };
    }
    for (const taker of takers) taker.resolve({ value: undefined, done: true });
  }

  #hold(): void {
    if (this.#stall !== undefined) return;
    this.#tap.hold();
    this.#stall = setTimeout(() => {
      this.#onStall(resourceExhausted(`nobody read a full stream for ${STALL_MS} ms`));
    }, STALL_MS);
  }

  #release(): void {
    if (this.#stall === undefined) return;
    clearTimeout(this.#stall);
    this.#stall = undefined;
    this.#tap.release();
  }
}
