import { LeasesDefinition, type Resource } from '../../proto/gen/containerd/services/leases.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import type { Collections } from '../gc/scheduler.ts';
import { namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import type { LeaseStore } from '../metadata/leases.ts';

export function leasesService(store: LeaseStore, collections: Collections): Service {
  return service(LeasesDefinition, {
    create: async ({ id, labels }, context) => ({
      lease: await store.create(namespaceOf(context), id, labels),
    }),

    list: async ({ filters }, context) => ({ leases: store.list(namespaceOf(context), filters) }),

    async delete({ id, sync }, context) {
      await store.delete(namespaceOf(context), id);
      if (sync) await collections.collect(context.signal);
      return {};
    },

    async addResource({ id, resource }, context) {
      await store.addResource(namespaceOf(context), id, given(resource));
      return {};
    },

    async deleteResource({ id, resource }, context) {
      await store.deleteResource(namespaceOf(context), id, given(resource));
      return {};
    },

    listResources: async ({ id }, context) => ({ resources: store.resources(namespaceOf(context), id) }),
  });
}

function given(resource: Resource | undefined): Resource {
  if (resource === undefined) throw invalidArgument('resource must be set: invalid argument');
  return resource;
}
