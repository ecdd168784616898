/** Sandboxes: what a group of containers is made from, as clients of the 2.x line keep it. What runs them is in `sandbox/`. */
import { Sandbox } from '../../proto/gen/containerd/types/sandbox.ts';
import { alreadyExists, invalidArgument, notFound } from '../../ttrpc/errors.ts';
import { type Fields, inMap, parseFilters, present } from '../filters/filter.ts';
import { type Namespace, checkIdentifier, checkLabels } from '../identifiers.ts';
import { timestampNow } from '../timestamp.ts';
import type { Database } from './database.ts';
import { set, withEntry } from './labels.ts';
import { ensureNamespace } from './namespaces.ts';
import { type Key, Kind } from './schema.ts';

const keyOf = (namespace: Namespace, id: string): Key => [namespace, Kind.Sandbox, id];

/** Fields that an update without paths replaces. */
const REPLACEABLE = ['labels', 'extensions', 'spec', 'runtime'];

export class SandboxStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws RpcError NotFound */
  get(namespace: Namespace, id: string): Sandbox {
    checkId(id);
    return found(this.#database.get(keyOf(namespace, id), Sandbox), id);
  }

  list(namespace: Namespace): Sandbox[] {
    return Array.from(this.#database.list([namespace, Kind.Sandbox], Sandbox), ({ value }) => value);
  }

  /**
   * Stores a new sandbox, and its namespace if it is the first thing there.
   *
   * @returns it as stored: with its times, without empty labels
   * @throws RpcError AlreadyExists, InvalidArgument
   */
  create(namespace: Namespace, sandbox: Sandbox): Promise<Sandbox> {
    check(sandbox);
    return this.#database.update((transaction) => {
      const key = keyOf(namespace, sandbox.sandboxId);
      if (transaction.has(key)) throw alreadyExists(`sandbox "${sandbox.sandboxId}": already exists`);
      ensureNamespace(transaction, namespace);
      const now = timestampNow();
      const created = { ...sandbox, labels: set({}, sandbox.labels), createdAt: now, updatedAt: now };
      transaction.put(key, Sandbox, created);
      return created;
    });
  }

  /**
   * Changes the fields that the paths name, or all that can be changed when there are none. `labels.KEY` and `extensions.KEY`
   * change one entry, and remove it when the given sandbox has none.
   *
   * @throws RpcError NotFound, InvalidArgument for a field that cannot be changed
   */
  update(namespace: Namespace, sandbox: Sandbox, paths: readonly string[]): Promise<Sandbox> {
    check(sandbox);
    const { sandboxId: id } = sandbox;
    return this.#database.update((transaction) => {
      const key = keyOf(namespace, id);
      const old = found(transaction.get(key, Sandbox), id);
      if (paths.length === 0 && (old.runtime?.name ?? '') !== (sandbox.runtime?.name ?? ''))
        throw invalidArgument('sandbox.Runtime.Name field is immutable: invalid argument');
      const changed = (paths.length === 0 ? REPLACEABLE : paths).reduce(
        (result, path) => withField(result, sandbox, path),
        old,
      );
      const updated = { ...changed, labels: set({}, changed.labels), updatedAt: timestampNow() };
      transaction.put(key, Sandbox, updated);
      return updated;
    });
  }

  /** @throws RpcError NotFound */
  delete(namespace: Namespace, id: string): Promise<void> {
    checkId(id);
    return this.#database.update((transaction) => {
      const key = keyOf(namespace, id);
      if (!transaction.has(key)) throw missing(id);
      transaction.remove(key);
    });
  }
}

/** @throws RpcError InvalidArgument for a filter that cannot be read */
export function sandboxFilter(filters: readonly string[]): (sandbox: Sandbox) => boolean {
  const filter = parseFilters(filters);
  return (sandbox) => filter(fieldsOf(sandbox));
}

function missing(id: string): Error {
  return notFound(`sandbox "${id}": not found`);
}

function found(sandbox: Sandbox | undefined, id: string): Sandbox {
  if (sandbox === undefined) throw missing(id);
  return sandbox;
}

function withField(old: Sandbox, from: Sandbox, path: string): Sandbox {
  switch (path) {
    case 'labels':
      return { ...old, labels: from.labels };
    case 'extensions':
      return { ...old, extensions: from.extensions };
    case 'spec':
      return { ...old, spec: from.spec };
    case 'runtime':
      return { ...old, runtime: from.runtime };
    default:
      if (path.startsWith('labels.')) return { ...old, labels: withEntry(old.labels, from.labels, path) };
      if (path.startsWith('extensions.'))
        return { ...old, extensions: withEntry(old.extensions, from.extensions, path) };
      throw invalidArgument(`cannot update "${path}" field on sandbox "${from.sandboxId}": invalid argument`);
  }
}

function checkId(id: string): void {
  try {
    checkIdentifier(id);
  } catch (error) {
    throw invalidArgument(`invalid sandbox ID: ${(error as Error).message}`, error);
  }
}

function check({ sandboxId, labels, extensions }: Sandbox): void {
  checkId(sandboxId);
  checkLabels('sandbox.Labels', labels);
  if (Object.hasOwn(extensions, ''))
    throw invalidArgument('sandbox.Extension keys must not be zero-length: invalid argument');
}

function fieldsOf(sandbox: Sandbox): Fields {
  return ([first = '', ...rest]) => {
    switch (first) {
      case 'id':
        return present(sandbox.sandboxId);
      case 'runtime':
        return rest[0] === 'name' ? present(sandbox.runtime?.name) : undefined;
      case 'sandboxer':
        return present(sandbox.sandboxer);
      case 'labels':
        return inMap(sandbox.labels, rest);
      default:
        return undefined;
    }
  };
}
