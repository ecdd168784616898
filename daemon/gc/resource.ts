/**
 * What takes part in garbage collection. The collector knows nodes and the references between them; what they are is the business
 * of the stores that own them.
 */
import type { Namespace } from '../identifiers.ts';
import type { Reader, Transaction } from '../metadata/database.ts';

/** A record, by its key. */
export interface Node {
  readonly namespace: Namespace;
  /** `content`, `image`, `ingest`, `lease`, `container`, or `snapshot/` and the snapshotter's name. */
  readonly kind: string;
  readonly id: string;
}

/** To something in the same namespace, there or not. */
export interface Reference {
  readonly kind: string;
  readonly id: string;
  /** Followed without what the labels on the other end refer to. */
  readonly flat?: boolean;
}

/** What the collector has to know of a node. */
export interface Facts {
  /** It stays whether or not something refers to it. The label for that is not meant; the collector reads labels itself. */
  readonly root: boolean;
  /** When it is no root any more, in milliseconds since 1970. */
  readonly expires?: number | undefined;
  /** What it cannot be without, beside what its labels refer to: a snapshot's parent, an image's target. */
  readonly references: readonly Reference[];
  readonly labels: { readonly [key: string]: string };
}

/** A kind of nodes. */
export interface GcResource {
  /** The kind of its records; a node's record is `[namespace, kind, id]`. */
  readonly kind: string;
  /** Kinds of further records that nodes are made of: `[namespace, part, id, …]`. */
  readonly parts?: readonly string[];
  /** Every node of a namespace. The iteration may last while others write. */
  list(reader: Reader, namespace: Namespace): Iterable<{ readonly id: string; readonly facts: Facts }>;
  /** One node; undefined when it is not there. */
  get(reader: Reader, namespace: Namespace, id: string): Facts | undefined;
  /**
   * Takes a node's records away. It is there no longer when it has been removed by another. Nodes are removed before those
   * that they refer to, and not all of a collection's in one transaction. Without this, nodes of the kind are never garbage.
   */
  remove?(transaction: Transaction, namespace: Namespace, id: string): void;
  /**
   * Frees what lies outside the metadata, when the records have been removed for good. Called after every collection, with
   * nothing to say when nothing was removed. What it cannot free now it frees another time, also in the life of a later daemon.
   */
  release?(removed: readonly Node[]): Promise<void>;
}
