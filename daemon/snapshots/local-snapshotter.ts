/**
 * A snapshotter that keeps records in the metadata and files in folders.
 *
 * What makes it safe against a crash at any point: the record is the truth. Files are made before it is written and removed after it is
 * gone, so that whatever has a record is whole, and a folder without one is nobody's.
 */
import { readdir } from 'node:fs/promises';
import { failedPrecondition, messageOf } from '../../ttrpc/errors.ts';
import { storageError } from '../content/storage-error.ts';
import type { Exchange } from '../events/exchange.ts';
import { reached } from '../failpoint.ts';
import type { Namespace } from '../identifiers.ts';
import type { Logger } from '../log.ts';
import type { Database } from '../metadata/database.ts';
import type { Backend } from './backend.ts';
import { SnapshotNews } from './news.ts';
import { shiftFiles, shiftFor } from './owners.ts';
import { Reclaimer } from './reclaimer.ts';
import { type Creation, type Info, Kind, type Mount, type Snapshotter, type Usage } from './snapshotter.ts';
import { type NewSnapshot, type Recorded, type Snapshot, SnapshotTree, placeOf } from './tree.ts';

/** What a snapshotter is made from. */
export interface Surroundings {
  readonly database: Database;
  readonly exchange: Pick<Exchange, 'publish'>;
  readonly log: Logger;
}

export class LocalSnapshotter implements Snapshotter {
  readonly name: string;
  readonly #backend: Backend;
  readonly #tree: SnapshotTree;
  readonly #reclaimer: Reclaimer;
  readonly #news: SnapshotNews;
  readonly #log: Logger;
  readonly #removesAtOnce: boolean;
  /** Numbers whose files are being made and that have no record yet. */
  readonly #making = new Set<number>();

  private constructor(
    name: string,
    backend: Backend,
    { database, exchange, log }: Surroundings,
    removesAtOnce: boolean,
  ) {
    this.#removesAtOnce = removesAtOnce;
    this.name = name;
    this.#backend = backend;
    this.#tree = new SnapshotTree(database, name);
    this.#reclaimer = new Reclaimer(backend, log);
    this.#news = new SnapshotNews(name, exchange);
    this.#log = log;
  }

  /**
   * Brings records and files together again, whatever ended the daemon before.
   *
   * @param removesAtOnce whether `remove` waits until the files are gone
   */
  static async open(
    name: string,
    backend: Backend,
    surroundings: Surroundings,
    removesAtOnce = false,
  ): Promise<LocalSnapshotter> {
    const snapshotter = new LocalSnapshotter(name, backend, surroundings, removesAtOnce);
    await snapshotter.#recover(surroundings.database);
    return snapshotter;
  }

  stat(namespace: Namespace, key: string): Info {
    return this.#shown(this.#tree.get(namespace, key));
  }

  list(namespace: Namespace, filters: readonly string[] = []): Info[] {
    return this.#tree.list(namespace, filters, (snapshot) => this.#shown(snapshot));
  }

