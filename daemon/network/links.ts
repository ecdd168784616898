/** Links, their addresses and settings, inside networks and between them. */
import { LinkCreate, LinkDelete, LinkMove, LinkUpdate } from '../../proto/gen/moor/events/network.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import type { Link } from '../../proto/gen/moor/services/network.ts';
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from '../../ttrpc/errors.ts';
import { packOwn } from '../events/pack.ts';
import type { Namespace, NetworkName } from '../identifiers.ts';
import { type Attempt, attempt } from './failure.ts';
import { type Plan, type Settings, changeWords } from './link-kind.ts';
import { linksOf } from './link-listing.ts';
import { LinkMaker, configuring } from './link-maker.ts';
import type { Cidr, HOST, LinkName, Mac } from './names.ts';
import type { Networks } from './networks.ts';
import { type Place, fileOf } from './place.ts';

type Network = NetworkName | typeof HOST;

export class Links {
  readonly #networks: Networks;
  readonly #maker: LinkMaker;

  private constructor(networks: Networks) {
    this.#networks = networks;
    this.#maker = new LinkMaker(networks);
  }

  /** Without what the daemon before had begun to make and had not finished. */
  static async open(networks: Networks): Promise<Links> {
    const links = new Links(networks);
    await links.#maker.recover();
    return links;
  }

  /** @param name only this one @throws RpcError NotFound for the network or the link */
  async list(namespace: Namespace, network: Network, name?: LinkName, signal?: AbortSignal): Promise<Link[]> {
    return this.#networks.within(namespace, [network], signal, ([place]) => this.#list(place, name, signal));
  }

