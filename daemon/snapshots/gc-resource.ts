import type { GcResource, Node } from '../gc/resource.ts';
import type { LocalSnapshotter } from './local-snapshotter.ts';
import type { Snapshot } from './tree.ts';

const nameOf = (namespace: string, key: string): string => `${namespace}\0${key}`;

/** A snapshotter's snapshots as nodes of the collection. A collection has ended when their files are gone as well. */
export function snapshotResource(snapshotter: LocalSnapshotter): GcResource {
  const { tree } = snapshotter;
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
      dropped.set(nameOf(namespace, key), snapshot);
    },
    async release(removed: readonly Node[]) {
      for (const { namespace, id } of removed) {
        const snapshot = dropped.get(nameOf(namespace, id));
        if (snapshot !== undefined) snapshotter.reclaim(namespace, snapshot);
      }
      dropped.clear();
      await snapshotter.settled();
    },
  };
}
