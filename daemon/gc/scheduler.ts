/** When garbage is collected: on request at once, otherwise some time after there may be some. */
import type { Logger } from 'pino';
import { unavailable } from '../../ttrpc/errors.ts';
import type { PluginSettings } from '../plugin-settings.ts';
import { milliseconds } from '../schema.ts';
import type { Collected, Collector } from './collector.ts';

/** What the services need of garbage collection. */
export interface Collections {
  /**
   * Collects what is garbage now. Resolves when it is gone, from the disk too.
   *
   * @throws RpcError, when it cannot be collected; what the signal was aborted with
   */
  collect(signal?: AbortSignal): Promise<void>;
}

/** As containerd's scheduler has them, with its defaults. */
export interface SchedulerOptions {
  /** The part of the time that collections may take, unless they are asked for; 0 for one a second, at most 0.5. */
  readonly pauseThreshold: number;
  /** Deletions after which a collection does not wait for its time; 0 for any number. */
  readonly deletionThreshold: number;
  /** Writes of any kind after which there is a collection; 0 for none. */
  readonly mutationThreshold: number;
  /** Milliseconds between a request, or the deletion too many, and the collection. */
  readonly scheduleDelay: number;
  /** Milliseconds from the start to the first collection, which also finds what an earlier daemon has left. */
  readonly startupDelay: number;
}

/**
 * The options that a configuration gives. Numbers beyond their bounds count as the bound, as in containerd.
 */
export function schedulerOptions(
  settings: PluginSettings['io.containerd.gc.v1.scheduler'],
): SchedulerOptions {
  return {
    pauseThreshold: Math.min(Math.max(settings.pause_threshold, 0), 0.5),
    deletionThreshold: Math.max(settings.deletion_threshold, 0),
    mutationThreshold: Math.max(settings.mutation_threshold, 0),
    scheduleDelay: milliseconds(settings.schedule_delay)!,
    startupDelay: milliseconds(settings.startup_delay)!,
  };
}

export const defaultOptions: SchedulerOptions = {
  pauseThreshold: 0.02,
  deletionThreshold: 0,
  mutationThreshold: 100,
  scheduleDelay: 0,
  startupDelay: 100,
};

/** Milliseconds to the next collection after one that failed, beside the usual. */
const AFTER_FAILURE = 1000;
/** Milliseconds until the time of day is looked at again: what expires goes by that, and it can be set. */
const MAX_DELAY = 600_000;

/** What collections have come to since the daemon has started. */
export interface Statistics {
  readonly runs: number;
  readonly failures: number;
  readonly seconds: number;
  /** Objects. */
  readonly removed: number;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class GcScheduler implements Collections {
  readonly #collector: Pick<Collector, 'collect' | 'onWrite'>;
  readonly #options: SchedulerOptions;
  readonly #log: Logger;
  #waiters: Waiter[] = [];
  #deletions = 0;
  #mutations = 0;
  /** No unasked collection before that, by the monotonic clock. */
  #earliest: number;
  /** When something expires, in milliseconds since 1970. */
  #expires: number | undefined;
  #first = true;
  /** Of all collections so far. */
  #spent = 0;
  #count = 0;
  #failures = 0;
  #removed = 0;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #closed = false;

  constructor(collector: Pick<Collector, 'collect' | 'onWrite'>, options: SchedulerOptions, log: Logger) {
    this.#collector = collector;
    this.#options = options;
    this.#log = log;
    this.#earliest = performance.now() + options.startupDelay;
    collector.onWrite((deletion) => {
      this.#mutations += 1;
      if (deletion) this.#deletions += 1;
      if (deletion || this.#mutations === options.mutationThreshold) this.#schedule();
    });
  }

  get statistics(): Statistics {
    const runs = this.#count + this.#failures;
    return { runs, failures: this.#failures, seconds: this.#spent / 1000, removed: this.#removed };
  }

  /** Begins to collect by itself. */
  start(): void {
    this.#earliest = performance.now() + this.#options.startupDelay;
    this.#schedule();
  }

  async collect(signal?: AbortSignal): Promise<void> {
    if (this.#closed) throw unavailable('the daemon is shutting down');
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = { resolve, reject };
    // One that is running began before what is garbage now was.
    this.#waiters.push(waiter);
    const leave = (): void => reject(signal!.reason);
    signal?.addEventListener('abort', leave);
    this.#schedule();
    try {
      await promise;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  /** Ends collecting. Resolves when the collection in progress has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running;
    for (const { reject } of this.#waiters.splice(0)) reject(unavailable('the daemon is shutting down'));
  }

  /** Milliseconds until the next collection; undefined when there is nothing to collect for. */
  #delay(): number | undefined {
    const { deletionThreshold, mutationThreshold, scheduleDelay } = this.#options;
    if (this.#waiters.length > 0) return scheduleDelay;
    if (deletionThreshold > 0 && this.#deletions >= deletionThreshold) return scheduleDelay;
    const regular = Math.max(this.#earliest - performance.now(), 0);
    if (this.#first || this.#deletions > 0) return regular;
    if (mutationThreshold > 0 && this.#mutations >= mutationThreshold) return regular;
    return this.#expires === undefined ? undefined : Math.max(regular, this.#expires - Date.now());
  }

  #schedule(): void {
    if (this.#closed || this.#running !== undefined) return;
    clearTimeout(this.#timer);
    const delay = this.#delay();
    if (delay === undefined) return;
    this.#timer = setTimeout(
      () => {
        // The time of a far-off expiry may not have come yet, or the clock may have been set.
        if (delay > MAX_DELAY) this.#schedule();
        else this.#running = this.#run();
      },
      Math.min(delay, MAX_DELAY),
    );
  }

  async #run(): Promise<void> {
    const waiters = this.#waiters.splice(0);
    this.#deletions = 0;
    this.#mutations = 0;
    this.#first = false;
    let pause: number;
    try {
      const collected = await this.#collector.collect();
      this.#report(collected);
      this.#removed += collected.removed.length;
      this.#expires = collected.expires;
      pause = this.#interval(collected.elapsed);
      for (const { resolve } of waiters) resolve();
    } catch (error) {
      this.#log.error({ err: error }, 'garbage collection failed');
      this.#failures += 1;
      pause = this.#interval(0) + AFTER_FAILURE;
      // Its garbage is still there.
      this.#deletions += 1;
      for (const { reject } of waiters) reject(error);
    }
    this.#earliest = performance.now() + pause;
    this.#running = undefined;
    this.#schedule();
  }

  /** Long enough for collections to take no more than their part of the time. */
  #interval(elapsed: number): number {
    this.#spent += elapsed;
    if (elapsed > 0) this.#count += 1;
    const average = this.#spent / Math.max(this.#count, 1);
    const part = Math.min(this.#options.pauseThreshold, 0.5);
    return part > 0 ? average / part - average : AFTER_FAILURE;
  }

  #report({ seen, removed, elapsed }: Collected): void {
    const milliseconds = Math.round(elapsed);
    this.#log.debug({ seen, removed: removed.length, milliseconds }, 'garbage collected');
  }
}
