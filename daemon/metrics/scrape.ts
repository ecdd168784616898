/** Everything that is told to Prometheus. */
import { getHeapStatistics } from 'node:v8';
import type { Logger } from 'pino';
import type { Exchange } from '../events/exchange.ts';
import type { GcScheduler } from '../gc/scheduler.ts';
import type { Reader } from '../metadata/database.ts';
import type { TaskManager } from '../runtime/manager.ts';
import { revision, version } from '../version.ts';
import type { CallCounts } from './calls.ts';
import { measureContainers } from './containers.ts';
import { ContentUsage } from './content.ts';
import type { Family } from './exposition.ts';
import { one, processFamilies } from './process.ts';

/** What is measured. */
export interface Sources {
  readonly tasks: Pick<TaskManager, 'all' | 'started'>;
  readonly collections: Pick<GcScheduler, 'statistics'>;
  readonly exchange: Pick<Exchange, 'published' | 'subscribers'>;
  readonly metadata: Reader;
  readonly calls: CallCounts;
  readonly log: Logger;
}

export class Scrape {
  readonly #sources: Sources;
  readonly #content: ContentUsage;
  #running: Promise<Iterable<Family>> | undefined;

  constructor(sources: Sources) {
    this.#sources = sources;
    this.#content = new ContentUsage(sources.metadata);
  }

  /** Reads everything once. Who comes while it is being read gets the same, so that no number of scrapers makes more work. */
  read(): Promise<Iterable<Family>> {
    this.#running ??= this.#read().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #read(): Promise<Iterable<Family>> {
    const { tasks, calls, log } = this.#sources;
    const begin = performance.now();
    const all = tasks.all();
    const [containers, content] = await Promise.all([measureContainers(all, log), this.#content.size()]);
    const seconds = (performance.now() - begin) / 1000;
    return [
      ...containers.families,
      {
        name: 'containerd_build_info_total',
        help: 'build information',
        type: 'counter',
        samples: [{ labels: { revision, version }, value: 1 }],
      },
      ...calls.families(),
      ...processFamilies(),
      one('moor_tasks', 'Tasks that exist, running or not.', all.length),
      one('moor_content_blobs', 'Blobs in the content store.', content.blobs),
      one('moor_content_bytes', 'Bytes of the blobs in the content store.', content.bytes),
      ...this.#daemon(),
      one('moor_scrape_failures', 'Shims that gave no metrics in time, in this scrape.', containers.failures),
      one('moor_scrape_seconds', 'Time that reading all this took.', seconds),
    ];
  }

  #daemon(): Family[] {
    const { tasks, collections, exchange } = this.#sources;
    const { runs, failures, seconds, removed } = collections.statistics;
    const { malloced_memory: malloced } = getHeapStatistics();
    return [
      {
        name: 'moor_shims_started_total',
        help: 'Shims started since this daemon has: forked from the template, executed, or of another maker.',
        type: 'counter',
        samples: Object.entries(tasks.started).map(([how, value]) => ({ labels: { how }, value })),
      },
      one('moor_gc_runs_total', 'Garbage collections.', runs, 'counter'),
      one('moor_gc_failures_total', 'Garbage collections that failed.', failures, 'counter'),
      one('moor_gc_seconds_total', 'Time that garbage collections took.', seconds, 'counter'),
      one('moor_gc_removed_total', 'Objects that garbage collections have removed.', removed, 'counter'),
      one('moor_events_published_total', 'Events that were published.', exchange.published, 'counter'),
      one('moor_event_subscribers', 'Subscriptions to events.', exchange.subscribers),
      one('nodejs_malloced_memory_bytes', 'Bytes that the engine has allocated outside its heap.', malloced),
    ];
  }
}
