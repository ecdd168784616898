import {
  ControllerDefinition as SandboxControllerDefinition,
  StoreDefinition as SandboxStoreDefinition,
} from '../../proto/gen/containerd/services/sandbox.ts';
import type { Sandbox } from '../../proto/gen/containerd/types/sandbox.ts';
import { invalidArgument, notFound } from '../../ttrpc/errors.ts';
import { namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import type { SandboxStore } from '../metadata/sandboxes.ts';

export function sandboxStoreService(store: SandboxStore): Service {
  return service(SandboxStoreDefinition, {
    create: async ({ sandbox }, context) => ({
      sandbox: await store.create(namespaceOf(context), given(sandbox)),
    }),

    update: async ({ sandbox, fields }, context) => ({
      sandbox: await store.update(namespaceOf(context), given(sandbox), fields),
    }),

    async delete({ sandboxId }, context) {
      await store.delete(namespaceOf(context), sandboxId);
      return {};
    },

    list: async ({ filters }, context) => ({ list: store.list(namespaceOf(context), filters) }),

    get: async ({ sandboxId }, context) => ({ sandbox: store.get(namespaceOf(context), sandboxId) }),
  });
}

/** Sandboxes are kept and not run: there is no controller, which is what clients are told that name one. */
export function sandboxControllerService(): Service {
  const refuse = async ({ sandboxer }: { sandboxer: string }): Promise<never> => {
    if (sandboxer === '') throw invalidArgument('the sandbox controller must be named: invalid argument');
    throw notFound(`sandbox controller ${JSON.stringify(sandboxer.slice(0, 160))}: not found`);
  };
  return service(SandboxControllerDefinition, {
    create: refuse,
    start: refuse,
    platform: refuse,
    stop: refuse,
    wait: refuse,
    status: refuse,
    shutdown: refuse,
    metrics: refuse,
    update: refuse,
  });
}

function given(sandbox: Sandbox | undefined): Sandbox {
  if (sandbox === undefined) throw invalidArgument('sandbox must be set: invalid argument');
  return sandbox;
}
