import {
  ControllerDefinition as SandboxControllerDefinition,
  StoreDefinition as SandboxStoreDefinition,
} from '../../proto/gen/containerd/services/sandbox.ts';
import type { Sandbox } from '../../proto/gen/containerd/types/sandbox.ts';
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from '../../ttrpc/errors.ts';
import type { CallContext } from '../../ttrpc/service.ts';
import { namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import type { Namespace } from '../identifiers.ts';
import { type SandboxStore, sandboxFilter } from '../metadata/sandboxes.ts';
import type { SandboxController, SandboxKey } from '../sandbox/controller.ts';

/** Sandboxes that are kept elsewhere, and listed with the rest. */
export interface OtherSandboxes {
  list(namespace: Namespace): Sandbox[];
  has(key: SandboxKey): boolean;
  /** @throws RpcError FailedPrecondition for one that runs */
  remove(key: SandboxKey): Promise<void>;
}

/** @param others kubelet's pods, where there are any */
export function sandboxStoreService(store: SandboxStore, others: OtherSandboxes | undefined): Service {
  const isElsewhere = (namespace: Namespace, id: string) => others?.has({ namespace, id }) === true;
  return service(SandboxStoreDefinition, {
    create: async ({ sandbox }, context) => {
      const namespace = namespaceOf(context);
      const wanted = given(sandbox);
      const { sandboxId: id } = wanted;
      if (isElsewhere(namespace, id)) throw alreadyExists(`sandbox "${id}": already exists`);
      return { sandbox: await store.create(namespace, wanted) };
    },

    update: async ({ sandbox, fields }, context) => {
      const namespace = namespaceOf(context);
      const wanted = given(sandbox);
      const { sandboxId: id } = wanted;
      if (isElsewhere(namespace, id))
        throw failedPrecondition(`sandbox "${id}" is a pod of kubelet's: failed precondition`);
      return { sandbox: await store.update(namespace, wanted, fields) };
    },

    async delete({ sandboxId: id }, context) {
      const namespace = namespaceOf(context);
      if (isElsewhere(namespace, id)) await others!.remove({ namespace, id });
      else await store.delete(namespace, id);
      return {};
    },

    list: async ({ filters }, context) => {
      const namespace = namespaceOf(context);
      const matches = sandboxFilter(filters);
      const list = [...store.list(namespace), ...(others?.list(namespace) ?? [])];
      return { list: list.filter(matches) };
    },

    get: async ({ sandboxId: id }, context) => {
      const namespace = namespaceOf(context);
      if (!isElsewhere(namespace, id)) return { sandbox: store.get(namespace, id) };
      return { sandbox: others!.list(namespace).find(({ sandboxId }) => sandboxId === id) };
    },
  });
}

/** Passes each call on to the controller that it names. */
export function sandboxControllerService(controllers: ReadonlyMap<string, SandboxController>): Service {
  const controllerOf = ({ sandboxer }: { sandboxer: string }): SandboxController => {
    if (sandboxer === '') throw invalidArgument('the sandbox controller must be named: invalid argument');
    const controller = controllers.get(sandboxer);
    if (controller === undefined)
      throw notFound(`sandbox controller ${JSON.stringify(sandboxer.slice(0, 160))}: not found`);
    return controller;
  };
  const keyOf = ({ sandboxId: id }: { sandboxId: string }, context: CallContext): SandboxKey => ({
    namespace: namespaceOf(context),
    id,
  });
  return service(
    SandboxControllerDefinition,
    {
      async create(request, context) {
        const { sandboxId, sandbox } = request;
        if (sandbox !== undefined && sandbox.sandboxId !== '' && sandbox.sandboxId !== sandboxId)
          throw invalidArgument(`the sandbox ${sandbox.sandboxId} is not ${sandboxId}: invalid argument`);
        await controllerOf(request).create(keyOf(request, context), request, context.signal);
        return { sandboxId };
      },

      async start(request, context) {
        const instance = await controllerOf(request).start(keyOf(request, context), context.signal);
        return { ...instance, sandboxId: request.sandboxId };
      },

      platform: async (request, context) => ({
        platform: await controllerOf(request).platform(keyOf(request, context), context.signal),
      }),

      async stop(request, context) {
        await controllerOf(request).stop(keyOf(request, context), request.timeoutSecs, context.signal);
        return {};
      },

      wait: async (request, context) => controllerOf(request).wait(keyOf(request, context), context.signal),

      async status(request, context) {
        const key = keyOf(request, context);
        const status = await controllerOf(request).status(key, request.verbose, context.signal);
        return { ...status, sandboxId: request.sandboxId };
      },

      async shutdown(request, context) {
        await controllerOf(request).shutdown(keyOf(request, context), context.signal);
        return {};
      },

      metrics: async (request, context) => ({
        metrics: await controllerOf(request).metrics(keyOf(request, context), context.signal),
      }),

      async update(request, context) {
        await controllerOf(request).update(keyOf(request, context));
        return {};
      },
    },
    ['wait'],
  );
}

function given(sandbox: Sandbox | undefined): Sandbox {
  if (sandbox === undefined) throw invalidArgument('sandbox must be set: invalid argument');
  return sandbox;
}
