/** The records of pods or of their containers: durable, in memory to be read, and with names that only one of them can have. */
import { randomBytes } from 'node:crypto';
import { Code, invalidArgument, isCode, notFound, unknown } from '../../ttrpc/errors.ts';
import type { MessageType } from '../../ttrpc/service.ts';
import { type ContainerId, parseNamespace } from '../identifiers.ts';
import type { Database } from '../metadata/database.ts';
import { ensureNamespace } from '../metadata/namespaces.ts';
import type { Key, Kind } from '../metadata/schema.ts';

/** Where all that Kubernetes has on a node is. */
export const KUBERNETES = parseNamespace('k8s.io');

/** What every record has. */
export interface Registered {
  readonly id: string;
  readonly name: string;
}

/** What is told of a change; `now` is undefined when the record has gone. */
export type Watcher<R> = (now: R | undefined, before: R | undefined) => void;

export interface RegistryOptions<R> {
  readonly database: Database;
  /** As errors name it. */
  readonly what: 'sandbox' | 'container';
  readonly kind: typeof Kind.Pod | typeof Kind.PodContainer;
  readonly type: MessageType<R>;
}

/** An id as containerd makes them. */
export function newId(): ContainerId {
  return randomBytes(32).toString('hex') as ContainerId;
}

export class Registry<R extends Registered> {
  readonly #options: RegistryOptions<R>;
  readonly #records = new Map<string, R>();
  /** Ids by name. */
  readonly #names = new Map<string, string>();
  readonly #watchers = new Set<Watcher<R>>();

  constructor(options: RegistryOptions<R>) {
    this.#options = options;
    const { database, kind, type } = options;
    for (const { value } of database.list([KUBERNETES, kind], type)) {
      this.#records.set(value.id, value);
      this.#names.set(value.name, value.id);
    }
  }

  /** All there are, in the order of their creation as far as this daemon has made them. */
  list(): R[] {
    return [...this.#records.values()];
  }

  /**
   * By its id, or by as much of it as no other begins with.
   *
   * @throws RpcError InvalidArgument for what several begin with, and for nothing
   */
  find(id: string): R | undefined {
    if (id === '') throw invalidArgument(`the id of a ${this.#options.what} must be given: invalid argument`);
    const exact = this.#records.get(id);
    if (exact !== undefined) return exact;
    const matching = this.list().filter((record) => record.id.startsWith(id));
    if (matching.length > 1)
      throw invalidArgument(
        `the ids of several begin with ${id}: ${this.#options.what} is ambiguous: invalid argument`,
      );
    return matching[0];
  }

  /** @throws RpcError NotFound, and as `find` */
  get(id: string): R {
    return this.find(id) ?? this.#missing(id);
  }

  /**
   * Stores a new record; its name is taken from now on.
   *
   * @throws RpcError Unknown for a name that another has, in the words that kubelet knows; ResourceExhausted
   */
  async create(record: R): Promise<void> {
    const { what, database, type } = this.#options;
    const { id, name } = record;
    const holder = this.#names.get(name);
    if (holder !== undefined) {
      throw unknown(
        `failed to reserve ${what} name ${JSON.stringify(name)}: name ${JSON.stringify(name)} is reserved for ${JSON.stringify(holder)}`,
      );
    }
    this.#names.set(name, id);
    try {
      await database.update((transaction) => {
        ensureNamespace(transaction, KUBERNETES);
        transaction.put(this.#key(id), type, record);
      });
    } catch (error) {
      this.#names.delete(name);
      throw error;
    }
    this.#records.set(id, record);
    this.#tell(record, undefined);
  }

  /**
   * Changes a record. What the action returns is stored; the record itself leaves everything as it is.
   *
   * @throws RpcError NotFound, and what the action throws
   */
  async change(id: string, action: (record: R) => R): Promise<R> {
    const { database, type } = this.#options;
    const { before, now } = await database.update((transaction) => {
      const before = transaction.get(this.#key(id), type) ?? this.#missing(id);
      const now = action(before);
      if (now !== before) transaction.put(this.#key(id), type, now);
      return { before, now };
    });
    if (now === before) return this.get(id);
    this.#records.set(id, now);
    this.#tell(now, before);
    return now;
  }

  /** As `change`, for what may be gone. */
  async changeIfThere(id: string, action: (record: R) => R): Promise<R | undefined> {
    try {
      return await this.change(id, action);
    } catch (error) {
      if (isCode(error, Code.NotFound)) return undefined;
      throw error;
    }
  }

  /** Removes a record and frees its name. What is not there is fine. */
  async remove(id: string): Promise<void> {
    await this.#options.database.update((transaction) => transaction.remove(this.#key(id)));
    const record = this.#records.get(id);
    if (record === undefined) return;
    this.#records.delete(id);
    if (this.#names.get(record.name) === id) this.#names.delete(record.name);
    this.#tell(undefined, record);
  }

  /** Calls the function after every change from now on. @returns what ends that */
  watch(watcher: Watcher<R>): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  #tell(now: R | undefined, before: R | undefined): void {
    for (const watcher of this.#watchers) watcher(now, before);
  }

  #key(id: string): Key {
    return [KUBERNETES, this.#options.kind, id];
  }

  #missing(id: string): never {
    const { what } = this.#options;
    throw notFound(`an error occurred when try to find ${what} ${JSON.stringify(id)}: not found`);
  }
}
