/** Networks: named network namespaces that outlive processes and daemons, each visible in one namespace of clients. */
import { mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { NetworkCreate, NetworkDelete, NetworkUpdate } from '../../proto/gen/moor/events/network.ts';
import type { Container } from '../../proto/gen/containerd/services/containers.ts';
import type { PendingLink } from '../../proto/gen/moor/metadata/network.ts';
import type { Network } from '../../proto/gen/moor/services/network.ts';
import { failedPrecondition, messageOf, notFound } from '../../ttrpc/errors.ts';
import { Turns } from '../distribution/turns.ts';
import type { Exchange } from '../events/exchange.ts';
import { packOwn } from '../events/pack.ts';
import { type Fields, inMap, parseFilters, present } from '../filters/filter.ts';
import type { Namespace, NetworkName } from '../identifiers.ts';
import type { Database } from '../metadata/database.ts';
import type { Labels } from '../metadata/labels.ts';
import { reached } from '../failpoint.ts';
import { IpRoute } from './iproute.ts';
import { HOST } from './names.ts';
import { isNamespace, makeNamespace, removeNamespace } from './netns.ts';
import { occupantOf } from './occupants.ts';
import type { Place } from './place.ts';
import { NetworkRecords, NetworkStage, type Stored } from './records.ts';

export interface NetworksOptions {
  /** The directory of what a reboot takes away. */
  readonly state: string;
  readonly database: Database;
  readonly containers: { list(namespace: Namespace): readonly Container[] };
  readonly exchange: Pick<Exchange, 'publish'>;
  readonly log: Logger;
}

export class Networks {
  readonly records: NetworkRecords;
  readonly ip: IpRoute;
  readonly log: Logger;
  readonly exchange: Pick<Exchange, 'publish'>;
  readonly #folder: string;
  readonly #containers: NetworksOptions['containers'];
  readonly #turns = new Turns();

  private constructor(options: NetworksOptions, folder: string, ip: IpRoute) {
    this.records = new NetworkRecords(options.database);
    this.ip = ip;
    this.log = options.log;
    this.exchange = options.exchange;
    this.#folder = folder;
    this.#containers = options.containers;
  }

  /**
   * Opens the networks of the daemon before, without what it had not finished. Links that it had not finished are for
   * `Links.recover`.
   */
  static async open(options: NetworksOptions): Promise<Networks> {
    const folder = join(options.state, 'netns');
    mkdirSync(folder, { recursive: true, mode: 0o711 });
    const networks = new Networks(options, folder, await IpRoute.open(join(options.state, 'network.lock')));
    try {
      await networks.#recover();
    } catch (error) {
      networks.close();
      throw error;
    }
    return networks;
  }

  close(): void {
    this.ip.close();
  }

  /** The file that stands for the network, whether or not there is one. */
  path(namespace: Namespace, name: NetworkName): string {
    return join(this.#folder, namespace, name);
  }

  /** Whether it is there and works. */
  exists(namespace: Namespace, name: NetworkName): boolean {
    const stored = this.records.find(namespace, name);
    return stored?.stage === NetworkStage.NETWORK_STAGE_READY && isNamespace(this.path(namespace, name));
  }

  /** @throws RpcError NotFound */
  get(namespace: Namespace, name: NetworkName): Network {
    return this.#shown(namespace, name, this.records.get(namespace, name));
  }

  /** @throws RpcError InvalidArgument for a filter that cannot be read */
  list(namespace: Namespace, filters: readonly string[] = []): Network[] {
    const filter = parseFilters(filters);
    return this.records
      .list(namespace)
      .filter(({ stored }) => stored.stage === NetworkStage.NETWORK_STAGE_READY)
      .map(({ name, stored }) => this.#shown(namespace, name, stored))
      .filter((network) => filter(fieldsOf(network)));
  }

  /**
   * Makes a network with its loopback link up and nothing else in it. `/moor/network/create` is published.
   *
   * @returns it, with the path that containers join
   * @throws RpcError AlreadyExists, InvalidArgument
   */
  async create(namespace: Namespace, name: NetworkName, labels: Labels = {}): Promise<Network> {
    return this.#turns.take(keyOf(namespace, name), undefined, async () => {
      await this.records.begin(namespace, name, labels);
      const path = this.path(namespace, name);
      let stored: Stored;
      try {
        reached('network-recorded');
        makeNamespace(path);
        reached('network-made');
        await this.ip.change(path, ['link', 'set', 'dev', 'lo', 'up']);
        stored = await this.records.advance(namespace, name, NetworkStage.NETWORK_STAGE_READY);
      } catch (error) {
        await this.#remove(namespace, name);
        throw error;
      }
      const network = this.#shown(namespace, name, stored);
      this.exchange.publish(
        namespace,
        '/moor/network/create',
        packOwn('NetworkCreate', NetworkCreate, network),
      );
      return network;
    });
  }

  /** Changes labels: those that the paths name (`labels.KEY`), or all. @throws RpcError NotFound, InvalidArgument */
  async update(
    namespace: Namespace,
    name: NetworkName,
    labels: Labels,
    paths: readonly string[] = [],
  ): Promise<Network> {
    const stored = await this.records.label(namespace, name, labels, paths);
    const network = this.#shown(namespace, name, stored);
    this.exchange.publish(
      namespace,
      '/moor/network/update',
      packOwn('NetworkUpdate', NetworkUpdate, network),
    );
    return network;
  }

  /**
   * Removes a network; the kernel removes its virtual links with it. `/moor/network/delete` is published.
   *
   * @param how `force`: although containers or processes use it; processes keep it until they end
   * @throws RpcError NotFound, FailedPrecondition that names who uses it
   */
  async remove(
    namespace: Namespace,
    name: NetworkName,
    how: { force: boolean } = { force: false },
  ): Promise<void> {
    await this.#turns.take(keyOf(namespace, name), undefined, async () => {
      // What has once failed half-way can be removed again.
      if (this.records.find(namespace, name)?.stage !== NetworkStage.NETWORK_STAGE_REMOVING)
        this.records.get(namespace, name);
      const path = this.path(namespace, name);
      const occupant =
        how.force || !isNamespace(path) ? undefined : occupantOf(this.#containers, namespace, path);
      if (occupant !== undefined)
        throw failedPrecondition(`network "${name}" is in use by ${occupant}: failed precondition`);
      await this.records.advance(namespace, name, NetworkStage.NETWORK_STAGE_REMOVING);
      reached('network-doomed');
      await this.#remove(namespace, name);
      this.#announceRemoval(namespace, name);
    });
  }

  /**
   * Does something in networks while nothing else changes them.
   *
   * @param names of networks in the namespace, or `host`
   * @throws RpcError NotFound for a network that is not there, and what the action throws
   */
  async within<const Names extends readonly (NetworkName | typeof HOST)[], T>(
    namespace: Namespace,
    names: Names,
    signal: AbortSignal | undefined,
    action: (places: { readonly [I in keyof Names]: Place }) => Promise<T>,
  ): Promise<T> {
    // Always in the same order, so that two that want the same two do not wait for each other.
    const keys = [...new Set(names.map((name) => keyOf(namespace, name)))].sort();
    const enter = async (index: number): Promise<T> => {
      const key = keys[index];
      if (key !== undefined) return this.#turns.take(key, signal, () => enter(index + 1));
      signal?.throwIfAborted();
      return action(
        names.map((name) => this.#place(namespace, name)) as unknown as {
          readonly [I in keyof Names]: Place;
        },
      );
    };
    return enter(0);
  }

  /** Where the record of a link says that it is; undefined when the network is gone. */
  placeOf({ namespace, network }: PendingLink): Place | undefined {
    if (network === '') return { name: HOST, namespace: '', netns: undefined };
    const name = network as NetworkName;
    const netns = this.path(namespace as Namespace, name);
    return isNamespace(netns) ? { name, namespace: namespace as Namespace, netns } : undefined;
  }

  #place(namespace: Namespace, name: NetworkName | typeof HOST): Place {
    if (name === HOST) return { name, namespace: '', netns: undefined };
    this.records.get(namespace, name);
    const netns = this.path(namespace, name);
    if (!isNamespace(netns)) {
      throw notFound(
        `network "${name}": ${netns} was unmounted by somebody else; remove the network: not found`,
      );
    }
    return { name, namespace, netns };
  }

  #shown(namespace: Namespace, name: NetworkName, { labels, createdAt }: Stored): Network {
    return { name, path: this.path(namespace, name), labels, createdAt };
  }

  async #remove(namespace: Namespace, name: NetworkName): Promise<void> {
    removeNamespace(this.path(namespace, name));
    reached('network-removed');
    await this.records.remove(namespace, name);
    removeIfEmpty(join(this.#folder, namespace));
  }

  #announceRemoval(namespace: Namespace, name: NetworkName): void {
    this.exchange.publish(
      namespace,
      '/moor/network/delete',
      packOwn('NetworkDelete', NetworkDelete, { name }),
    );
  }

  /** Undoes and finishes what the daemon before had begun, and forgets what a reboot has taken. */
  async #recover(): Promise<void> {
    for (const { namespace, name, stored } of this.records.all()) {
      if (stored.stage === NetworkStage.NETWORK_STAGE_READY && isNamespace(this.path(namespace, name)))
        continue;
      this.log.info({ ns: namespace, network: name }, 'network is gone or was not finished; forgotten');
      await this.#remove(namespace, name);
      if (stored.stage !== NetworkStage.NETWORK_STAGE_MAKING) this.#announceRemoval(namespace, name);
    }
    for (const namespace of readdirSync(this.#folder) as Namespace[]) {
      for (const name of readdirSync(join(this.#folder, namespace)) as NetworkName[]) {
        if (this.records.find(namespace, name) !== undefined) continue;
        this.log.warn({ ns: namespace, network: name }, 'network without a record; removed');
        removeNamespace(this.path(namespace, name));
      }
      removeIfEmpty(join(this.#folder, namespace));
    }
  }
}

const keyOf = (namespace: Namespace, name: NetworkName | typeof HOST): string =>
  name === HOST ? '' : `${namespace}/${name}`;

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOTEMPTY' && code !== 'ENOENT')
      throw new Error(`cannot remove ${folder}: ${messageOf(error)}`, { cause: error });
  }
}

function fieldsOf({ name, labels }: Network): Fields {
  return ([first, ...rest]) => {
    if (first === 'name') return present(name);
    return first === 'labels' ? inMap(labels, rest) : undefined;
  };
}
