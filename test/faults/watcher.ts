/** A subscriber that was there before the daemon, loses it again and again, and comes back each time. */
import { Connection } from '../../client/connection.ts';
import { setTimeout as delay } from 'node:timers/promises';
import { follow } from '../../client/follow.ts';
import { type Envelope, EventsDefinition } from '../../proto/gen/containerd/services/events.ts';
import { eventually } from '../harness/wait.ts';

export interface WatcherOptions {
  readonly address: string;
  /** Distinguishes it from the others of this process. */
  readonly filters: readonly string[];
  /** Milliseconds from the loss of the daemon to the first attempt to reach it again. */
  readonly pause: number;
  /** Takes what comes as it comes: also what is told again. */
  readonly plain?: boolean;
}

export class Watcher {
  readonly seen: Envelope[] = [];
  readonly #over = new AbortController();
  readonly #done: Promise<void>;

  constructor(options: WatcherOptions) {
    this.#done = this.#watch(options);
  }

  /** Waits until it has seen an event that the condition holds of. */
  async sees(what: string, condition: (envelope: Envelope) => boolean): Promise<void> {
    await eventually(what, () => this.seen.some(condition), { within: 60_000 });
  }

  async close(): Promise<void> {
    this.#over.abort();
    await this.#done;
  }

  async #watch({ address, filters, pause, plain = false }: WatcherOptions): Promise<void> {
    const { signal } = this.#over;
    using connection = new Connection(address);
    const events = plain
      ? subscriptions(connection, filters, pause, signal)
      : follow(connection, [], filters, { signal, pause });
    for await (const envelope of events) this.seen.push(envelope);
  }
}

/** What a client of containerd's API sees that subscribes again and again. */
async function* subscriptions(
  connection: Connection,
  filters: readonly string[],
  pause: number,
  signal: AbortSignal,
): AsyncGenerator<Envelope> {
  const { subscribe } = connection.service(EventsDefinition);
  while (!signal.aborted) {
    try {
      yield* subscribe({ filters: [...filters] }, { signal });
    } catch {
      // The daemon is away, or this is over.
    }
    await delay(pause, undefined, { signal }).catch(() => undefined);
  }
}
