import type { GcResource, Node } from '../gc/resource.ts';
import type { Namespace } from '../identifiers.ts';
import type { Transaction } from '../metadata/database.ts';
import type { Snapshot, SnapshotTree } from './tree.ts';

/** Who has the files of the snapshots in a tree. */
export interface SnapshotOwner {
  /** Takes note, in the transaction that removes a snapshot's record. */
  dropped?(transaction: Transaction, namespace: Namespace, snapshot: Snapshot): void;
  /** Lets the files go of a snapshot whose record is gone. */
  reclaim(namespace: Namespace, snapshot: Snapshot): void;
  /** Resolves when they are gone, as far as that is known. */
  settled(): Promise<void>;
}

const nameOf = (namespace: string, key: string): string => `${namespace}\0${key}`;

/**
 * A snapshotter's snapshots as nodes of the collection. A collection has ended when their files are gone as well.
 *
 * @param owner undefined for a snapshotter that is not there now. Its records count all the same: they may be all that keeps
 *        something else, and be garbage themselves. Files whose records are gone are removed when it is there again.
 */
export function snapshotResource(tree: SnapshotTree, owner?: SnapshotOwner): GcResource {
  const factsOf = ({ info: { parent, labels } }: Snapshot) => ({
    root: false,
    references: parent === '' ? [] : [{ kind: tree.kind, id: parent }],
    labels,
  });
  /** Removed in transactions that may not be over yet. */
  const dropped = new Map<string, Snapshot>();
  return {
    kind: tree.kind,
    *list(reader, namespace) {
      for (const snapshot of tree.from(reader, namespace))
        yield { id: snapshot.info.name, facts: factsOf(snapshot) };
    },
    get(reader, namespace, key) {
      const snapshot = tree.find(reader, namespace, key);
      return snapshot && factsOf(snapshot);
    },
    remove(transaction, namespace, key) {
      const snapshot = tree.find(transaction, namespace, key);
      if (snapshot === undefined) return;
      tree.drop(transaction, namespace, snapshot);
      owner?.dropped?.(transaction, namespace, snapshot);
      dropped.set(nameOf(namespace, key), snapshot);
    },
    async release(removed: readonly Node[]) {
      for (const { namespace, id } of removed) {
        const snapshot = dropped.get(nameOf(namespace, id));
        if (snapshot !== undefined) owner?.reclaim(namespace, snapshot);
      }
      dropped.clear();
      await owner?.settled();
    },
  };
}
