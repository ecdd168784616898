/** What is known of content in a namespace: which blobs it has, with their labels, and what is being written. */
import { Info } from '../../proto/gen/containerd/services/content.ts';
import { invalidArgument, notFound } from '../../ttrpc/errors.ts';
import { type Fields, inMap, parseFilters, present } from '../filters/filter.ts';
import { type Namespace, checkLabels } from '../identifiers.ts';
import type { Database, Transaction } from '../metadata/database.ts';
import { set } from '../metadata/labels.ts';
import { addToLease, removeFromLease } from '../metadata/leases.ts';
import { ensureNamespace } from '../metadata/namespaces.ts';
import { type Key, Kind } from '../metadata/schema.ts';
import { timestampNow } from '../timestamp.ts';
import type { Digest } from './digest.ts';

export { Info } from '../../proto/gen/containerd/services/content.ts';

/** Until when an ingest without a lease is kept; as containerd's. */
const INGEST_LIFETIME = 24 * 60 * 60 * 1000;
const EXPIRE = 'containerd.io/gc.expire';

const blobKey = (namespace: Namespace, digest: string): Key => [namespace, Kind.Content, digest];
const ingestKey = (namespace: Namespace, ref: string): Key => [namespace, Kind.Ingest, ref];

/**
 * An ingest's record is an `Info`: the digest is there when its bytes are another namespace's blob and nothing has been written,
 * the size is the total its writer announced, the creation its start, and without a lease a label says when it expires.
 */
export type IngestRecord = Info;

export interface IngestStart {
  /** Keep it for a while without its lease, for another who goes on with it. */
  readonly isResumable?: boolean;
  readonly ref: string;
  readonly lease: string | undefined;
  /** Bytes it will have; 0 when that is not known. */
  readonly total: number;
  /** The blob that is there already and will be this one. */
  readonly shared: Digest | undefined;
}

export interface NewContent {
  readonly ref: string;
  readonly lease: string | undefined;
  readonly digest: Digest;
  readonly size: number;
  readonly labels: { readonly [key: string]: string };
}

export class ContentRecords {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws RpcError NotFound */
  get(namespace: Namespace, digest: Digest): Info {
    return found(this.find(namespace, digest), digest);
  }

  find(namespace: Namespace, digest: Digest): Info | undefined {
    return this.#database.get(blobKey(namespace, digest), Info);
  }

  has(namespace: Namespace, digest: Digest): boolean {
    return this.#database.has(blobKey(namespace, digest));
  }

  /** @throws RpcError InvalidArgument for a filter that cannot be read */
  list(namespace: Namespace, filters: readonly string[]): Info[] {
    const filter = parseFilters(filters);
    const infos: Info[] = [];
    for (const { value } of this.#database.list([namespace, Kind.Content], Info)) {
      if (filter(fieldsOf(value))) infos.push(value);
    }
    return infos;
  }

