import { type Info, SnapshotsDefinition } from '../../proto/gen/containerd/services/snapshots.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import { type CallContext } from '../../ttrpc/service.ts';
import { leaseOf, namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import type { Creation } from '../snapshots/snapshotter.ts';
import type { Snapshotters } from '../snapshots/snapshotters.ts';

/** Snapshots in one message of a listing. */
const BLOCK = 100;

export function snapshotsService(snapshotters: Snapshotters): Service {
  return service(SnapshotsDefinition, {
    async prepare({ snapshotter, key, parent, labels }, context) {
      const creation = creationOf(labels, context);
      return {
        mounts: await snapshotters.get(snapshotter).prepare(namespaceOf(context), key, parent, creation),
      };
    },

    async view({ snapshotter, key, parent, labels }, context) {
      const creation = creationOf(labels, context);
      return {
        mounts: await snapshotters.get(snapshotter).view(namespaceOf(context), key, parent, creation),
      };
    },

    mounts: async ({ snapshotter, key }, context) => ({
      mounts: await snapshotters.get(snapshotter).mounts(namespaceOf(context), key, context.signal),
    }),

    async commit({ snapshotter, name, key, labels }, context) {
      await snapshotters
        .get(snapshotter)
        .commit(namespaceOf(context), name, key, creationOf(labels, context));
      return {};
    },

    async remove({ snapshotter, key }, context) {
      await snapshotters.get(snapshotter).remove(namespaceOf(context), key, leaseOf(context));
      return {};
    },

    stat: async ({ snapshotter, key }, context) => ({
      info: snapshotters.get(snapshotter).stat(namespaceOf(context), key),
    }),

    update: async ({ snapshotter, info, updateMask = [] }, context) => ({
      info: await snapshotters.get(snapshotter).update(namespaceOf(context), given(info), updateMask),
    }),

    async *list({ snapshotter, filters }, context) {
      const found = snapshotters.get(snapshotter).list(namespaceOf(context), filters);
      for (let start = 0; start < found.length; start += BLOCK)
        yield { info: found.slice(start, start + BLOCK) };
    },

    async usage({ snapshotter, key }, context) {
      const { size, inodes } = await snapshotters
        .get(snapshotter)
        .usage(namespaceOf(context), key, context.signal);
      return { size, inodes };
    },

    async cleanup({ snapshotter }) {
      await snapshotters.get(snapshotter).cleanup();
      return {};
    },
  });
}

function creationOf(labels: Info['labels'], context: CallContext): Creation {
  return { labels, lease: leaseOf(context), signal: context.signal };
}

function given(info: Info | undefined): Info {
  if (info === undefined) throw invalidArgument('info must be set: invalid argument');
  return info;
}
