/**
 * Garbage collection by mark and sweep, while everybody goes on reading and writing.
 *
 * The marking reads record after record and lets others work in between, so what it has seen may change under it. Every record
 * written since it began is therefore remembered; before something is removed, in the same transaction, what has been
 * written and all that it refers to is marked too. That is enough: a path that leads to a node from a root now, but not when its
 * records were read, goes over a record that has been written since.
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { Logger } from 'pino';
import { reached } from '../failpoint.ts';
import type { Namespace } from '../identifiers.ts';
import type { Database, Reader, Transaction } from '../metadata/database.ts';
import { Kind } from '../metadata/schema.ts';
import { Graph } from './graph.ts';
import type { GcResource, Node } from './resource.ts';

/** The event loop is let go after that many milliseconds of work. */
const SLICE_MS = 3;
/** Steps between two looks at the clock. */
const STEPS = 64;
/** Nodes removed in one transaction. */
const BATCH = 128;

export interface Collected {
  /** Nodes looked at. */
  readonly seen: number;
  readonly removed: readonly Node[];
  /** Milliseconds from the first look to the last removal. */
  readonly elapsed: number;
  /** When something of what was kept expires, in milliseconds since 1970. */
  readonly expires: number | undefined;
}

type Listener = (deletion: boolean) => void;

export class Collector {
  readonly #database: Database;
  readonly #resources = new Map<string, GcResource>();
  /** By the kinds of records, the resource whose nodes they make up. */
  readonly #owners = new Map<string, GcResource>();
  readonly #log: Logger;
  /** Keys of what has been written since the collection in progress began. */
  #written: (readonly string[])[] | undefined;
  #listener: Listener = () => undefined;

  constructor(database: Database, resources: readonly GcResource[], log: Logger) {
    this.#database = database;
    this.#log = log;
    for (const resource of resources) this.add(resource);
    database.observe({
      put: (key) => {
        this.#written?.push(key);
        this.#listener(false);
      },
      removed: (key) => this.#listener(isDeletion(key)),
    });
  }

  /** Lets another kind of nodes take part, from the next collection on. */
  add(resource: GcResource): void {
    this.#resources.set(resource.kind, resource);
    for (const kind of [resource.kind, ...(resource.parts ?? [])]) this.#owners.set(kind, resource);
  }

  /** Calls back at every write that is not the collector's own; tells whether something may have become garbage by it. */
  onWrite(listener: Listener): void {
    this.#listener = listener;
  }

  /**
   * Collects once. Not to be called again before it resolves.
   *
   * @throws RpcError ResourceExhausted, Internal when metadata cannot be written; what has been removed by then stays so
   */
  async collect(): Promise<Collected> {
    const begin = performance.now();
    // In a transaction, since those before it are over then and their writes can be read.
    await this.#database.update(() => {
      this.#written = [];
    });
    try {
      const { graph, seen, expires } = await this.#mark();
      reached('garbage-marked');
      const removed: Node[] = [];
      try {
        await this.#sweep(graph, removed);
        reached('garbage-forgotten');
      } finally {
        // Also when it came to an end in the middle: nobody else knows of what has no record any more.
        await this.#release(removed);
      }
      const elapsed = performance.now() - begin;
      return { seen, removed, elapsed, expires };
    } finally {
      this.#written = undefined;
    }
  }

  async #mark(): Promise<{ graph: Graph; seen: number; expires: number | undefined }> {
    const graph = new Graph();
    const pause = new Pause();
    let seen = 0;
    let expires = Infinity;
    for (const namespace of namespaces(this.#database)) {
      for (const resource of this.#resources.values()) {
        for (const { id, facts } of resource.list(this.#database, namespace)) {
          graph.add(resource, { namespace, kind: resource.kind, id }, facts);
          if (facts.root) expires = Math.min(expires, facts.expires ?? Infinity);
          seen += 1;
          if (seen % STEPS === 0) await pause.ifDue();
        }
      }
    }
    while (!graph.trace(STEPS)) await pause.ifDue();
    return { graph, seen, expires: expires === Infinity ? undefined : expires };
  }

  /** @param removed is added to */
  async #sweep(graph: Graph, removed: Node[]): Promise<void> {
    const garbage = graph.garbage();
    for (let start = 0; start < garbage.length; start += BATCH) {
      const batch = garbage.slice(start, start + BATCH);
      // Not observed: what the collector does is no reason to collect.
      const nodes = await this.#database.update((transaction) => this.#remove(transaction, graph, batch), {
        observed: false,
      });
      removed.push(...nodes);
    }
  }

  #remove(transaction: Transaction, graph: Graph, batch: Garbage): Node[] {
    const written = this.#written!;
    this.#written = [];
    for (const [namespace, kind, id] of written) {
      const resource = this.#owners.get(kind!);
      if (resource === undefined) continue;
      const facts = resource.get(transaction, namespace as Namespace, id!);
      if (facts === undefined) continue;
      graph.addLive(resource, { namespace: namespace as Namespace, kind: resource.kind, id: id! }, facts);
    }
    graph.trace();
    const unreached = batch.filter(({ node }) => !graph.isMarked(node));
    for (const { resource, node } of unreached) resource.remove!(transaction, node.namespace, node.id);
    return unreached.map(({ node }) => node);
  }

  async #release(removed: readonly Node[]): Promise<void> {
    for (const resource of this.#resources.values()) {
      try {
        await resource.release?.(removed.filter(({ kind }) => kind === resource.kind));
      } catch (error) {
        this.#log.warn({ err: error, kind: resource.kind }, 'what was collected could not be freed yet');
      }
    }
  }
}

type Garbage = ReturnType<Graph['garbage']>;

/** Lets others work when the slice of time is used up. */
class Pause {
  #end = performance.now() + SLICE_MS;

  async ifDue(): Promise<void> {
    if (performance.now() < this.#end) return;
    await turn();
    this.#end = performance.now() + SLICE_MS;
  }
}

function namespaces(reader: Reader): Namespace[] {
  return [...reader.rest(['', Kind.Namespace])].map(([name]) => name as Namespace);
}

/**
 * Whether something else may have become garbage by it. An ingest is let go of whenever it becomes content, a note on a foreign
 * snapshot whenever that has its record.
 */
function isDeletion([, kind, , type]: readonly string[]): boolean {
  if (kind === Kind.ForeignSnapshot) return false;
  return kind !== Kind.Ingest && !(kind === Kind.LeaseResource && type === 'ingests');
}
