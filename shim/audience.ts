import type { OutputStream } from './journal.ts';

/** Bytes that wait for one listener. One that is further behind misses some: neither the container nor its log waits for it. */
const MOST_WAITING = 1 << 20;

/** A part of the output. */
export interface Heard {
  readonly stream: OutputStream;
  readonly bytes: Buffer;
}

interface Listener {
  waiting: Heard[];
  size: number;
  wake: () => void;
}

/** Those who get a copy of a container's output while it is written. */
export class Audience {
  readonly #listeners = new Set<Listener>();
  #hasEnded = false;

  /** @param bytes the caller's again afterwards */
  tell(stream: OutputStream, bytes: Buffer): void {
    if (this.#listeners.size === 0) return;
    const heard = { stream, bytes: Buffer.from(bytes) };
    for (const listener of this.#listeners) {
      listener.waiting.push(heard);
      listener.size += bytes.length;
      while (listener.size > MOST_WAITING) listener.size -= listener.waiting.shift()!.bytes.length;
      listener.wake();
    }
  }

  /** Nothing more will come. */
  end(): void {
    this.#hasEnded = true;
    for (const { wake } of this.#listeners) wake();
  }

  /** What is written from this call on, until the end of it or until the signal is aborted. */
  listen(signal: AbortSignal): AsyncIterable<Heard> {
    const listener: Listener = { waiting: [], size: 0, wake: () => {} };
    this.#listeners.add(listener);
    return this.#hear(listener, signal);
  }

  async *#hear(listener: Listener, signal: AbortSignal): AsyncGenerator<Heard> {
    const abort = () => listener.wake();
    signal.addEventListener('abort', abort);
    try {
      while (!signal.aborted) {
        const heard = listener.waiting.shift();
        if (heard !== undefined) {
          listener.size -= heard.bytes.length;
          yield heard;
        } else if (this.#hasEnded) {
          return;
        } else {
          await new Promise<void>((resolve) => (listener.wake = resolve));
        }
      }
    } finally {
      this.#listeners.delete(listener);
      signal.removeEventListener('abort', abort);
    }
  }
}
