import { readSync } from 'node:fs';
import { pipe, Poll, setNonblock } from '../native/native.ts';
import { Descriptor } from './descriptor.ts';
import type { Outlet } from './fifo.ts';
import type { Journal, OutputStream } from './journal.ts';
import { chown, LINGER_MS, type Output, type Owner } from './output.ts';

const CHUNK = 32 * 1024;
/** More than a pipe holds that nobody has made larger (pipe(7)): by then all that was in it has been read. */
const CHUNKS_IN_PIPE = 4;

/** Made when there is something to read: most shims are forked before. */
let chunk: Buffer | undefined;

/** Reads one stream of a container into its journal, as the event loop finds it ready. */
class JournalReader {
  /** Resolves when nothing more will be read. Never rejects. */
  readonly done: Promise<void>;
  readonly #from: Descriptor;
  readonly #journal: Journal;
  readonly #stream: OutputStream;
  readonly #poll: Poll;
  readonly #resolve: () => void;

  /** @param from taken over */
  constructor(from: Descriptor, journal: Journal, stream: OutputStream) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.done = promise;
    this.#resolve = resolve;
    this.#from = from;
    this.#journal = journal;
    this.#stream = stream;
    setNonblock(from.fd, true);
    this.#poll = new Poll(from.fd, 'readable', (error) => (error ? this.close() : void this.#read()));
  }

  /** Reads what is there. */
  drain(): void {
    for (let count = 0; count < CHUNKS_IN_PIPE && this.#read(); count += 1);
  }

  close(): void {
    if (!this.#from.isOpen) return;
    this.#poll.close();
    this.#from.close();
    this.#journal.end(this.#stream);
    this.#resolve();
  }

  /** Returns false when there is nothing more for now. */
  #read(): boolean {
    if (!this.#from.isOpen) return false;
    chunk ??= Buffer.allocUnsafeSlow(CHUNK);
    let length: number;
    try {
      length = readSync(this.#from.fd, chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return false;
      length = 0;
    }
    if (length === 0) this.close();
    else this.#journal.write(this.#stream, chunk.subarray(0, length));
    return length > 0;
  }
}

/** A pipe whose bytes go into a journal. */
export class JournalOutput implements Output {
  readonly settled: Promise<void>;
  readonly taken: Promise<void>;
  readonly #journal: Journal;
  readonly #stream: OutputStream;
  readonly #input: Descriptor;
  readonly #end: Descriptor;
  readonly #done = Promise.withResolvers<void>();
  readonly #drained = Promise.withResolvers<void>();
  #reader: JournalReader | undefined;
  #linger: NodeJS.Timeout | undefined;

  constructor(journal: Journal, stream: OutputStream, owner: Owner) {
    const { read, write } = pipe();
    this.#journal = journal;
    this.#stream = stream;
    this.#input = new Descriptor(read);
    this.#end = new Descriptor(write);
    chown(this.#end, owner);
    this.settled = this.#done.promise;
    this.taken = this.#drained.promise;
  }

  get handed(): number {
    return this.#end.fd;
  }

  spawned(): void {
    this.#end.close();
  }

  /** Not earlier: what the runtime prints when it fails is not the container's. */
  started(): void {
    this.#reader = new JournalReader(this.#input, this.#journal, this.#stream);
    void this.#reader.done.then(() => this.#release());
  }

  /** What it has written itself is in the log before anybody hears of its end; descendants that live on have their time. */
  exited(): void {
    if (this.#reader === undefined) return this.close();
    this.#reader.drain();
    this.#drained.resolve();
    this.#linger = setTimeout(() => this.#reader?.close(), LINGER_MS);
  }

  dismiss(): void {}

  close(): void {
    this.#reader?.close();
    this.#journal.end(this.#stream);
    this.#release();
  }

  forsake(): void {}

  #release(): void {
    clearTimeout(this.#linger);
    this.#input.close();
    this.#end.close();
    this.#drained.resolve();
    this.#done.resolve();
  }
}

/** The way of a terminal's output into a journal. */
export function journalOutlet(journal: Journal): Outlet {
  const { read, write } = pipe();
  const { done } = new JournalReader(new Descriptor(read), journal, 'stdout');
  return { writer: new Descriptor(write), keeper: undefined, delivered: () => done, isPrompt: true };
}
