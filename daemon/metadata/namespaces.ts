/** Namespaces and their labels. */
import { Namespace } from '../../proto/gen/containerd/services/namespaces.ts';
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from '../../ttrpc/errors.ts';
import { type Fields, inMap, parseFilters, present } from '../filters/filter.ts';
import { type Namespace as Name, checkLabels } from '../identifiers.ts';
import type { Database, Reader, Transaction } from './database.ts';
import { type Labels, set } from './labels.ts';
import { type Key, Kind, contents, snapshotKind } from './schema.ts';

export type { Namespace } from '../../proto/gen/containerd/services/namespaces.ts';

const all: Key = ['', Kind.Namespace];
const keyOf = (name: string): Key => [...all, name];

export class NamespaceStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * The namespace with its labels. One that does not exist has none: clients ask for the labels of the namespace that they
   * are about to create their first container in.
   */
  get(name: Name): Namespace {
    return this.#database.get(keyOf(name), Namespace) ?? { name, labels: {} };
  }

  /** @throws RpcError InvalidArgument for a filter that cannot be read */
  list(filters: readonly string[] = []): Namespace[] {
    const filter = parseFilters(filters);
    const namespaces: Namespace[] = [];
    for (const { value } of this.#database.list(all, Namespace)) {
      if (filter(fieldsOf(value))) namespaces.push(value);
    }
    return namespaces;
  }

  /** @throws RpcError AlreadyExists, InvalidArgument for labels that are too long */
  create(name: Name, labels: Labels): Promise<Namespace> {
    checkLabels('namespace.Labels', labels);
    return this.#database.update((transaction) => {
      if (transaction.has(keyOf(name))) throw alreadyExists(`namespace "${name}": already exists`);
      return put(transaction, { name, labels: set({}, labels) });
    });
  }

  /**
   * Changes labels: those that the paths (`labels.KEY`) name, or all of them when there are no paths. An empty value removes
   * a label. The namespace comes into being if it was not there.
   *
   * @throws RpcError InvalidArgument for another path and for labels that are too long
   */
  update(name: Name, labels: Labels, paths: readonly string[]): Promise<Namespace> {
    checkLabels('namespace.Labels', labels);
    const keys = paths.map(labelOf);
    return this.#database.update((transaction) => {
      const old = transaction.get(keyOf(name), Namespace)?.labels ?? {};
      if (keys.length === 0) return put(transaction, { name, labels: set({}, labels) });
      const changes = Object.fromEntries(
        keys.map((key) => [key, Object.hasOwn(labels, key) ? labels[key]! : '']),
      );
      return put(transaction, { name, labels: set(old, changes) });
    });
  }

  /** @throws RpcError NotFound, FailedPrecondition that says what is left in it */
  delete(name: Name): Promise<void> {
    return this.#database.update((transaction) => {
      const snapshots = snapshottersIn(transaction).map((snapshotter) => ({
        kind: snapshotKind(snapshotter),
        plural: `snapshots on "${snapshotter}" snapshotter`,
      }));
      const left = [...contents, ...snapshots]
        .filter(({ kind }) => !transaction.isEmpty([name, kind]))
        .map(({ plural }) => plural);
      if (left.length > 0) {
        throw failedPrecondition(
          `namespace "${name}" must be empty, but it still has ${left.join(', ')}: failed precondition`,
        );
      }
      if (!transaction.has(keyOf(name))) throw notFound(`namespace "${name}": not found`);
      transaction.remove(keyOf(name));
      // Leases hold nothing together any more, and what is half written will never be whole; they go with it.
      transaction.removeBelow([name, Kind.Lease]);
      transaction.removeBelow([name, Kind.LeaseResource]);
      transaction.removeBelow([name, Kind.Ingest]);
    });
  }
}

/** The snapshotters that have ever made a snapshot, whether or not they are there now. */
export function snapshottersIn(reader: Reader): string[] {
  return [...reader.rest(['', Kind.SnapshotSequence])].map(([snapshotter]) => snapshotter!);
}

/** Creates the namespace of a record that is about to be written, if it is its first one. */
export function ensureNamespace(transaction: Transaction, name: Name): void {
  if (!transaction.has(keyOf(name))) put(transaction, { name, labels: {} });
}

function put(transaction: Transaction, namespace: Namespace): Namespace {
  transaction.put(keyOf(namespace.name), Namespace, namespace);
  return namespace;
}

function labelOf(path: string): string {
  if (path.startsWith('labels.')) return path.slice('labels.'.length);
  throw invalidArgument(`cannot update "${path}" field: invalid argument`);
}

function fieldsOf(namespace: Namespace): Fields {
  return ([first, ...rest]) => {
    if (first === 'name') return present(namespace.name);
    return first === 'labels' ? inMap(namespace.labels, rest) : undefined;
  };
}
