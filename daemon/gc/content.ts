/** Content and ingests as nodes of the collection, and their bytes on disk. */
import { Info } from '../../proto/gen/containerd/services/content.ts';
import { type Digest } from '../content/digest.ts';
import { type NamespacedContent, ingestId } from '../content/namespaced-content.ts';
import { Kind } from '../metadata/schema.ts';
import { recordResource } from './records.ts';
import { expiryOf } from './labels.ts';
import type { GcResource } from './resource.ts';

/** Files removed at the same time. */
const PARALLEL = 8;

export function contentResource(content: NamespacedContent): GcResource {
  /** What an earlier daemon has left on disk is looked for once. */
  let searched = false;
  return recordResource({
    kind: Kind.Content,
    type: Info,
    facts: ({ labels }) => ({ root: false, references: [], labels }),
    remove: (transaction, namespace, id) => transaction.remove([namespace, Kind.Content, id]),
    async release(removed) {
      const { store, records } = content;
      const digests = content.takeAbandoned();
      for (const { id } of removed) digests.add(id as Digest);
      if (!searched) for await (const digest of store.digests()) digests.add(digest);
      await each(digests, async (digest) => {
        try {
          const done = await store.remove(digest, () => records.isNeeded(digest));
          if (!done) content.abandon(digest);
        } catch (error) {
          content.abandon(digest);
          throw error;
        }
      });
      searched = true;
    },
  });
}

export function ingestResource(content: NamespacedContent): GcResource {
  let searched = false;
  return recordResource({
    kind: Kind.Ingest,
    type: Info,
    facts({ digest, labels }, { namespace, id }) {
      // Without a time it lives as long as a lease that holds it, and as its writer.
      const active = content.isActive(namespace, id);
      const expires = active ? undefined : expiryOf(labels);
      return {
        root: active || (expires !== undefined && expires > Date.now()),
        expires,
        references: digest === '' ? [] : [{ kind: Kind.Content, id: digest }],
        labels: {},
      };
    },
    remove: (transaction, namespace, id) => transaction.remove([namespace, Kind.Ingest, id]),
    async release(removed) {
      const ids = new Set(removed.map(({ namespace, id }) => ingestId(namespace, id)));
      if (!searched) for (const id of await content.orphans()) ids.add(id);
      await each(ids, (id) => content.removeOrphan(id));
      searched = true;
    },
  });
}

/** Does it for each, a few at a time, to the end; then fails with the first failure. */
async function each<T>(items: Iterable<T>, action: (item: T) => Promise<void>): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const work = async (): Promise<void> => {
    let failure: { error: unknown } | undefined;
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) {
      await action(next.value).catch((error: unknown) => {
        failure ??= { error };
      });
    }
    if (failure !== undefined) throw failure.error;
  };
  const outcomes = await Promise.allSettled(Array.from({ length: PARALLEL }, work));
  const failed = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
