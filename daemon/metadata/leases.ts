/** Leases: what a client holds on to while it has no other reference to it yet. */
import { randomBytes } from 'node:crypto';
import { Lease, Resource } from '../../proto/gen/containerd/services/leases.ts';
import { alreadyExists, invalidArgument, notFound, unimplemented } from '../../ttrpc/errors.ts';
import { type Fields, inMap, parseFilters, present } from '../filters/filter.ts';
import { type Namespace, checkLabels } from '../identifiers.ts';
import { timestampNow } from '../timestamp.ts';
import type { Database, Reader, Transaction } from './database.ts';
import { type Labels, set } from './labels.ts';
import { ensureNamespace } from './namespaces.ts';
import { type Key, Kind, MAX_KEY_PART_BYTES } from './schema.ts';

export type { Lease, Resource } from '../../proto/gen/containerd/services/leases.ts';

const keyOf = (namespace: Namespace, id: string): Key => [namespace, Kind.Lease, id];
const resourcesOf = (namespace: Namespace, id: string): Key => [namespace, Kind.LeaseResource, id];

export class LeaseStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws RpcError InvalidArgument for a filter that cannot be read */
  list(namespace: Namespace, filters: readonly string[] = []): Lease[] {
    const filter = parseFilters(filters);
    const leases: Lease[] = [];
    for (const { value } of this.#database.list([namespace, Kind.Lease], Lease)) {
      if (filter(fieldsOf(value))) leases.push(value);
    }
    return leases;
  }

  /**
   * Creates a lease, and its namespace if it is the first thing there.
   *
   * @param id empty for one of the store's own making
   * @throws RpcError AlreadyExists, InvalidArgument
   */
  create(namespace: Namespace, id: string, labels: Labels): Promise<Lease> {
    checkLabels('lease.Labels', labels);
    const lease = {
      id: id === '' ? generateId() : checkPart('lease id', id),
      labels: set({}, labels),
      createdAt: timestampNow(),
    };
    return this.#database.update((transaction) => {
      const key = keyOf(namespace, lease.id);
      if (transaction.has(key)) throw alreadyExists(`lease "${lease.id}": already exists`);
      ensureNamespace(transaction, namespace);
      transaction.put(key, Lease, lease);
      return lease;
    });
  }

  /** Deletes the lease and lets go of its resources. @throws RpcError NotFound */
  delete(namespace: Namespace, id: string): Promise<void> {
    return this.#database.update((transaction) => {
      mustExist(transaction, namespace, id);
      transaction.remove(keyOf(namespace, id));
      transaction.removeBelow(resourcesOf(namespace, id));
    });
  }

  /** @throws RpcError NotFound */
  resources(namespace: Namespace, id: string): Resource[] {
    mustExist(this.#database, namespace, id);
    return [...this.#database.rest(resourcesOf(namespace, id))].map(([type, id]) => ({
      type: type!,
      id: id!,
    }));
  }

  /** @throws RpcError NotFound, InvalidArgument, Unimplemented for a type that leases cannot hold */
  addResource(namespace: Namespace, id: string, resource: Resource): Promise<void> {
    checkResource(resource);
    return this.#database.update((transaction) => {
      mustExist(transaction, namespace, id);
      transaction.put([...resourcesOf(namespace, id), resource.type, resource.id], Resource, resource);
    });
  }

  /** Lets go of a resource, whether or not it was held. @throws RpcError as `addResource` */
  deleteResource(namespace: Namespace, id: string, resource: Resource): Promise<void> {
    checkResource(resource);
    return this.#database.update((transaction) => {
      mustExist(transaction, namespace, id);
      transaction.remove([...resourcesOf(namespace, id), resource.type, resource.id]);
    });
  }
}

/**
 * Makes a lease hold something that the same transaction creates. Does nothing without a lease.
 *
 * @throws RpcError NotFound
 */
export function addToLease(
  transaction: Transaction,
  namespace: Namespace,
  lease: string | undefined,
  resource: Resource,
): void {
  if (lease === undefined) return;
  mustExist(transaction, namespace, lease);
  transaction.put([...resourcesOf(namespace, lease), resource.type, resource.id], Resource, resource);
}

/** Makes a lease let go of something that the same transaction removes. */
export function removeFromLease(
  transaction: Transaction,
  namespace: Namespace,
  lease: string | undefined,
  { type, id }: Resource,
): void {
  if (lease !== undefined) transaction.remove([...resourcesOf(namespace, lease), type, id]);
}

/** A name nobody has, in the form that clients make their own in: nanoseconds and a few random characters. */
function generateId(): string {
  return `${timestampNow().nanos}-${randomBytes(6).toString('base64url')}`;
}

function mustExist(reader: Reader, namespace: Namespace, id: string): void {
  if (id.length > MAX_KEY_PART_BYTES || !reader.has(keyOf(namespace, id)))
    throw notFound(`lease "${id}": not found`);
}

function checkPart(what: string, value: string): string {
  if (value === '') throw invalidArgument(`${what} must not be empty: invalid argument`);
  if (Buffer.byteLength(value) > MAX_KEY_PART_BYTES) {
    throw invalidArgument(`${what} is longer than ${MAX_KEY_PART_BYTES} bytes: invalid argument`);
  }
  return value;
}

/** Hexadecimal digits of each digest algorithm. */
const digest = /^(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$/;

/** Types are `content`, `ingests`, `images` and `snapshots/SNAPSHOTTER`. */
function checkResource({ id, type }: Resource): void {
  checkPart('resource id', id);
  const [kind, ...rest] = type.split('/');
  const count = { content: 0, ingests: 0, images: 0, snapshots: 1 }[kind!];
  if (count === undefined) throw unimplemented(`resource type ${type} not supported: not implemented`);
  if (rest.length !== count || rest.includes(''))
    throw invalidArgument(`invalid resource type ${type}: invalid argument`);
  checkPart('resource type', type);
  if (kind === 'content' && !digest.test(id)) {
    throw invalidArgument(`invalid content resource id ${id}: not a digest: invalid argument`);
  }
}

function fieldsOf(lease: Lease): Fields {
  return ([first, ...rest]) => {
    if (first === 'id') return present(lease.id);
    return first === 'labels' ? inMap(lease.labels, rest) : undefined;
  };
}
