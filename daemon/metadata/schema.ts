/**
 * How metadata lies on disk. Keys are `[namespace, kind, id, …]`, in the order of their bytes; values are encoded messages.
 * What belongs to no namespace has the empty one, which cannot be a namespace's name.
 */

/** Of the layout. A daemon refuses one that is newer than itself, and brings an older one up to its own. */
export const FORMAT = 1;

export type Key = readonly [namespace: string, kind: string, ...rest: string[]];

export const formatKey: Key = ['', 'format'];

/** Kinds of records. What is added here that must keep its namespace from being deleted goes into `contents` as well. */
export const Kind = {
  Namespace: 'namespace',
  Container: 'container',
  Sandbox: 'sandbox',
  Pod: 'pod',
  PodContainer: 'pod-container',
  Lease: 'lease',
  LeaseResource: 'lease-resource',
  Content: 'content',
  Ingest: 'ingest',
  Image: 'image',
  Network: 'network',
  PendingLink: 'pending-link',
  SnapshotChild: 'snapshot-child',
  SnapshotSequence: 'snapshot-sequence',
  ForeignSnapshot: 'snapshot-foreign',
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** The kind of a snapshotter's snapshots. */
export const snapshotKind = (snapshotter: string): string => `snapshot/${snapshotter}`;

/** What makes a namespace count as not empty, with the word for it; and the snapshots of any snapshotter. */
export const contents: readonly { readonly kind: string; readonly plural: string }[] = [
  { kind: Kind.Image, plural: 'images' },
  { kind: Kind.Content, plural: 'blobs' },
  { kind: Kind.Container, plural: 'containers' },
  { kind: Kind.Sandbox, plural: 'sandboxes' },
  { kind: Kind.Network, plural: 'networks' },
  { kind: Kind.Pod, plural: 'pods' },
];

/** LMDB's limit for a key is 1978 bytes; this leaves room for the namespace, the kind and the escapes of the encoding. */
export const MAX_KEY_PART_BYTES = 1024;

/** All keys that begin with the given one and go on: the bounds of a range. */
export function below(key: Key): { start: string[]; end: string[] } {
  const last = key.at(-1)!;
  // Parts are separated by a zero byte, so that nothing that goes on after `last` reaches `last` and a character.
  return { start: [...key, ''], end: [...key.slice(0, -1), `${last}\u0001`] };
}
