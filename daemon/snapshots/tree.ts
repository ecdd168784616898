/**
 * Snapshots as the metadata knows them: which there are, what they are made on, and under which number their files are. Every change
 * is one transaction.
 */
import { Snapshot as Message, SnapshotSequence } from '../../proto/gen/moor/metadata/snapshot.ts';
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from '../../ttrpc/errors.ts';
import { parseFilters } from '../filters/filter.ts';
import { type Namespace, checkLabels } from '../identifiers.ts';
import type { Database, Reader, Transaction } from '../metadata/database.ts';
import { set } from '../metadata/labels.ts';
import { addToLease, removeFromLease } from '../metadata/leases.ts';
import { ensureNamespace } from '../metadata/namespaces.ts';
import { type Key, Kind as RecordKind, MAX_KEY_PART_BYTES, snapshotKind } from '../metadata/schema.ts';
import { timestampNow } from '../timestamp.ts';
import type { Place } from './backend.ts';
import { fieldsOf, withPath } from './fields.ts';
import { type Info, Kind, type Usage } from './snapshotter.ts';

/** A snapshot's record. */
export interface Snapshot extends Message {
  info: Info;
}

/** A snapshot with its namespace. */
export interface Recorded {
  readonly namespace: Namespace;
  readonly snapshot: Snapshot;
}

export interface NewSnapshot {
  readonly key: string;
  /** Committed ones are found whole where somebody else has made them. */
  readonly kind: Exclude<Kind, typeof Kind.UNKNOWN>;
  /** Empty for none. */
  readonly parent: string;
  readonly labels: { readonly [key: string]: string };
  readonly lease: string | undefined;
}

/** What a transaction is about beside a snapshot's own records. */
export interface Beside {
  /** The snapshot's name in another process that has its files. */
  readonly backend?: string;
  /** Done in the same transaction. */
  readonly also?: (transaction: Transaction, snapshot: Snapshot) => void;
}

export interface NewCommit {
  readonly name: string;
  readonly key: string;
  readonly labels: { readonly [key: string]: string };
  readonly lease: string | undefined;
  readonly usage: Usage;
}

/** Names the snapshot that a client is about to make out of the one it prepares. */
const TARGET = 'containerd.io/snapshot.ref';

export function placeOf({ id, info, ancestors }: Snapshot): Place {
  return { id, kind: info.kind, ancestors };
}

export class SnapshotTree {
  /** Of its records. */
  readonly kind: string;
  readonly #database: Database;
  readonly #snapshotter: string;
  #lastId: number;

  constructor(database: Database, snapshotter: string) {
    this.#database = database;
    this.#snapshotter = snapshotter;
    this.kind = snapshotKind(snapshotter);
    this.#lastId = database.get(this.#sequenceKey(), SnapshotSequence)?.last ?? 0;
  }

  /** @throws RpcError NotFound */
  get(namespace: Namespace, key: string): Snapshot {
    return this.#get(this.#database, namespace, key);
  }

