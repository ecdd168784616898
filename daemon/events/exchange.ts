/** Where events meet their subscribers. */
import type { Logger } from 'pino';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import { type Filter, parseFilters } from '../filters/filter.ts';
import { timestampNow } from '../timestamp.ts';
import { type Envelope, checkEnvelope, checkTopic, envelopeFields } from './envelope.ts';
import { Subscription } from './subscription.ts';

/**
 * How long after the API opens clients that are back are handed what they missed, in milliseconds. A client that lost its daemon
 * comes back within that time, and learns of the ends of its containers: from the recovery, and from the time until it was back
 * (dockerd waits a second and more before it connects again).
 */
const RETAINED_FOR = 30_000;
const MAX_RETAINED = 10_000;

/**
 * What is kept of the time when the API is open. Only these: they are final, and name the process by its pid, so that a client
 * that hears of one twice can tell. A start that is told late would bring a container back to life in dockerd's books.
 */
const FINAL_TOPICS: ReadonlySet<string> = new Set(['/tasks/exit', '/tasks/oom']);

/** What clients may have missed while they were without the daemon. */
interface Missed {
  /** Everything from before the API was open, and what is final since then. */
  readonly events: Envelope[];
  /** Clients that have been told, with the filters they had: each is told once. */
  readonly told: Set<string>;
}

export class Exchange {
  readonly #log: Logger;
  readonly #subscribers = new Map<Subscription, Filter>();
  /** Undefined when the start is long enough ago. */
  #missed: Missed | undefined = { events: [], told: new Set() };
  #serving = false;
  #timer: NodeJS.Timeout | undefined;
  #published = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Events so far. */
  get published(): number {
    return this.#published;
  }

  /** Subscriptions now. */
  get subscribers(): number {
    return this.#subscribers.size;
  }

  /**
   * Sends an event of this daemon to its subscribers, with the time of now.
   *
   * @throws RpcError InvalidArgument for a topic that is none
   */
  publish(namespace: string, topic: string, event: Any): void {
    checkTopic(topic);
    this.#send({ timestamp: timestampNow(), namespace, topic, event });
  }

  /**
   * Sends on an event that another process has published.
   *
   * @throws RpcError InvalidArgument
   */
  forward(envelope: Envelope): void {
    checkEnvelope(envelope);
    this.#send(envelope);
  }

  /**
   * Subscribes to the events that any of the filters selects (all when there is none), from this moment on.
   *
   * Soon after the start of the daemon a client that is back is told first what it missed. One that was started later must not be: it
   * asks how things are itself, and dockerd deletes a task that it hears has ended while it is about to fetch the last output.
   *
   * The iterable ends when the signal is aborted or its reader leaves; it fails with ResourceExhausted when the reader does
   * not keep up, so that it holds up nobody.
   *
   * @param returning the process of a client that is older than this daemon, 0 when it may be
   * @throws RpcError InvalidArgument for a filter that cannot be read
   */
  subscribe(filters: readonly string[], signal: AbortSignal, returning?: number): AsyncIterable<Envelope> {
    const filter = readFilters(filters);
    const subscription = new Subscription(signal, (ended) => this.#subscribers.delete(ended));
    if (returning !== undefined) {
      for (const envelope of this.#missedBy(returning, filters))
        if (filter(envelopeFields(envelope))) subscription.push(envelope);
    }
    if (!subscription.over) this.#subscribers.set(subscription, filter);
    return subscription;
  }

  /** Says that clients can reach the daemon from now on: what they may have missed is kept for them a while. */
  serve(): void {
    this.#serving = true;
    this.#timer = setTimeout(() => {
      this.#missed = undefined;
    }, RETAINED_FOR);
    this.#timer.unref();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#missed = undefined;
    for (const subscription of this.#subscribers.keys()) void subscription.return();
  }

  #send(envelope: Envelope): void {
    this.#published += 1;
    this.#log.debug(
      { topic: envelope.topic, ns: envelope.namespace, type: envelope.event?.typeUrl },
      'event',
    );
    if (!this.#serving || FINAL_TOPICS.has(envelope.topic)) this.#retain(envelope);
    if (this.#subscribers.size === 0) return;
    const fields = envelopeFields(envelope);
    for (const [subscription, filter] of this.#subscribers) if (filter(fields)) subscription.push(envelope);
  }

  #missedBy(pid: number, filters: readonly string[]): readonly Envelope[] {
    const who = JSON.stringify([pid, filters]);
    if (this.#missed === undefined || this.#missed.told.has(who)) return [];
    this.#missed.told.add(who);
    return this.#missed.events;
  }

  #retain(envelope: Envelope): void {
    if (this.#missed === undefined) return;
    const { events } = this.#missed;
    if (events.length === MAX_RETAINED) {
      events.shift();
      this.#log.warn('more events than can be kept until clients are back; the oldest one is dropped');
    }
    events.push(envelope);
  }
}

function readFilters(filters: readonly string[]): Filter {
  try {
    return parseFilters(filters);
  } catch (error) {
    throw invalidArgument(`failed parsing subscription filters: ${messageOf(error)}`, error);
  }
}
