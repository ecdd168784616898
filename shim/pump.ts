import { Poll, splice } from '../native/native.ts';

/** Bytes that one splice may move; pipes hold less, terminals far less. */
const CHUNK = 1 << 20;
/** An input that stays silent for so long after its process has ended is empty. Data that is there is seen at once. */
const SILENCE_MS = 20;

/**
 * Moves bytes from one descriptor to another inside the kernel, as the event loop finds them ready, until the input ends or
 * nobody can read the output. One of the two must be a pipe or FIFO (splice(2)).
 *
 * Waits for the input to be readable; when nothing can be moved although it is, the output is full and is waited for.
 * So a slow reader stops the writer, and costs no memory here.
 *
 * The descriptors stay the caller's, to be closed when `done` resolves. Both become O_NONBLOCK.
 */
export class Pump {
  /** Resolves when nothing more will be moved. Never rejects. */
  readonly done: Promise<void>;
  readonly #from: number;
  readonly #to: number;
  readonly #resolve: () => void;
  #poll: Poll | undefined;
  #silence: NodeJS.Timeout | undefined;
  #verdict: NodeJS.Immediate | undefined;
  #finishing = false;
  #ended = false;

  constructor(from: number, to: number) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.done = promise;
    this.#resolve = resolve;
    this.#from = from;
    this.#to = to;
    this.#awaitInput();
  }

  /** Ends the pump when its input is empty, although somebody might still write to it. */
  finish(): void {
    if (this.#finishing || this.#ended) return;
    this.#finishing = true;
    this.#listenForSilence();
  }

  /** Ends the pump now; what has not been moved is lost. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#deafen();
    this.#poll?.close();
    this.#resolve();
  }

  #awaitInput(): void {
    this.#poll?.close();
    this.#poll = new Poll(this.#from, 'readable', (error) => (error ? this.close() : this.#move()));
    this.#listenForSilence();
  }

  #awaitOutput(): void {
    this.#deafen();
    this.#poll?.close();
    this.#poll = new Poll(this.#to, 'writable', (error) => (error ? this.close() : this.#awaitInput()));
  }

  #move(): void {
    let moved: number | undefined;
    try {
      moved = splice(this.#from, this.#to, CHUNK);
    } catch {
      // EPIPE: nobody reads the output. EIO: the last process has closed the terminal whose master is the input.
      moved = 0;
    }
    if (moved === 0) this.close();
    else if (moved === undefined) this.#awaitOutput();
    else this.#listenForSilence();
  }

  #listenForSilence(): void {
    if (!this.#finishing || this.#ended) return;
    this.#deafen();
    // The event loop runs timers before it looks at descriptors. An immediate comes after both, so a loop that was busy for
    // long does not take bytes it has not looked for yet for silence.
    this.#silence = setTimeout(() => {
      this.#verdict = setImmediate(() => this.close());
    }, SILENCE_MS);
  }

  #deafen(): void {
    clearTimeout(this.#silence);
    clearImmediate(this.#verdict);
  }
}