  /**
   * Makes a link, or both ends of a veth: all of it or nothing, whenever the daemon is killed.
   *
   * @throws RpcError AlreadyExists, NotFound for a network, parent or master, Unimplemented for a kind the kernel does not have
   */
  async add(namespace: Namespace, plan: Plan, signal?: AbortSignal): Promise<Link> {
    const { kind, first, peer, parent } = plan;
    const elsewhere = peer?.network ?? parent?.network ?? first.network;
    return this.#networks.within(namespace, [first.network, elsewhere], signal, async ([place, other]) => {
      await this.#maker.make(plan, place, other);
      for (const { network, name } of peer === undefined ? [first] : [first, peer])
        this.#publish(namespace, 'create', packOwn('LinkCreate', LinkCreate, { network, name, kind }));
      return (await this.#list(place, first.name))[0]!;
    });
  }

  /**
   * Changes a link, and its name if a new one is given. When the kernel refuses one of the changes, those before it are
   * taken back.
   *
   * @throws RpcError NotFound, InvalidArgument, AlreadyExists for the name, FailedPrecondition
   */
  async set(
    namespace: Namespace,
    network: Network,
    name: LinkName,
    settings: Settings,
    newName?: LinkName,
  ): Promise<Link> {
    const words = [...changeWords(settings), ...(newName === undefined ? [] : ['name', newName])];
    if (words.length === 0) throw invalidArgument(`link "${name}": nothing to change: invalid argument`);
    return this.#networks.within(namespace, [network], undefined, async ([place]) => {
      const about = configuring(name, place, settings.master);
      const before = (await attempt(about, () => this.#show(place, name)))[0]!;
      try {
        await attempt(about, () =>
          this.#networks.ip.change(place.netns, ['link', 'set', 'dev', name, ...words]),
        );
      } catch (error) {
        await this.#restore(place, before, settings);
        throw error;
      }
      this.#publish(
        namespace,
        'update',
        packOwn('LinkUpdate', LinkUpdate, { network, name: newName ?? name }),
      );
      return (await this.#list(place, newName ?? name))[0]!;
    });
  }

  /**
   * Puts a link into another network, in one step of the kernel's. It arrives down, without addresses and master.
   *
   * @throws RpcError NotFound, AlreadyExists, FailedPrecondition for links that the kernel lets nobody move
   */
  async move(
    namespace: Namespace,
    network: Network,
    name: LinkName,
    target: Network,
    newName: LinkName = name,
  ): Promise<Link> {
    if (network === target)
      throw invalidArgument(`link "${name}" is in network "${target}": invalid argument`);
    return this.#networks.within(namespace, [network, target], undefined, async ([from, to]) => {
      const about: Attempt = {
        action: `cannot move link "${name}" from network "${network}" to "${target}"`,
        meanings: [
          [/File exists/, alreadyExists, `link "${newName}" is there already: already exists`],
          [
            /immutable|Invalid argument/,
            failedPrecondition,
            'the kernel keeps it where it is: failed precondition',
          ],
        ],
      };
      // A name that is taken would be found out too late: the kernel moves first, and then renames.
      if ((await this.#list(to)).some((link) => link.name === newName))
        throw alreadyExists(`${about.action}: link "${newName}" is there already: already exists`);
      const words = ['netns', fileOf(to), ...(newName === name ? [] : ['name', newName])];
      await attempt(about, () =>
        this.#networks.ip.change(from.netns, ['link', 'set', 'dev', name, ...words]),
      );
      const move = { network, name, targetNetwork: target, newName };
      this.#publish(namespace, 'move', packOwn('LinkMove', LinkMove, move));
      return (await this.#list(to, newName))[0]!;
    });
  }

  /** Removes a link; of a veth pair both. @throws RpcError NotFound, FailedPrecondition for what cannot be removed */
  async remove(namespace: Namespace, network: Network, name: LinkName): Promise<void> {
    await this.#networks.within(namespace, [network], undefined, async ([place]) => {
      const about: Attempt = {
        action: `cannot remove link "${name}" of network "${network}"`,
        meanings: [[/Operation not supported/, failedPrecondition, 'it is not virtual: failed precondition']],
      };
      await attempt(about, () => this.#networks.ip.change(place.netns, ['link', 'delete', 'dev', name]));
      this.#publish(namespace, 'delete', packOwn('LinkDelete', LinkDelete, { network, name }));
    });
  }

  /** @param how `noDad`: an IPv6 address is used at once @throws RpcError NotFound for the link, AlreadyExists, InvalidArgument */
  async addAddress(
    namespace: Namespace,
    network: Network,
    name: LinkName,
    address: Cidr,
    how: { readonly noDad: boolean },
  ): Promise<void> {
    // As hosts have it that are configured by hand: the last address of an IPv4 network is its broadcast address.
    const broadcast = address.family === 'inet' ? ['broadcast', '+'] : [];
    const flags = how.noDad && address.family === 'inet6' ? ['nodad'] : [];
    await this.#address(namespace, network, name, 'add', address, [...broadcast, ...flags]);
  }

  /** @throws RpcError NotFound */
  async deleteAddress(namespace: Namespace, network: Network, name: LinkName, address: Cidr): Promise<void> {
    await this.#address(namespace, network, name, 'delete', address, []);
  }

  async #address(
    namespace: Namespace,
    network: Network,
    name: LinkName,
    verb: 'add' | 'delete',
    address: Cidr,
    flags: readonly string[],
  ): Promise<void> {
    await this.#networks.within(namespace, [network], undefined, async ([place]) => {
      const about: Attempt = {
        action: `cannot ${verb} address ${address.text} ${verb === 'add' ? 'to' : 'of'} link "${name}" of network "${network}"`,
        meanings: verb === 'add' ? [] : [[/Cannot assign requested/, notFound, 'not found']],
      };
      const words = ['address', verb, address.text, ...flags, 'dev', name];
      await attempt(about, () => this.#networks.ip.change(place.netns, words));
      this.#publish(namespace, 'update', packOwn('LinkUpdate', LinkUpdate, { network, name }));
    });
  }

  async #list(place: Place, name?: LinkName, signal?: AbortSignal): Promise<Link[]> {
    const about = { action: `cannot list links of network "${place.name}"` };
    return attempt(about, () => this.#show(place, name, signal));
  }

  async #show(place: Place, name?: LinkName, signal?: AbortSignal): Promise<Link[]> {
    const words = ['address', 'show', ...(name === undefined ? [] : ['dev', name])];
    return linksOf(await this.#networks.ip.show(place.netns, words, signal));
  }

  /** Takes back what the kernel may have changed before it refused the rest. */
  async #restore(place: Place, before: Link, { mtu, mac, master, up }: Settings): Promise<void> {
    const old: Settings = {
      mtu: mtu === undefined ? undefined : before.mtu,
      mac: mac === undefined ? undefined : (before.mac as Mac),
      master: master === undefined ? undefined : (before.master as LinkName | ''),
      up: up === undefined ? undefined : before.up,
    };
    const words = changeWords(old);
    if (words.length === 0) return;
    try {
      await this.#networks.ip.change(place.netns, ['link', 'set', 'dev', before.name, ...words]);
    } catch (error) {
      this.#networks.log.warn({ err: error, link: before.name }, 'a change that was refused remains in part');
    }
  }

  #publish(namespace: Namespace, what: 'create' | 'update' | 'move' | 'delete', event: Any): void {
    this.#networks.exchange.publish(namespace, `/moor/network/link/${what}`, event);
  }
}
