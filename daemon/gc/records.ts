/** The kinds of nodes whose records are messages with labels: containers, images, leases, content and ingests. */
import { Container } from '../../proto/gen/containerd/services/containers.ts';
import { Image } from '../../proto/gen/containerd/services/images.ts';
import { Lease } from '../../proto/gen/containerd/services/leases.ts';
import { Sandbox } from '../../proto/gen/containerd/types/sandbox.ts';
import type { MessageType } from '../../ttrpc/service.ts';
import type { Namespace } from '../identifiers.ts';
import type { Reader } from '../metadata/database.ts';
import { Kind } from '../metadata/schema.ts';
import { expiryOf, isFlat } from './labels.ts';
import type { Facts, GcResource, Node, Reference } from './resource.ts';

/** A kind of nodes whose record is one message. */
export interface RecordKind<T> extends Pick<GcResource, 'parts' | 'remove' | 'release'> {
  readonly kind: string;
  readonly type: MessageType<T>;
  readonly facts: (record: T, node: Node, reader: Reader) => Facts;
}

export function recordResource<T>({ kind, type, facts, ...rest }: RecordKind<T>): GcResource {
  return {
    ...rest,
    kind,
    *list(reader, namespace) {
      for (const { id, value } of reader.list([namespace, kind], type))
        yield { id, facts: facts(value, { namespace, kind, id }, reader) };
    },
    get(reader, namespace, id) {
      const value = reader.get([namespace, kind, id], type);
      return value && facts(value, { namespace, kind, id }, reader);
    },
  };
}

/** Whether an expiring thing is still to be kept, and how long. */
export function untilExpiry(labels: { readonly [key: string]: string }): Pick<Facts, 'root' | 'expires'> {
  const expires = expiryOf(labels);
  return { root: expires === undefined || expires > Date.now(), expires };
}

export const containerResource: GcResource = recordResource({
  kind: Kind.Container,
  type: Container,
  facts: ({ snapshotter, snapshotKey, labels }) => ({
    root: true,
    references: snapshotter === '' ? [] : [{ kind: `snapshot/${snapshotter}`, id: snapshotKey }],
    labels,
  }),
});

export const sandboxResource: GcResource = recordResource({
  kind: Kind.Sandbox,
  type: Sandbox,
  facts: ({ labels }) => ({ root: true, references: [], labels }),
});

/** @param deleted is told of each image that has expired and is gone */
export function imageResource(deleted: (namespace: Namespace, name: string) => void): GcResource {
  return recordResource({
    kind: Kind.Image,
    type: Image,
    facts: ({ target, labels }) => ({
      ...untilExpiry(labels),
      references: target === undefined ? [] : [{ kind: Kind.Content, id: target.digest }],
      labels,
    }),
    remove: (transaction, namespace, id) => transaction.remove([namespace, Kind.Image, id]),
    async release(removed) {
      for (const { namespace, id } of removed) deleted(namespace, id);
    },
  });
}

export const leaseResource: GcResource = recordResource({
  kind: Kind.Lease,
  parts: [Kind.LeaseResource],
  type: Lease,
  facts: ({ labels }, { namespace, id }, reader) => ({
    ...untilExpiry(labels),
    references: leased(reader, namespace, id, isFlat(labels)),
    // A lease's labels speak of itself; references in them count for nothing.
    labels: {},
  }),
  remove(transaction, namespace, id) {
    transaction.remove([namespace, Kind.Lease, id]);
    transaction.removeBelow([namespace, Kind.LeaseResource, id]);
  },
});

/** Kinds of nodes by the types of leases' resources. */
const KINDS: { readonly [type: string]: string } = {
  content: Kind.Content,
  ingests: Kind.Ingest,
  images: Kind.Image,
};

function leased(reader: Reader, namespace: Namespace, lease: string, flat: boolean): Reference[] {
  return [...reader.rest([namespace, Kind.LeaseResource, lease])].map(([type, id]) => ({
    kind: KINDS[type!] ?? type!.replace(/^snapshots\//, 'snapshot/'),
    id: id!,
    flat,
  }));
}
