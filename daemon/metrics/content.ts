/** How much content there is. */
import { setImmediate as turn } from 'node:timers/promises';
import { Info } from '../content/records.ts';
import type { Reader } from '../metadata/database.ts';
import { Kind } from '../metadata/schema.ts';

export interface ContentSize {
  /** Blobs, each counted once whatever namespaces have it. */
  readonly blobs: number;
  readonly bytes: bigint;
}

/** Records read between two looks at what else there is to do. */
const STEPS = 256;

/** Milliseconds for which an answer is good: there may be very many records, and scrapers come often. */
const GOOD_FOR_MS = 30_000;

export class ContentUsage {
  readonly #reader: Reader;
  #known: Promise<ContentSize> | undefined;
  #until = 0;

  constructor(reader: Reader) {
    this.#reader = reader;
  }

  /** What the records say, from 30 s ago at most. */
  size(): Promise<ContentSize> {
    if (this.#known === undefined || performance.now() > this.#until) {
      this.#until = performance.now() + GOOD_FOR_MS;
      this.#known = this.#read();
    }
    return this.#known;
  }

  async #read(): Promise<ContentSize> {
    const seen = new Set<string>();
    let bytes = 0n;
    let steps = 0;
    // Read before the first pause: a range of what is being changed meanwhile may end early.
    const namespaces = Array.from(this.#reader.rest(['', Kind.Namespace]), ([name = '']) => name);
    for (const namespace of namespaces) {
      for (const { id, value } of this.#reader.list([namespace, Kind.Content], Info)) {
        if (!seen.has(id)) bytes += value.size;
        seen.add(id);
        steps += 1;
        if (steps % STEPS === 0) await turn();
      }
    }
    return { blobs: seen.size, bytes };
  }
}
