/** Where events meet their subscribers. */
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import { reached } from '../failpoint.ts';
import { type Filter, parseFilters } from '../filters/filter.ts';
import { timestampNow } from '../timestamp.ts';
import { type Envelope, checkEnvelope, checkTopic, envelopeFields } from './envelope.ts';
import { Followers, type Peer } from './followers.ts';
import { Journal } from './journal.ts';
import { Subscription } from './subscription.ts';

/**
 * How long after the API opens a client that was subscribed to the daemon before can take its subscription up again, in milliseconds.
 * dockerd waits a second and more before it connects again.
 */
const EXPECTED_FOR = 30_000;

export class Exchange {
  readonly #log: Logger;
  readonly #subscribers = new Map<Subscription, Filter>();
  readonly #journal: Journal | undefined;
  readonly #followers: Followers | undefined;
  #timer: NodeJS.Timeout | undefined;
  #published = 0;

  /** @param directory where the latest events are kept for the daemon after this one; nowhere without it */
  constructor(log: Logger, directory?: string) {
    this.#log = log;
    if (directory === undefined) return;
    this.#journal = new Journal(join(directory, 'journal'), log);
    this.#followers = new Followers(join(directory, 'subscribers'), log);
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
   * Sends an event of this daemon to its subscribers, with the time of now. The end of a task is sent once, however often it is published.
   *
   * @throws RpcError InvalidArgument for a topic that is none
   */
  publish(namespace: string, topic: string, event: Any): void {
    checkTopic(topic);
    this.#send({ timestamp: timestampNow(), namespace, topic, event });
  }

  /**
   * Sends on an event that another process has published. One that was sent before, by this daemon or the one before it, is not sent
   * again: its publisher had not got the answer.
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
   * A client that was subscribed with the same filters when the daemon before this one died, and comes back within 30 s, goes on where
   * it was: it is told first what has been published since. Each event comes once; the one whose telling the kill interrupted may
   * come twice, and is the same then to the last byte.
   *
   * The iterable ends when the signal is aborted or its reader leaves; it fails with ResourceExhausted when the reader does
   * not keep up, so that it holds up nobody.
   *
   * A client that says which event it has seen last goes on behind that one, whatever was taken for told and however long it was away;
   * it is told all that is kept when that one is not kept any more.
   *
   * @param client the subscriber's process; undefined for a part of this daemon
   * @param after fingerprint of the last event that the client has seen (`grpc/resume.ts`)
   * @throws RpcError InvalidArgument for a filter that cannot be read
   */
  subscribe(filters: readonly string[], signal: AbortSignal, client?: Peer, after?: string): Subscription {
    const filter = readFilters(filters);
    const last = this.#journal?.last ?? 0;
    const seen = after === undefined ? undefined : this.#journal?.find(after);
    const otherwise = after === undefined ? last : 0;
    const follower =
      client && !signal.aborted
        ? this.#followers?.follow(client, filters, { seen, last, otherwise })
        : undefined;
    const begin = follower?.told ?? seen ?? otherwise;
    const subscription = new Subscription(signal, (ended) => this.#subscribers.delete(ended), follower);
    if (this.#journal !== undefined && begin < last) {
      for (const entry of this.#journal.after(begin))
        if (filter(envelopeFields(entry.envelope))) subscription.replay(entry);
    }
    if (!subscription.over) this.#subscribers.set(subscription, filter);
    return subscription;
  }

  /** Says that clients can reach the daemon from now on. */
  serve(): void {
    this.#timer = setTimeout(() => this.#followers?.forgetAbsent(), EXPECTED_FOR);
    this.#timer.unref();
  }

  /** Goes on in the directory that has been made anew: what was in it is lost to those who come back. */
  renew(): void {
    this.#journal?.renew();
    this.#followers?.renew();
  }

  close(): void {
    clearTimeout(this.#timer);
    for (const subscription of this.#subscribers.keys()) void subscription.return();
    this.#journal?.close();
  }

  #send(envelope: Envelope): void {
    const { topic, namespace, event } = envelope;
    if (this.#journal?.has(envelope) === true) {
      this.#log.debug({ topic, ns: namespace }, 'an event that has been published before');
      return;
    }
    this.#published += 1;
    this.#log.debug({ topic, ns: namespace, type: event?.typeUrl }, 'event');
    // First: whoever publishes it is told that it need not be kept, and a subscriber's part of it may be lost with this daemon.
    const sequence = this.#journal?.append(envelope) ?? this.#published;
    reached('event-recorded');
    if (this.#subscribers.size > 0) {
      const fields = envelopeFields(envelope);
      for (const [subscription, filter] of this.#subscribers) {
        if (filter(fields)) subscription.push({ sequence, envelope });
        else subscription.skip(sequence);
      }
    }
    reached('event-told');
  }
}

function readFilters(filters: readonly string[]): Filter {
  try {
    return parseFilters(filters);
  } catch (error) {
    throw invalidArgument(`failed parsing subscription filters: ${messageOf(error)}`, error);
  }
}
