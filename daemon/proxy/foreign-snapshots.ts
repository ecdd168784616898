/**
 * Which snapshots another process has that no record speaks of: those that are being made, noted before they are, and those
 * that are to be removed, noted with the removal of their records. What a crash of either process leaves is found by these notes.
 */
import { ForeignSnapshot } from '../../proto/gen/moor/metadata/snapshot.ts';
import { Code, isCode, messageOf, unavailable } from '../../ttrpc/errors.ts';
import type { Logger } from '../log.ts';
import type { Database, Transaction } from '../metadata/database.ts';
import { type Key, Kind } from '../metadata/schema.ts';
import type { SnapshotTree } from '../snapshots/tree.ts';

export class ForeignSnapshots {
  readonly #snapshotter: string;
  readonly #database: Database;
  readonly #tree: SnapshotTree;
  readonly #remove: (note: ForeignSnapshot, name: string) => Promise<void>;
  readonly #log: Logger;
  readonly #making = new Set<string>();
  readonly #removing = new Set<string>();
  #working: Promise<void> | undefined;
  /** Whether there may be more to remove than what is being removed. */
  #more = false;
  #closed = false;

  /** @param remove removes one from the other process */
  constructor(
    tree: SnapshotTree,
    snapshotter: string,
    { database, log }: { readonly database: Database; readonly log: Logger },
    remove: (note: ForeignSnapshot, name: string) => Promise<void>,
  ) {
    this.#tree = tree;
    this.#snapshotter = snapshotter;
    this.#database = database;
    this.#log = log;
    this.#remove = remove;
    // What an earlier daemon was making or removing. The names it gave must not be given again while they are in use.
    for (const { value } of database.list(this.#allKey(), ForeignSnapshot)) tree.skip(value.id);
    this.sweep();
  }

  /**
   * Has something made over there, under a name that is noted first.
   *
   * @param make is given what its record's transaction has to do as well. When it fails, whatever there is gets removed
   */
  async making<T>(
    name: string,
    note: ForeignSnapshot,
    make: (recorded: (transaction: Transaction) => void) => Promise<T>,
  ): Promise<T> {
    this.#making.add(name);
    try {
      await this.#database.update((transaction) => transaction.put(this.#key(name), ForeignSnapshot, note), {
        observed: false,
      });
      return await make((transaction) => transaction.remove(this.#key(name)));
    } catch (error) {
      this.#more = true;
      throw error;
    } finally {
      this.#making.delete(name);
      if (this.#more) this.sweep();
    }
  }

  /** Notes, with the removal of a record, that what it spoke of is to be removed. */
  dropped(transaction: Transaction, name: string, note: ForeignSnapshot): void {
    transaction.put(this.#key(name), ForeignSnapshot, note);
  }

  /** @throws RpcError Unavailable when it is just being removed, and so cannot have a record again */
  checkStays(name: string): void {
    if (this.#removing.has(name)) throw unavailable(`snapshot ${name} is being removed: unavailable`);
  }

  /** Begins to remove what is noted. */
  sweep(): void {
    this.#more = true;
    if (this.#closed) return;
    this.#working ??= this.#sweepAll().finally(() => {
      this.#working = undefined;
    });
  }

  /** Resolves when everything noted has been removed, or cannot be for now. */
  async settled(): Promise<void> {
    await this.#working;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#working;
  }

  async #sweepAll(): Promise<void> {
    while (this.#more && !this.#closed) {
      this.#more = false;
      try {
        await this.#sweep();
      } catch (error) {
        const fields = { snapshotter: this.#snapshotter, error: messageOf(error) };
        this.#log.warn(fields, 'removed snapshots are still with the plugin');
        return;
      }
    }
  }

  async #sweep(): Promise<void> {
    const notes = [...this.#database.list(this.#allKey(), ForeignSnapshot)]
      .filter(({ id }) => !this.#making.has(id))
      // Children before what they are made on.
      .sort((a, b) => b.value.id - a.value.id);
    if (notes.length === 0) return;
    for (const { id: name } of notes) this.#removing.add(name);
    try {
      // One that the plugin has brought itself may be another namespace's as well.
      const recorded = new Set([...this.#tree.all()].map(({ snapshot }) => snapshot.backend));
      for (const { id: name, value: note } of notes) {
        if (this.#closed) return;
        if (!recorded.has(name) && !(await this.#isRemoved(name, note))) continue;
        await this.#database.update((transaction) => transaction.remove(this.#key(name)), {
          observed: false,
        });
        this.#removing.delete(name);
      }
    } finally {
      this.#removing.clear();
    }
  }

  async #isRemoved(name: string, note: ForeignSnapshot): Promise<boolean> {
    try {
      await this.#remove(note, name);
      return true;
    } catch (error) {
      if (isCode(error, Code.NotFound)) return true;
      // Something is made on it that may be removed later.
      if (!isCode(error, Code.FailedPrecondition)) throw error;
      return false;
    }
  }

  #allKey(): Key {
    return ['', Kind.ForeignSnapshot, this.#snapshotter];
  }

  #key(name: string): Key {
    return ['', Kind.ForeignSnapshot, this.#snapshotter, name];
  }
}
