import { NetworksDefinition } from '../../proto/gen/moor/services/network.ts';
import { namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import { checkPrograms } from '../network/iproute.ts';
import { parsePlan, parseSettings } from '../network/link-kind.ts';
import type { Links } from '../network/links.ts';
import { parseAddress, parseLinkName, parseNetwork, parseNetworkName } from '../network/names.ts';
import type { Networks } from '../network/networks.ts';
import { type Routes, parseRoute } from '../network/routes.ts';

export interface Networking {
  readonly networks: Networks;
  readonly links: Links;
  readonly routes: Routes;
}

/** @throws RpcError Unimplemented on a host without the programs that do the work */
export function networkService({ networks, links, routes }: Networking): Service {
  checkPrograms();
  return service(NetworksDefinition, {
    create: async ({ name, labels }, context) => ({
      network: await networks.create(namespaceOf(context), parseNetworkName(name), labels),
    }),

    get: async ({ name }, context) => ({
      network: networks.get(namespaceOf(context), parseNetworkName(name)),
    }),

    list: async ({ filters }, context) => ({ networks: networks.list(namespaceOf(context), filters) }),

    update: async ({ name, labels, updateMask = [] }, context) => ({
      network: await networks.update(namespaceOf(context), parseNetworkName(name), labels, updateMask),
    }),

    async delete({ name, force }, context) {
      await networks.remove(namespaceOf(context), parseNetworkName(name), { force });
      return {};
    },

    addLink: async (request, context) => ({
      link: await links.add(namespaceOf(context), parsePlan(request), context.signal),
    }),

    setLink: async ({ network, name, settings, newName }, context) => ({
      link: await links.set(
        namespaceOf(context),
        parseNetwork(network),
        parseLinkName(name),
        parseSettings(settings),
        newName === '' ? undefined : parseLinkName(newName, 'new name'),
      ),
    }),

    moveLink: async ({ network, name, targetNetwork, newName }, context) => ({
      link: await links.move(
        namespaceOf(context),
        parseNetwork(network),
        parseLinkName(name),
        parseNetwork(targetNetwork),
        newName === '' ? undefined : parseLinkName(newName, 'new name'),
      ),
    }),

    async deleteLink({ network, name }, context) {
      await links.remove(namespaceOf(context), parseNetwork(network), parseLinkName(name));
      return {};
    },

    listLinks: async ({ network, name }, context) => ({
      links: await links.list(
        namespaceOf(context),
        parseNetwork(network),
        name === '' ? undefined : parseLinkName(name),
        context.signal,
      ),
    }),

    async addAddress({ network, link, address, noDad }, context) {
      await links.addAddress(
        namespaceOf(context),
        parseNetwork(network),
        parseLinkName(link),
        parseAddress(address),
        { noDad },
      );
      return {};
    },

    async deleteAddress({ network, link, address }, context) {
      await links.deleteAddress(
        namespaceOf(context),
        parseNetwork(network),
        parseLinkName(link),
        parseAddress(address),
      );
      return {};
    },

    async addRoute({ network, route }, context) {
      await routes.add(namespaceOf(context), parseNetwork(network), parseRoute(route));
      return {};
    },

    async deleteRoute({ network, route }, context) {
      await routes.remove(namespaceOf(context), parseNetwork(network), parseRoute(route));
      return {};
    },

    listRoutes: async ({ network }, context) => ({
      routes: await routes.list(namespaceOf(context), parseNetwork(network), context.signal),
    }),
  });
}
