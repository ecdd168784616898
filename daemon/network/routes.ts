/** Routes of the main table inside networks. */
import { LinkUpdate } from '../../proto/gen/moor/events/network.ts';
import type { Route as Message } from '../../proto/gen/moor/services/network.ts';
import { failedPrecondition, invalidArgument } from '../../ttrpc/errors.ts';
import { packOwn } from '../events/pack.ts';
import type { Namespace, NetworkName } from '../identifiers.ts';
import { type Attempt, attempt } from './failure.ts';
import {
  type Cidr,
  type Destination,
  type Family,
  type HOST,
  type LinkName,
  parseDestination,
  parseHost,
  parseLinkName,
} from './names.ts';
import type { Networks } from './networks.ts';

type Network = NetworkName | typeof HOST;

/** A route as somebody asks for it. */
export interface Route {
  readonly family: Family;
  readonly destination: Destination;
  readonly gateway: Cidr | undefined;
  readonly link: LinkName | undefined;
  readonly source: Cidr | undefined;
  readonly metric: number;
  readonly scope: string;
  readonly onlink: boolean;
}

const SCOPES = ['', 'global', 'link', 'host'];
const PROTOCOL = 'static';

/** @throws RpcError InvalidArgument */
export function parseRoute(message: Message | undefined): Route {
  if (message === undefined) throw invalidArgument('a route must be given: invalid argument');
  const destination = parseDestination(message.destination);
  const gateway = message.gateway === '' ? undefined : parseHost(message.gateway, 'gateway');
  const source = message.source === '' ? undefined : parseHost(message.source, 'source');
  const link = message.link === '' ? undefined : parseLinkName(message.link);
  const said = [destination === 'default' ? undefined : destination.family, gateway?.family, source?.family];
  const families = new Set([...said, message.family === '' ? undefined : parseFamily(message.family)]);
  families.delete(undefined);
  if (families.size > 1)
    throw invalidArgument('a route is of IPv4 or of IPv6, not of both: invalid argument');
  if (!SCOPES.includes(message.scope)) {
    throw invalidArgument(
      `scope ${JSON.stringify(message.scope)} is none of global, link, host: invalid argument`,
    );
  }
  const [family = 'inet'] = families;
  const { metric, scope, onlink } = message;
  return { family, destination, gateway, link, source, metric, scope, onlink };
}

function parseFamily(family: string): Family {
  if (family === 'inet' || family === 'inet6') return family;
  throw invalidArgument(`family ${JSON.stringify(family)} is neither inet nor inet6: invalid argument`);
}

export class Routes {
  readonly #networks: Networks;

  constructor(networks: Networks) {
    this.#networks = networks;
  }

  /** @throws RpcError NotFound for the network */
  async list(namespace: Namespace, network: Network, signal?: AbortSignal): Promise<Message[]> {
    return this.#networks.within(namespace, [network], signal, async ([place]) => {
      const routes: Message[] = [];
      for (const family of ['inet', 'inet6'] as const) {
        const about = { action: `cannot list routes of network "${network}"` };
        const words = ['-family', family, 'route', 'show'];
        const entries = await attempt(about, () => this.#networks.ip.show(place.netns, words, signal));
        routes.push(...(entries as ListedRoute[]).map((entry) => messageOf(entry, family)));
      }
      return routes;
    });
  }

  /** @throws RpcError AlreadyExists, NotFound for the link, FailedPrecondition for a gateway that cannot be reached */
  async add(namespace: Namespace, network: Network, route: Route): Promise<void> {
    if (route.gateway === undefined && route.link === undefined)
      throw invalidArgument('a route needs a gateway or a link: invalid argument');
    await this.#change(namespace, network, 'add', route);
  }

  /** Removes the route that is all of what is said. @throws RpcError NotFound */
  async remove(namespace: Namespace, network: Network, route: Route): Promise<void> {
    await this.#change(namespace, network, 'delete', route);
  }

  async #change(namespace: Namespace, network: Network, verb: 'add' | 'delete', route: Route): Promise<void> {
    await this.#networks.within(namespace, [network], undefined, async ([place]) => {
      const { family, destination } = route;
      const about: Attempt = {
        action: `cannot ${verb} route ${textOf(destination)} ${verb === 'add' ? 'to' : 'of'} network "${network}"`,
        meanings: [
          [
            /Network is unreachable|No route to host|invalid gateway/i,
            failedPrecondition,
            'no link that is up reaches the gateway: failed precondition',
          ],
          [
            /Invalid prefix|Invalid argument/,
            invalidArgument,
            'it has bits beyond its prefix, or does not fit the link: invalid argument',
          ],
        ],
      };
      const words = ['-family', family, 'route', verb, textOf(destination), ...wordsOf(route, verb)];
      await attempt(about, () => this.#networks.ip.change(place.netns, words));
      const name = route.link ?? '';
      this.#networks.exchange.publish(
        namespace,
        '/moor/network/link/update',
        packOwn('LinkUpdate', LinkUpdate, { network, name }),
      );
    });
  }
}

const textOf = (destination: Destination): string =>
  destination === 'default' ? destination : destination.text;

function wordsOf({ gateway, link, source, metric, scope, onlink }: Route, verb: 'add' | 'delete'): string[] {
  return [
    ...(gateway === undefined ? [] : ['via', gateway.text]),
    ...(link === undefined ? [] : ['dev', link]),
    ...(source === undefined ? [] : ['src', source.text]),
    ...(metric === 0 ? [] : ['metric', String(metric)]),
    ...(scope === '' ? [] : ['scope', scope]),
    ...(onlink ? ['onlink'] : []),
    // Who made a route does not matter when it is to go.
    ...(verb === 'add' ? ['protocol', PROTOCOL] : []),
  ];
}

/** As `ip -json -details route show` prints it (iproute2 6.1, ip/iproute.c). */
interface ListedRoute {
  readonly dst: string;
  readonly gateway?: string;
  readonly dev?: string;
  readonly prefsrc?: string;
  readonly metric?: number;
  readonly protocol?: string;
  readonly scope?: string;
  readonly flags?: readonly string[];
}

function messageOf(entry: ListedRoute, family: Family): Message {
  return {
    destination: entry.dst,
    gateway: entry.gateway ?? '',
    link: entry.dev ?? '',
    source: entry.prefsrc ?? '',
    metric: entry.metric ?? 0,
    family,
    protocol: entry.protocol ?? '',
    scope: entry.scope ?? '',
    onlink: entry.flags?.includes('onlink') ?? false,
  };
}