  /**
   * Changes labels: those that the paths (`labels.KEY`) name, or all of them for the path `labels` and for none.
   *
   * @throws RpcError NotFound, InvalidArgument for another path
   */
  update(namespace: Namespace, info: Info, paths: readonly string[]): Promise<Info> {
    return this.#database.update((transaction) => {
      const key = blobKey(namespace, info.digest);
      const old = found(transaction.get(key, Info), info.digest);
      const changed = paths.length === 0 ? info.labels : paths.reduce(withPath(info), old.labels);
      checkLabels('info.Labels', changed);
      const updated = { ...old, labels: set({}, changed), updatedAt: timestampNow() };
      transaction.put(key, Info, updated);
      return updated;
    });
  }

  /** @throws RpcError NotFound */
  delete(namespace: Namespace, digest: Digest, lease: string | undefined): Promise<void> {
    return this.#database.update((transaction) => {
      const key = blobKey(namespace, digest);
      found(transaction.get(key, Info), digest);
      transaction.remove(key);
      removeFromLease(transaction, namespace, lease, { type: 'content', id: digest });
    });
  }

  /**
   * Puts a blob under the lease, if the namespace has it.
   *
   * @returns whether it has
   * @throws RpcError NotFound for the lease
   */
  claim(namespace: Namespace, digest: Digest, lease: string | undefined): Promise<boolean> {
    return this.#database.update((transaction) => {
      if (!transaction.has(blobKey(namespace, digest))) return false;
      addToLease(transaction, namespace, lease, { type: 'content', id: digest });
      return true;
    });
  }

  /** Records that something is being written, anew or again. @throws RpcError NotFound for the lease */
  startIngest(
    namespace: Namespace,
    { ref, lease, total, shared, isResumable = false }: IngestStart,
  ): Promise<IngestRecord> {
    return this.#database.update((transaction) => {
      const key = ingestKey(namespace, ref);
      const now = timestampNow();
      const old = transaction.get(key, Info);
      const record: IngestRecord = {
        digest: shared ?? '',
        size: BigInt(total === 0 ? Number(old?.size ?? 0n) : total),
        createdAt: old?.createdAt ?? now,
        updatedAt: now,
        labels:
          lease === undefined || isResumable
            ? { [EXPIRE]: new Date(Date.now() + INGEST_LIFETIME).toISOString() }
            : {},
      };
      ensureNamespace(transaction, namespace);
      addToLease(transaction, namespace, lease, { type: 'ingests', id: ref });
      transaction.put(key, Info, record);
      return record;
    });
  }

  /** Whether any namespace has the blob, or is about to. */
  isNeeded(digest: Digest): boolean {
    return this.namespaces().some(
      (namespace) =>
        this.has(namespace, digest) || this.ingests(namespace).some(({ record }) => record.digest === digest),
    );
  }

  namespaces(): Namespace[] {
    return [...this.#database.rest(['', Kind.Namespace])].map(([name]) => name as Namespace);
  }

  getIngest(namespace: Namespace, ref: string): IngestRecord | undefined {
    return this.#database.get(ingestKey(namespace, ref), Info);
  }

  ingests(namespace: Namespace): { ref: string; record: IngestRecord }[] {
    return [...this.#database.list([namespace, Kind.Ingest], Info)].map(({ id, value }) => ({
      ref: id,
      record: value,
    }));
  }

  /** @returns whether there was one */
  dropIngest(namespace: Namespace, ref: string, lease: string | undefined): Promise<boolean> {
    return this.#database.update((transaction) => {
      const key = ingestKey(namespace, ref);
      const there = transaction.has(key);
      removeIngest(transaction, namespace, ref, lease);
      return there;
    });
  }

  /**
   * Makes an ingest the namespace's content.
   *
   * @returns the record, and whether it is new; an older one stays as it was
   * @throws RpcError NotFound for the lease
   */
  commit(namespace: Namespace, content: NewContent): Promise<{ info: Info; created: boolean }> {
    const { ref, lease, digest, size, labels } = content;
    return this.#database.update((transaction) => {
      const key = blobKey(namespace, digest);
      removeIngest(transaction, namespace, ref, lease);
      addToLease(transaction, namespace, lease, { type: 'content', id: digest });
      const old = transaction.get(key, Info);
      if (old !== undefined) return { info: old, created: false };
      ensureNamespace(transaction, namespace);
      const now = timestampNow();
      const info = { digest, size: BigInt(size), createdAt: now, updatedAt: now, labels: set({}, labels) };
      transaction.put(key, Info, info);
      return { info, created: true };
    });
  }
}

function removeIngest(
  transaction: Transaction,
  namespace: Namespace,
  ref: string,
  lease: string | undefined,
): void {
  transaction.remove(ingestKey(namespace, ref));
  removeFromLease(transaction, namespace, lease, { type: 'ingests', id: ref });
}

function found(info: Info | undefined, digest: string): Info {
  if (info === undefined) throw notFound(`content digest ${digest}: not found`);
  return info;
}

type LabelMap = Info['labels'];

function withPath(info: Info): (labels: LabelMap, path: string) => LabelMap {
  return (labels, path) => {
    if (path === 'labels') return info.labels;
    if (!path.startsWith('labels.')) {
      throw invalidArgument(
        `cannot update "${path}" field on content info "${info.digest}": invalid argument`,
      );
    }
    const key = path.slice('labels.'.length);
    return set(labels, { [key]: Object.hasOwn(info.labels, key) ? info.labels[key]! : '' });
  };
}

function fieldsOf(info: Info): Fields {
  return ([first, ...rest]) => {
    if (first === 'digest') return present(info.digest);
    return first === 'labels' ? inMap(info.labels, rest) : undefined;
  };
}