  has(namespace: Namespace, key: string): boolean {
    return this.find(this.#database, namespace, key) !== undefined;
  }

  /** @throws RpcError InvalidArgument for a filter that cannot be read */
  list(
    namespace: Namespace,
    filters: readonly string[],
    shown: (snapshot: Snapshot) => Info = ({ info }) => info,
  ): Info[] {
    const filter = parseFilters(filters);
    const infos: Info[] = [];
    for (const snapshot of this.from(this.#database, namespace)) {
      const info = shown(snapshot);
      if (filter(fieldsOf(info))) infos.push(info);
    }
    return infos;
  }

  /** A namespace's snapshots as the reader sees them. */
  *from(reader: Reader, namespace: Namespace): Generator<Snapshot, void, undefined> {
    for (const { value } of reader.list([namespace, this.kind], Message)) yield whole(value);
  }

  /** The snapshots of all namespaces. */
  *all(): Generator<Recorded, void, undefined> {
    for (const [namespace] of this.#database.rest(['', RecordKind.Namespace])) {
      for (const snapshot of this.from(this.#database, namespace as Namespace))
        yield { namespace: namespace as Namespace, snapshot };
    }
  }

  /** Gives no number any more up to this one. */
  skip(id: number): void {
    this.#lastId = Math.max(this.#lastId, id);
  }

  /** Has the lease hold the snapshot that the new one is to become, when that is there already. @throws RpcError NotFound for the lease */
  async claimTarget(namespace: Namespace, { labels, lease }: NewSnapshot): Promise<void> {
    const target = targetOf(labels);
    if (lease === undefined || target === '' || this.find(this.#database, namespace, target) === undefined)
      return;
    await this.#database.update((transaction) => {
      if (this.find(transaction, namespace, target) !== undefined)
        addToLease(transaction, namespace, lease, this.#resource(target));
    });
  }

  /**
   * Where the files of a new snapshot go, under a number of its own. There is no record of it yet.
   *
   * @throws RpcError as `create`
   */
  plan(namespace: Namespace, snapshot: NewSnapshot): Place {
    const ancestors = this.#ancestors(this.#database, namespace, snapshot);
    this.#lastId += 1;
    return { id: this.#lastId, kind: snapshot.kind, ancestors };
  }

  /**
   * Records a snapshot whose files are there.
   *
   * @throws RpcError AlreadyExists for the key and the target; NotFound for the parent, also when it is another one by now, and for
   *         the lease; InvalidArgument
   */
  create(
    namespace: Namespace,
    snapshot: NewSnapshot,
    place: Place,
    { backend = '', also }: Beside = {},
  ): Promise<Snapshot> {
    const { key, kind, parent, labels, lease } = snapshot;
    return this.#database.update((transaction) => {
      const ancestors = this.#ancestors(transaction, namespace, snapshot);
      if (ancestors[0] !== place.ancestors[0]) throw missingParent(parent);
      ensureNamespace(transaction, namespace);
      addToLease(transaction, namespace, lease, this.#resource(key));
      const now = timestampNow();
      const info = { name: key, parent, kind, labels: set({}, labels), createdAt: now, updatedAt: now };
      const record = { id: place.id, info, ancestors, size: 0n, inodes: 0n, backend };
      transaction.put(this.#key(namespace, key), Message, record);
      if (ancestors[0] !== undefined) {
        transaction.put(this.#childKey(namespace, ancestors[0], place.id), SnapshotSequence, {
          last: place.id,
        });
      }
      // Numbers are taken before their records are written: also those that came to nothing are never given again.
      transaction.put(this.#sequenceKey(), SnapshotSequence, { last: this.#lastId });
      also?.(transaction, record);
      return record;
    });
  }

  /** @throws RpcError NotFound, AlreadyExists, FailedPrecondition */
  commit(
    namespace: Namespace,
    { name, key, labels, lease, usage }: NewCommit,
    { backend = '', also }: Beside = {},
  ): Promise<Snapshot> {
    checkLabels('info.Labels', labels);
    return this.#database.update((transaction) => {
      const active = this.checkCommit(namespace, name, key, transaction);
      const now = timestampNow();
      const info = {
        ...active.info,
        name,
        kind: Kind.COMMITTED,
        labels: set({}, labels),
        createdAt: now,
        updatedAt: now,
      };
      const record = { ...active, ...usage, info, backend };
      addToLease(transaction, namespace, lease, this.#resource(name));
      removeFromLease(transaction, namespace, lease, this.#resource(key));
      transaction.remove(this.#key(namespace, key));
      transaction.put(this.#key(namespace, name), Message, record);
      also?.(transaction, record);
      return record;
    });
  }

  /** The snapshot that is to be committed, if it can be. @throws RpcError as `commit` */
  checkCommit(namespace: Namespace, name: string, key: string, reader: Reader = this.#database): Snapshot {
    checkKey(name);
    if (reader.has(this.#key(namespace, name))) throw alreadyExists(`snapshot "${name}": already exists`);
    const snapshot = this.#get(reader, namespace, key);
    if (snapshot.info.kind !== Kind.ACTIVE) {
      throw failedPrecondition(
        `failed to commit snapshot: snapshot "${key}" is not active: failed precondition`,
      );
    }
    return snapshot;
  }

  /** @throws RpcError NotFound, InvalidArgument */
  update(namespace: Namespace, { name, labels }: Info, paths: readonly string[]): Promise<Info> {
    return this.#database.update((transaction) => {
      const old = this.#get(transaction, namespace, name);
      const changed = paths.length === 0 ? labels : paths.reduce(withPath(name, labels), old.info.labels);
      checkLabels('info.Labels', changed);
      const info = { ...old.info, labels: set({}, changed), updatedAt: timestampNow() };
      transaction.put(this.#key(namespace, name), Message, { ...old, info });
      return info;
    });
  }

  /** @returns what was removed @throws RpcError NotFound, FailedPrecondition when it has children */
  remove(
    namespace: Namespace,
    key: string,
    lease: string | undefined,
    { also }: Pick<Beside, 'also'> = {},
  ): Promise<Snapshot> {
    return this.#database.update((transaction) => {
      const snapshot = this.#get(transaction, namespace, key);
      if (!transaction.isEmpty(this.#childrenKey(namespace, snapshot.id))) {
        throw failedPrecondition(`cannot remove snapshot "${key}" with child: failed precondition`);
      }
      this.drop(transaction, namespace, snapshot);
      removeFromLease(transaction, namespace, lease, this.#resource(key));
      also?.(transaction, snapshot);
      return snapshot;
    });
  }

  /** Removes the record, whether or not there are children: for who removes those as well. */
  drop(transaction: Transaction, namespace: Namespace, { id, info, ancestors: [parent] }: Snapshot): void {
    transaction.remove(this.#key(namespace, info.name));
    if (parent !== undefined) transaction.remove(this.#childKey(namespace, parent, id));
  }

  #get(reader: Reader, namespace: Namespace, key: string): Snapshot {
    const snapshot = this.find(reader, namespace, key);
    if (snapshot === undefined) throw notFound(`snapshot ${key} does not exist: not found`);
    return snapshot;
  }

  /** The snapshot, if it is there. */
  find(reader: Reader, namespace: Namespace, key: string): Snapshot | undefined {
    // What cannot be a key, no snapshot has.
    if (Buffer.byteLength(key) > MAX_KEY_PART_BYTES) return undefined;
    const message = reader.get(this.#key(namespace, key), Message);
    return message && whole(message);
  }

  /** Checks that a snapshot can be created. @returns the numbers of its ancestors */
  #ancestors(reader: Reader, namespace: Namespace, { key, parent, labels }: NewSnapshot): number[] {
    checkKey(key);
    checkLabels('info.Labels', labels);
    const target = targetOf(labels);
    if (target !== '' && this.find(reader, namespace, target) !== undefined) {
      throw alreadyExists(`target snapshot "${target}": already exists`);
    }
    if (reader.has(this.#key(namespace, key))) throw alreadyExists(`snapshot "${key}": already exists`);
    if (parent === '') return [];
    const found = this.find(reader, namespace, parent);
    if (found === undefined) throw missingParent(parent);
    if (found.info.kind !== Kind.COMMITTED) {
      throw invalidArgument(
        `failed to create snapshot: parent "${parent}" is not committed snapshot: invalid argument`,
      );
    }
    return [found.id, ...found.ancestors];
  }

  #key(namespace: Namespace, key: string): Key {
    return [namespace, this.kind, key];
  }

  #childrenKey(namespace: Namespace, id: number): Key {
    return [namespace, RecordKind.SnapshotChild, this.#snapshotter, String(id)];
  }

  #childKey(namespace: Namespace, parent: number, id: number): Key {
    return [...this.#childrenKey(namespace, parent), String(id)];
  }

  #sequenceKey(): Key {
    return ['', RecordKind.SnapshotSequence, this.#snapshotter];
  }

  #resource(key: string): { type: string; id: string } {
    return { type: `snapshots/${this.#snapshotter}`, id: key };
  }
}

/** Empty when it is to become none in particular, which no snapshot is called. */
function targetOf(labels: NewSnapshot['labels']): string {
  return Object.hasOwn(labels, TARGET) ? labels[TARGET]! : '';
}

function whole(message: Message): Snapshot {
  const { info } = message;
  if (info === undefined) throw new Error(`the metadata is damaged: snapshot ${message.id} has no name`);
  return { ...message, info };
}

function missingParent(parent: string): Error {
  return notFound(`parent snapshot ${parent} does not exist: not found`);
}

function checkKey(key: string): void {
  if (key === '') throw invalidArgument('a snapshot must have a key: invalid argument');
  if (Buffer.byteLength(key) > MAX_KEY_PART_BYTES) {
    throw invalidArgument(`a snapshot's key is longer than ${MAX_KEY_PART_BYTES} bytes: invalid argument`);
  }
}
