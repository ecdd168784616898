import { type Container, ContainersDefinition } from '../../proto/gen/containerd/services/containers.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import { announceCreation, announceDeletion, announceUpdate } from '../events/containers.ts';
import type { Exchange } from '../events/exchange.ts';
import { namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import { parseId } from '../identifiers.ts';
import type { ContainerStore } from '../metadata/containers.ts';

export function containersService(store: ContainerStore, exchange: Exchange): Service {
  return service(ContainersDefinition, {
    get: async ({ id }, context) => ({ container: store.get(namespaceOf(context), parseId(id)) }),

    list: async ({ filters }, context) => ({ containers: store.list(namespaceOf(context), filters) }),

    async *listStream({ filters }, context) {
      for (const container of store.list(namespaceOf(context), filters)) yield { container };
    },

    async create(request, context) {
      const namespace = namespaceOf(context);
      const container = await store.create(namespace, given(request.container));
      announceCreation(exchange, namespace, container);
      return { container };
    },

    async update({ container: requested, updateMask = [] }, context) {
      const namespace = namespaceOf(context);
      const container = await store.update(namespace, given(requested), updateMask);
      announceUpdate(exchange, namespace, container);
      return { container };
    },

    async delete({ id }, context) {
      const namespace = namespaceOf(context);
      await store.delete(namespace, parseId(id));
      announceDeletion(exchange, namespace, id);
      return {};
    },
  });
}

function given(container: Container | undefined): Container {
  if (container === undefined) throw invalidArgument('container must be set: invalid argument');
  return container;
}
