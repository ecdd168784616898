/** What the metadata says of networks, and of links that are being made. */
import { Network as Stored, NetworkStage, PendingLink } from '../../proto/gen/moor/metadata/network.ts';
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from '../../ttrpc/errors.ts';
import type { RpcError } from '../../ttrpc/errors.ts';
import { type Namespace, type NetworkName, checkLabels } from '../identifiers.ts';
import type { Database, Reader } from '../metadata/database.ts';
import { type Labels, set } from '../metadata/labels.ts';
import { ensureNamespace } from '../metadata/namespaces.ts';
import { type Key, Kind } from '../metadata/schema.ts';
import { timestampNow } from '../timestamp.ts';

export { NetworkStage } from '../../proto/gen/moor/metadata/network.ts';
export type { Network as Stored } from '../../proto/gen/moor/metadata/network.ts';

const keyOf = (namespace: Namespace, name: string): Key => [namespace, Kind.Network, name];
const pendingKey = (group: number): Key => ['', Kind.PendingLink, String(group)];

/** A record with the names it is stored under. */
export interface Found {
  readonly namespace: Namespace;
  readonly name: NetworkName;
  readonly stored: Stored;
}

export class NetworkRecords {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** One that clients can see. @throws RpcError NotFound */
  get(namespace: Namespace, name: NetworkName): Stored {
    return ready(this.#database, namespace, name);
  }

  find(namespace: Namespace, name: NetworkName): Stored | undefined {
    return this.#database.get(keyOf(namespace, name), Stored);
  }

  list(namespace: Namespace): Found[] {
    const found = [...this.#database.list([namespace, Kind.Network], Stored)];
    return found.map(({ id, value: stored }) => ({ namespace, name: id as NetworkName, stored }));
  }

  /** Those of all namespaces. */
  all(): Found[] {
    const namespaces = [...this.#database.rest(['', Kind.Namespace])];
    return namespaces.flatMap(([namespace]) => this.list(namespace as Namespace));
  }

  /** Says that a network is about to be made. @throws RpcError AlreadyExists, InvalidArgument */
  async begin(namespace: Namespace, name: NetworkName, labels: Labels): Promise<void> {
    checkLabels('network.Labels', labels);
    await this.#database.update((transaction) => {
      if (transaction.has(keyOf(namespace, name))) throw alreadyExists(`network "${name}": already exists`);
      ensureNamespace(transaction, namespace);
      transaction.put(keyOf(namespace, name), Stored, {
        labels: set({}, labels),
        createdAt: timestampNow(),
        stage: NetworkStage.NETWORK_STAGE_MAKING,
      });
    });
  }

  /** Says how far a network is. */
  async advance(namespace: Namespace, name: NetworkName, stage: NetworkStage): Promise<Stored> {
    return this.#database.update((transaction) => {
      const old = transaction.get(keyOf(namespace, name), Stored);
      if (old === undefined) throw missing(name);
      const stored = { ...old, stage };
      transaction.put(keyOf(namespace, name), Stored, stored);
      return stored;
    });
  }

  /** @param paths `labels.KEY` each; none for all labels @throws RpcError NotFound, InvalidArgument */
  async label(
    namespace: Namespace,
    name: NetworkName,
    labels: Labels,
    paths: readonly string[],
  ): Promise<Stored> {
    checkLabels('network.Labels', labels);
    const keys = paths.map(labelOf);
    return this.#database.update((transaction) => {
      const old = ready(transaction, namespace, name);
      const changes = keys.map((key) => [key, Object.hasOwn(labels, key) ? labels[key]! : '']);
      const changed =
        paths.length === 0 ? set({}, labels) : set(old.labels, Object.fromEntries(changes) as Labels);
      const stored = { ...old, labels: changed };
      transaction.put(keyOf(namespace, name), Stored, stored);
      return stored;
    });
  }

  async remove(namespace: Namespace, name: NetworkName): Promise<void> {
    await this.#database.update((transaction) => transaction.remove(keyOf(namespace, name)));
  }

  /** Says that a link is about to be made that will be in this group until it is done. */
  async beginLink(group: number, place: PendingLink): Promise<void> {
    await this.#database.update((transaction) => transaction.put(pendingKey(group), PendingLink, place));
  }

  async endLink(group: number): Promise<void> {
    await this.#database.update((transaction) => transaction.remove(pendingKey(group)));
  }

  pendingLinks(): { readonly group: number; readonly place: PendingLink }[] {
    const found = [...this.#database.list(['', Kind.PendingLink], PendingLink)];
    return found.map(({ id, value: place }) => ({ group: Number(id), place }));
  }
}

function ready(reader: Reader, namespace: Namespace, name: NetworkName): Stored {
  const stored = reader.get(keyOf(namespace, name), Stored);
  if (stored === undefined || stored.stage === NetworkStage.NETWORK_STAGE_MAKING) throw missing(name);
  if (stored.stage === NetworkStage.NETWORK_STAGE_REMOVING)
    throw failedPrecondition(`network "${name}" is being removed: failed precondition`);
  return stored;
}

function missing(name: string): RpcError {
  return notFound(`network "${name}": not found`);
}

function labelOf(path: string): string {
  if (path.startsWith('labels.')) return path.slice('labels.'.length);
  throw invalidArgument(`cannot update "${path}" of a network: invalid argument`);
}
