import type {
  AddLinkRequest,
  Address,
  Link,
  LinkSettings,
  Network,
  Route,
} from '../proto/gen/moor/services/network.ts';
import { NetworksDefinition } from '../proto/gen/moor/services/network.ts';
import { internal } from '../ttrpc/errors.ts';
import type { CallOptions, PartialMessage, ServiceClient } from '../ttrpc/service.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import type { Labels } from './namespace.ts';

export type { Address, Link, LinkSettings, Network, Route };

/** The network that the daemon is in, wherever a network is named. */
export const HOST_NETWORK = 'host';

/** What a link is to be, with what is special about it. */
export type LinkKind = PartialMessage<NonNullable<AddLinkRequest['kind']>>;

export interface AddLinkOptions extends CallOptions, Partial<LinkSettings> {
  readonly kind: LinkKind;
}

export interface SetLinkOptions extends CallOptions, Partial<LinkSettings> {
  readonly newName?: string;
}

/**
 * Networks: named network namespaces that outlive their processes and the daemon, and the links, addresses and routes in them. The
 * file at a network's `path` is what a container joins (`namespaces` of `SpecOptions`).
 */
export class Networks {
  readonly #service: ServiceClient<typeof NetworksDefinition>;

  constructor(connection: Connection, headers: Headers) {
    this.#service = connection.service(NetworksDefinition, headers);
  }

  /** Makes a network with nothing in it but its loopback link. @throws RpcError AlreadyExists, InvalidArgument */
  async create(name: string, labels: Labels = {}, options?: CallOptions): Promise<Network> {
    return given((await this.#service.create({ name, labels }, options)).network, `network ${name}`);
  }

  /** @throws RpcError NotFound */
  async get(name: string, options?: CallOptions): Promise<Network> {
    return given((await this.#service.get({ name }, options)).network, `network ${name}`);
  }

  /** @param filters alternatives: `name==blue`, `labels.x==y` */
  async list(filters: readonly string[] = [], options?: CallOptions): Promise<Network[]> {
    return (await this.#service.list({ filters: [...filters] }, options)).networks;
  }

  /** Sets the given labels and leaves the others; an empty value clears one. @throws RpcError NotFound */
  async label(name: string, labels: Labels, options?: CallOptions): Promise<Network> {
    const updateMask = Object.keys(labels).map((key) => `labels.${key}`);
    const { network } = await this.#service.update({ name, labels, updateMask }, options);
    return given(network, `network ${name}`);
  }

  /**
   * Removes a network and the virtual links in it.
   *
   * @param options `force`: although containers or processes use it
   * @throws RpcError NotFound, FailedPrecondition that names who uses it
   */
  async delete(name: string, options: CallOptions & { readonly force?: boolean } = {}): Promise<void> {
    const { force = false, ...call } = options;
    await this.#service.delete({ name, force }, call);
  }

  /** The links of a network with their addresses. @throws RpcError NotFound */
  async links(network: string, options?: CallOptions): Promise<Link[]> {
    return (await this.#service.listLinks({ network, name: '' }, options)).links;
  }

  /** One of the links. @throws RpcError NotFound */
  async link(network: string, name: string, options?: CallOptions): Promise<Link> {
    const [link] = (await this.#service.listLinks({ network, name }, options)).links;
    return given(link, `link ${name}`);
  }

  /**
   * Makes a link, or both ends of a veth pair: all of it or nothing.
   *
   *     const veth = { peerName: 'eth0', peerNetwork: 'blue', peerSettings: { up: true } };
   *     await client.networks.addLink('host', 'blue0', { up: true, kind: { $case: 'veth', value: veth } });
   *
   * @throws RpcError AlreadyExists, NotFound, InvalidArgument, Unimplemented for a kind the kernel does not have
   */
  async addLink(network: string, name: string, options: AddLinkOptions): Promise<Link> {
    const { kind, mtu, mac, master, up, ...call } = options;
    const settings = { mtu, mac, master, up };
    const { link } = await this.#service.addLink({ network, name, settings, kind }, call);
    return given(link, `link ${name}`);
  }

  /** Changes a link; what is left out stays. @throws RpcError NotFound, InvalidArgument, FailedPrecondition */
  async setLink(network: string, name: string, options: SetLinkOptions): Promise<Link> {
    const { newName, mtu, mac, master, up, ...call } = options;
    const request = { network, name, settings: { mtu, mac, master, up }, newName };
    return given((await this.#service.setLink(request, call)).link, `link ${name}`);
  }

  /** Puts a link into another network, where it arrives down and without addresses. @throws RpcError NotFound, AlreadyExists */
  async moveLink(
    network: string,
    name: string,
    targetNetwork: string,
    options: CallOptions & { readonly newName?: string } = {},
  ): Promise<Link> {
    const { newName, ...call } = options;
    const { link } = await this.#service.moveLink({ network, name, targetNetwork, newName }, call);
    return given(link, `link ${name}`);
  }

  /** Removes a link; of a veth pair both ends. @throws RpcError NotFound, FailedPrecondition */
  async deleteLink(network: string, name: string, options?: CallOptions): Promise<void> {
    await this.#service.deleteLink({ network, name }, options);
  }

  /**
   * @param address with its prefix: `10.0.0.1/24`
   * @param options `noDad`: an IPv6 address is used at once, without asking whether another has it
   * @throws RpcError AlreadyExists, NotFound for the link, InvalidArgument
   */
  async addAddress(
    network: string,
    link: string,
    address: string,
    options: CallOptions & { readonly noDad?: boolean } = {},
  ): Promise<void> {
    const { noDad = false, ...call } = options;
    await this.#service.addAddress({ network, link, address, noDad }, call);
  }

  /** @throws RpcError NotFound */
  async deleteAddress(network: string, link: string, address: string, options?: CallOptions): Promise<void> {
    await this.#service.deleteAddress({ network, link, address }, options);
  }

  /** The routes of the main table, IPv4 first. @throws RpcError NotFound */
  async routes(network: string, options?: CallOptions): Promise<Route[]> {
    return (await this.#service.listRoutes({ network }, options)).routes;
  }

  /** @throws RpcError AlreadyExists, FailedPrecondition for a gateway that cannot be reached */
  async addRoute(network: string, route: PartialMessage<Route>, options?: CallOptions): Promise<void> {
    await this.#service.addRoute({ network, route }, options);
  }

  /** Removes the route that is all of what is said. @throws RpcError NotFound */
  async deleteRoute(network: string, route: PartialMessage<Route>, options?: CallOptions): Promise<void> {
    await this.#service.deleteRoute({ network, route }, options);
  }
}

function given<T>(thing: T | undefined, what: string): T {
  if (thing === undefined) throw internal(`the daemon sent nothing of ${what}`);
  return thing;
}
