import {
  NamespaceCreate,
  NamespaceDelete,
  NamespaceUpdate,
} from '../../proto/gen/containerd/events/namespace.ts';
import {
  type Namespace as Message,
  NamespacesDefinition,
} from '../../proto/gen/containerd/services/namespaces.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import { pack } from '../events/pack.ts';
import type { Exchange } from '../events/exchange.ts';
import { type Service, service } from '../grpc/server.ts';
import { parseNamespace } from '../identifiers.ts';
import type { NamespaceStore } from '../metadata/namespaces.ts';

export function namespacesService(store: NamespaceStore, exchange: Exchange): Service {
  return service(NamespacesDefinition, {
    get: async ({ name }) => ({ namespace: store.get(parseNamespace(name)) }),

    list: async ({ filter }) => ({ namespaces: store.list(filter === '' ? [] : [filter]) }),

    async create(request) {
      const { name, labels } = given(request.namespace);
      const namespace = await store.create(parseNamespace(name), labels);
      exchange.publish(name, '/namespaces/create', pack('NamespaceCreate', NamespaceCreate, namespace));
      return { namespace };
    },

    async update({ namespace: requested, updateMask = [] }) {
      const { name, labels } = given(requested);
      const namespace = await store.update(parseNamespace(name), labels, updateMask);
      exchange.publish(name, '/namespaces/update', pack('NamespaceUpdate', NamespaceUpdate, namespace));
      return { namespace };
    },

    async delete({ name }) {
      await store.delete(parseNamespace(name));
      exchange.publish(name, '/namespaces/delete', pack('NamespaceDelete', NamespaceDelete, { name }));
      return {};
    },
  });
}

function given(namespace: Message | undefined): Message {
  if (namespace === undefined) throw invalidArgument('namespace must be set: invalid argument');
  return namespace;
}
