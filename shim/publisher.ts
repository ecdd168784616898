import type { Any } from '../proto/gen/google/protobuf/any.ts';
import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';
import { EventsDefinition } from '../proto/gen/containerd/services/events_ttrpc.ts';
import { TtrpcClient } from '../ttrpc/client.ts';
import { Code, isCode } from '../ttrpc/errors.ts';
import { reached } from './failpoint.ts';
import type { Log } from './log.ts';
import { now } from './timestamp.ts';

/** An event as it goes to the daemon. */
export interface Envelope {
  readonly timestamp: Timestamp;
  readonly namespace: string;
  readonly topic: string;
  readonly event: Any;
}

export interface Event {
  readonly topic: string;
  readonly event: Any;
  /** May be dropped when far too many wait for a daemon that does not come back; the life of the init never is. */
  readonly expendable: boolean;
}

interface Queued {
  readonly envelope: Envelope;
  readonly expendable: boolean;
  readonly acknowledged: Promise<void>;
  readonly acknowledge: () => void;
  refusals: number;
}

/** Events kept for a daemon that is away. */
export const MOST_QUEUED = 8192;
/** A daemon that is there and does not want an event is not asked for ever: others wait behind it. */
const MOST_REFUSALS = 5;
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 1000;

/**
 * Sends a task's events to the daemon, one after the other, in order. An event leaves the queue when the daemon has
 * acknowledged it, and not before: a daemon that is away gets them when it is back.
 */
export class Publisher {
  readonly #address: string;
  readonly #namespace: string;
  readonly #log: Log;
  readonly #queue: Queued[] = [];
  readonly #subscribers = new Set<(envelope: Envelope) => void>();
  #client: TtrpcClient | undefined;
  #latest: Timestamp = { seconds: 0n, nanos: 0 };
  #sending = false;
  #closed = false;
  #wake: (() => void) | undefined;
  #holding = false;
  readonly #holdingListeners = new Set<(holding: boolean) => void>();

  /** @param address path of the daemon's ttrpc socket; without one, nobody is told of events but subscribers */
  constructor(address: string, namespace: string, log: Log) {
    this.#address = address;
    this.#namespace = namespace;
    this.#log = log;
  }

  /** Queues an event. Resolves when the daemon has acknowledged it, or it had to be dropped. */
  publish({ topic, event, expendable }: Event): Promise<void> {
    const envelope: Envelope = { timestamp: this.#time(), namespace: this.#namespace, topic, event };
    for (const subscriber of this.#subscribers) subscriber(envelope);
    if (this.#address === '') return Promise.resolve();
    const { promise: acknowledged, resolve: acknowledge } = Promise.withResolvers<void>();
    this.#queue.push({ envelope, expendable, acknowledged, acknowledge, refusals: 0 });
    this.#bound();
    // Behind the answer to the call that has brought it about, which a client waits for: the daemon reads both in turn.
    setImmediate(() => void this.#send());
    return acknowledged;
  }

  /** The present, but never the same twice: by its time the daemon knows an event that it gets once more. */
  #time(): Timestamp {
    const time = now();
    const { seconds, nanos } = this.#latest;
    const isLater = time.seconds > seconds || (time.seconds === seconds && time.nanos > nanos);
    this.#latest = isLater ? time : { seconds, nanos: nanos + 1 };
    return this.#latest;
  }

  /** Tells every event from now on, until the returned function is called. */
  subscribe(subscriber: (envelope: Envelope) => void): () => void {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }

  /**
   * Has `listener` told, now and at each change, whether there are events that the daemon was not there to take.
   * @returns what ends that
   */
  watchHolding(listener: (holding: boolean) => void): () => void {
    this.#holdingListeners.add(listener);
    listener(this.#holding);
    return () => this.#holdingListeners.delete(listener);
  }

  /** Events that wait for an acknowledgement. */
  get pending(): number {
    return this.#queue.length;
  }

  /** Tries again at once: somebody has called, so the daemon may be back. */
  poke(): void {
    this.#wake?.();
  }

  /** Resolves when everything that is queued now has been acknowledged. */
  async flush(signal: AbortSignal): Promise<void> {
    const last = this.#queue.at(-1);
    if (last === undefined) return;
    this.poke();
    signal.throwIfAborted();
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const abort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', abort, { once: true });
    try {
      await Promise.race([last.acknowledged, aborted]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /** Stops. What has not been acknowledged is lost. */
  close(): void {
    this.#closed = true;
    this.poke();
    this.#client?.close();
  }

  #bound(): void {
    if (this.#queue.length <= MOST_QUEUED) return;
    // The head may be on its way to the daemon, which would then see it and its successor out of turn.
    const victim = this.#queue.findIndex(({ expendable }, index) => expendable && index > 0);
    const [dropped] = this.#queue.splice(Math.max(victim, 1), 1);
    this.#log.error('too many events wait for the daemon; one is dropped', {
      topic: dropped?.envelope.topic,
    });
    dropped?.acknowledge();
  }

  async #send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    for (let pause = FIRST_PAUSE_MS; this.#queue.length > 0 && !this.#closed;) {
      const head = this.#queue[0]!;
      try {
        reached('event-due');
        await this.#forward(head.envelope);
        this.#drop(head);
        pause = FIRST_PAUSE_MS;
      } catch (error) {
        const { topic } = head.envelope;
        this.#hold(true);
        if (!isCode(error, Code.Unavailable)) head.refusals++;
        if (head.refusals >= MOST_REFUSALS) {
          this.#log.error('the daemon refuses an event; it is dropped', { topic, error });
          this.#drop(head);
          continue;
        }
        this.#log.debug('the daemon does not take an event yet', { topic, error });
        await this.#sleep(pause);
        pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
      }
    }
    this.#sending = false;
  }

  #drop(head: Queued): void {
    this.#queue.shift();
    head.acknowledge();
    if (this.#queue.length === 0) this.#hold(false);
  }

  #hold(holding: boolean): void {
    if (holding === this.#holding) return;
    this.#holding = holding;
    for (const listener of this.#holdingListeners) listener(holding);
  }

  /**
   * Waits for the answer as long as the connection lives. A deadline would send the event once more to a daemon that is only
   * slow, and its subscribers would see it twice.
   */
  async #forward(envelope: Envelope): Promise<void> {
    this.#client ??= await this.#connect();
    await this.#client.service(EventsDefinition).forward({ envelope });
  }

  async #connect(): Promise<TtrpcClient> {
    const client = await TtrpcClient.connect(this.#address);
    void client.closed.then(() => {
      if (this.#client === client) this.#client = undefined;
    });
    return client;
  }

  async #sleep(milliseconds: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, milliseconds);
    this.#wake = resolve;
    await promise;
    this.#wake = undefined;
    clearTimeout(timer);
  }
}