  async prepare(
    namespace: Namespace,
    key: string,
    parent: string,
    creation: Creation = {},
  ): Promise<Mount[]> {
    const mounts = await this.#create(
      namespace,
      newSnapshot(Kind.ACTIVE, key, parent, creation),
      creation.signal,
    );
    this.#news.prepared(namespace, key, parent);
    return mounts;
  }

  view(namespace: Namespace, key: string, parent: string, creation: Creation = {}): Promise<Mount[]> {
    return this.#create(namespace, newSnapshot(Kind.VIEW, key, parent, creation), creation.signal);
  }

  async mounts(namespace: Namespace, key: string): Promise<Mount[]> {
    const snapshot = this.#tree.get(namespace, key);
    if (snapshot.info.kind === Kind.COMMITTED) {
      throw failedPrecondition(`requested snapshot ${key} not active or view: failed precondition`);
    }
    return this.#backend.mounts(placeOf(snapshot));
  }

  async commit(namespace: Namespace, name: string, key: string, creation: Creation = {}): Promise<void> {
    const { labels = {}, lease, signal } = creation;
    const active = this.#tree.checkCommit(namespace, name, key);
    const usage = await this.#measure(active, signal);
    await this.#tree.commit(namespace, { name, key, labels, lease, usage });
    reached('snapshot-committed');
    await this.#seal(active.id);
    this.#news.committed(namespace, key, name);
  }

  update(namespace: Namespace, info: Info, paths: readonly string[] = []): Promise<Info> {
    return this.#tree.update(namespace, info, paths);
  }

  async usage(namespace: Namespace, key: string, signal?: AbortSignal): Promise<Usage> {
    const snapshot = this.#tree.get(namespace, key);
    return snapshot.info.kind === Kind.ACTIVE ? this.#measure(snapshot, signal) : snapshot;
  }

  async remove(namespace: Namespace, key: string, lease?: string): Promise<void> {
    this.reclaim(namespace, await this.#tree.remove(namespace, key, lease));
    if (this.#removesAtOnce) await this.settled();
  }

  /** Resolves when the files of what was removed are gone, as far as that is known here. */
  settled(): Promise<void> {
    return this.#reclaimer.settled();
  }

  async cleanup(): Promise<void> {
    this.#reclaimer.add(await this.#leftovers());
    await this.#reclaimer.settled();
  }

  close(): Promise<void> {
    return this.#reclaimer.close();
  }

  /** For the garbage collection. */
  get tree(): SnapshotTree {
    return this.#tree;
  }

  /** Tells that a snapshot is gone, and lets its files go. */
  reclaim(namespace: Namespace, { id, info: { name: key } }: Snapshot): void {
    this.#reclaimer.add([id]);
    this.#news.removed(namespace, key);
  }

  #shown(snapshot: Snapshot): Info {
    const { info } = snapshot;
    const labels = this.#backend.labels?.(placeOf(snapshot));
    return labels === undefined ? info : { ...info, labels: { ...info.labels, ...labels } };
  }

  async #create(
    namespace: Namespace,
    snapshot: NewSnapshot,
    signal: AbortSignal | undefined,
  ): Promise<Mount[]> {
    const shift = shiftFor(snapshot.kind, snapshot.labels);
    await this.#tree.claimTarget(namespace, snapshot);
    const place = this.#tree.plan(namespace, snapshot);
    this.#making.add(place.id);
    try {
      await this.#backend.create(place, signal);
      if (shift !== undefined) await shiftFiles(this.#backend.mounts(place), shift, signal);
      reached('snapshot-made');
      await this.#tree.create(namespace, snapshot, place);
      reached('snapshot-prepared');
    } catch (error) {
      this.#reclaimer.add([place.id]);
      throw storageError('create snapshot', snapshot.key, error);
    } finally {
      this.#making.delete(place.id);
    }
    return this.#backend.mounts(place);
  }

  async #measure(snapshot: Snapshot, signal: AbortSignal | undefined): Promise<Usage> {
    try {
      return await this.#backend.usage(placeOf(snapshot), signal);
    } catch (error) {
      throw storageError('measure snapshot', snapshot.info.name, error);
    }
  }

  /** After the commit has been recorded, as it cannot fail any more; it is made up for at the next start. */
  async #seal(id: number): Promise<void> {
    try {
      await this.#backend.seal?.(id);
    } catch (error) {
      this.#log.warn(
        { snapshotter: this.name, id, error: messageOf(error) },
        'a committed snapshot can be written to',
      );
    }
  }

  async #recover(database: Database): Promise<void> {
    const folders = new Set(await this.#folders());
    // Children have higher numbers than their parents; the youngest come first.
    const recorded = [...this.#tree.all()].sort((a, b) => b.snapshot.id - a.snapshot.id);
    await this.#forgetLost(database, recorded, folders);
    for (const { snapshot } of recorded) {
      if (!folders.delete(snapshot.id)) continue;
      if (snapshot.info.kind === Kind.COMMITTED && this.#backend.seal !== undefined)
        await this.#seal(snapshot.id);
    }
    // A number whose files are still being removed must not be given again.
    for (const id of folders) this.#tree.skip(id);
    this.#reclaimer.add(folders);
  }

  /**
   * Forgets snapshots whose folder is not there: a power failure can keep a record and lose the folder made before it. Only those that
   * nothing is made on, so that nothing becomes unreachable that could still be rescued.
   */
  async #forgetLost(
    database: Database,
    recorded: readonly Recorded[],
    folders: ReadonlySet<number>,
  ): Promise<void> {
    const used = new Set<number>();
    const lost: Recorded[] = [];
    for (const each of recorded) {
      const { namespace, snapshot } = each;
      const isLost = this.#backend.hasFolder(placeOf(snapshot)) && !folders.has(snapshot.id);
      if (isLost && !used.has(snapshot.id)) lost.push(each);
      else if (snapshot.ancestors[0] !== undefined) used.add(snapshot.ancestors[0]);
      if (!isLost) continue;
      const fields = { snapshotter: this.name, ns: namespace, key: snapshot.info.name, id: snapshot.id };
      this.#log.error(fields, 'the files of a snapshot are gone');
    }
    if (lost.length === 0) return;
    await database.update((transaction) => {
      for (const { namespace, snapshot } of lost) this.#tree.drop(transaction, namespace, snapshot);
    });
  }

  async #folders(): Promise<number[]> {
    const names = await readdir(this.#backend.root);
    return names.filter((name) => /^[1-9]\d{0,9}$/.test(name)).map(Number);
  }

  async #leftovers(): Promise<Iterable<number>> {
    // First the folders, then the records: what is made meanwhile is not among the former.
    const folders = new Set(await this.#folders());
    for (const { snapshot } of this.#tree.all()) folders.delete(snapshot.id);
    for (const id of this.#making) folders.delete(id);
    return folders;
  }
}

function newSnapshot(
  kind: NewSnapshot['kind'],
  key: string,
  parent: string,
  { labels = {}, lease }: Creation,
): NewSnapshot {
  return { kind, key, parent, labels, lease };
}
