/** Containers: what a task is made from. */
import { Container } from '../../proto/gen/containerd/services/containers.ts';
import { alreadyExists, invalidArgument, notFound } from '../../ttrpc/errors.ts';
import { type Fields, inMap, parseFilters, present } from '../filters/filter.ts';
import { type ContainerId, type Namespace, checkIdentifier, checkLabels, parseId } from '../identifiers.ts';
import { timestampNow } from '../timestamp.ts';
import type { Database } from './database.ts';
import { set, withEntry } from './labels.ts';
import { ensureNamespace } from './namespaces.ts';
import { type Key, Kind } from './schema.ts';

export type { Container } from '../../proto/gen/containerd/services/containers.ts';

const keyOf = (namespace: Namespace, id: string): Key => [namespace, Kind.Container, id];

/** Fields that an update without paths replaces. Runtime and snapshotter stay as they were made. */
const REPLACEABLE = ['labels', 'spec', 'extensions', 'image', 'snapshotkey'];

export class ContainerStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws RpcError NotFound */
  get(namespace: Namespace, id: ContainerId): Container {
    return found(this.#database.get(keyOf(namespace, id), Container), namespace, id);
  }

  /** @throws RpcError InvalidArgument for a filter that cannot be read */
  list(namespace: Namespace, filters: readonly string[] = []): Container[] {
    const filter = parseFilters(filters);
    const containers: Container[] = [];
    for (const { value } of this.#database.list([namespace, Kind.Container], Container)) {
      if (filter(fieldsOf(value))) containers.push(value);
    }
    return containers;
  }

  /**
   * Stores a new container, and its namespace if it is the first one there.
   *
   * @returns it as stored: with its times, without empty labels
   * @throws RpcError AlreadyExists, InvalidArgument for a container that makes no sense
   */
  create(namespace: Namespace, container: Container): Promise<Container> {
    check(container, 'create container failed validation');
    return this.#database.update((transaction) => {
      const key = keyOf(namespace, container.id);
      if (transaction.has(key)) throw alreadyExists(`container "${container.id}": already exists`);
      ensureNamespace(transaction, namespace);
      const now = timestampNow();
      const created = { ...container, labels: set({}, container.labels), createdAt: now, updatedAt: now };
      transaction.put(key, Container, created);
      return created;
    });
  }

  /**
   * Changes the fields that the paths name, or all that can be changed when there are none. `labels.KEY` and
   * `extensions.KEY` change one entry, and remove it when the given container has none.
   *
   * @throws RpcError NotFound, InvalidArgument for a field that cannot be changed
   */
  update(namespace: Namespace, container: Container, paths: readonly string[]): Promise<Container> {
    const id = parseId(container.id);
    return this.#database.update((transaction) => {
      const key = keyOf(namespace, id);
      const old = found(transaction.get(key, Container), namespace, id);
      if (paths.length === 0) checkUnchanged(old, container);
      const changed = (paths.length === 0 ? REPLACEABLE : paths).reduce(
        (result, path) => withField(result, container, path),
        old,
      );
      check(changed, 'update failed validation');
      const updated = { ...changed, labels: set({}, changed.labels), updatedAt: timestampNow() };
      transaction.put(key, Container, updated);
      return updated;
    });
  }

  /** @throws RpcError NotFound */
  delete(namespace: Namespace, id: ContainerId): Promise<void> {
    return this.#database.update((transaction) => {
      const key = keyOf(namespace, id);
      if (!transaction.has(key)) throw missing(namespace, id);
      transaction.remove(key);
    });
  }
}

function missing(namespace: string, id: string): Error {
  return notFound(`container "${id}" in namespace "${namespace}": not found`);
}

function found(container: Container | undefined, namespace: string, id: string): Container {
  if (container === undefined) throw missing(namespace, id);
  return container;
}

function checkUnchanged(old: Container, container: Container): void {
  if (old.snapshotter !== container.snapshotter) {
    throw invalidArgument('container.Snapshotter field is immutable: invalid argument');
  }
  if ((old.runtime?.name ?? '') !== (container.runtime?.name ?? '')) {
    throw invalidArgument('container.Runtime.Name field is immutable: invalid argument');
  }
}

/** One field taken over from another container. */
function withField(old: Container, from: Container, path: string): Container {
  switch (path) {
    case 'labels':
      return { ...old, labels: from.labels };
    case 'spec':
      return { ...old, spec: from.spec };
    case 'extensions':
      return { ...old, extensions: from.extensions };
    case 'image':
      return { ...old, image: from.image };
    case 'snapshotkey':
      return { ...old, snapshotKey: from.snapshotKey };
    default:
      if (path.startsWith('labels.')) return { ...old, labels: withEntry(old.labels, from.labels, path) };
      if (path.startsWith('extensions.')) {
        return { ...old, extensions: withEntry(old.extensions, from.extensions, path) };
      }
      throw invalidArgument(`cannot update "${path}" field on "${from.id}": invalid argument`);
  }
}

function check(container: Container, what: string): void {
  try {
    checkIdentifier(container.id);
  } catch (error) {
    throw invalidArgument(`${what}: container.ID: ${(error as Error).message}`, error);
  }
  const refuse = (why: string): never => {
    throw invalidArgument(`${what}: ${why}: invalid argument`);
  };
  if (Object.hasOwn(container.extensions, '')) refuse('container.Extension keys must not be zero-length');
  checkLabels(`${what}: containers.Labels`, container.labels);
  if (container.runtime === undefined || container.runtime.name === '')
    refuse('container.Runtime.Name must be set');
  if (container.spec === undefined) refuse('container.Spec must be set');
  if (container.snapshotKey !== '' && container.snapshotter === '') {
    refuse('container.Snapshotter must be set if container.SnapshotKey is set');
  }
}

function fieldsOf(container: Container): Fields {
  return ([first = '', ...rest]) => {
    switch (first) {
      case 'id':
        return present(container.id);
      case 'runtime':
        return rest[0] === 'name' ? present(container.runtime?.name) : undefined;
      case 'image':
        return present(container.image);
      case 'labels':
        return inMap(container.labels, rest);
      default:
        return undefined;
    }
  };
}
