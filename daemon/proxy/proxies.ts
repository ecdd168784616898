import type { Config } from '../config.ts';
import { messageOf, type RpcError } from '../../ttrpc/errors.ts';
import type { Logger } from '../log.ts';
import type { Surroundings } from '../snapshots/local-snapshotter.ts';
import type { OwnedSnapshotter } from '../snapshots/snapshotters.ts';
import type { PluginConnection } from './plugin-connection.ts';
import { ContentStore } from '../content/store.ts';
import { ProxyContentStore } from './proxy-content-store.ts';
import { ProxyDiffer } from './proxy-differ.ts';
import { ProxySnapshotter } from './proxy-snapshotter.ts';
import type { ProxyKind } from './settings.ts';

const LOCAL_CONTENT = 'io.containerd.content.v1.content';

const types: { readonly [K in ProxyKind]: string } = {
  snapshot: 'io.containerd.snapshotter.v1',
  content: 'io.containerd.content.v1',
  diff: 'io.containerd.differ.v1',
};

/** The type and id of a proxy plugin, as plugins are named everywhere. */
export function proxyUri(name: string, kind: ProxyKind): string {
  return `${types[kind]}.${name}`;
}

/** The connections to all plugins that other processes serve and that are not disabled. */
export class Proxies {
  readonly #connections = new Map<string, PluginConnection>();
  readonly #config: Config;

  private constructor(config: Config) {
    this.#config = config;
  }

  /** The client is loaded where there is something to connect to: most daemons have no such plugin, and start sooner. */
  static async open(config: Config): Promise<Proxies> {
    const proxies = new Proxies(config);
    const wanted = Object.entries(config.proxy_plugins).filter(
      ([name, { type }]) => !config.disabled_plugins.includes(proxyUri(name, type)),
    );
    if (wanted.length === 0) return proxies;
    const { PluginConnection } = await import('./plugin-connection.ts');
    for (const [name, settings] of wanted)
      proxies.#connections.set(name, new PluginConnection(name, settings));
    return proxies;
  }

  /**
   * Finds out which plugins answer. Only those that the configuration requires are waited for: others may be started later.
   *
   * @throws Error for a required plugin that does not answer
   */
  async check(log: Logger): Promise<void> {
    const { required_plugins: required, proxy_plugins: settings } = this.#config;
    const waited: Promise<void>[] = [];
    for (const [name, connection] of this.#connections) {
      const uri = proxyUri(name, settings[name]!.type);
      const checked = connection.check();
      if (required.includes(uri)) {
        waited.push(
          checked.catch((error: unknown) => {
            throw new Error(`required plugin ${uri}: ${messageOf(error)}`, { cause: error });
          }),
        );
      } else {
        checked.catch((error: unknown) =>
          log.warn({ plugin: uri, error: messageOf(error) }, 'plugin does not answer'),
        );
      }
    }
    await Promise.all(waited);
  }

  /** Why a plugin could not be reached when it was last needed. */
  failure(name: string): RpcError | undefined {
    return this.#connections.get(name)?.failure;
  }

  /** Those of a kind, by name. */
  of(kind: ProxyKind): PluginConnection[] {
    return [...this.#connections.values()].filter(
      ({ name }) => this.#config.proxy_plugins[name]!.type === kind,
    );
  }

  /** Makers of the snapshotters that are served elsewhere. */
  snapshotters(): { [name: string]: (surroundings: Surroundings) => Promise<OwnedSnapshotter> } {
    return Object.fromEntries(
      this.of('snapshot').map((connection) => [
        connection.name,
        async (surroundings: Surroundings) => new ProxySnapshotter(connection, surroundings),
      ]),
    );
  }

  /** The differs that are served elsewhere. */
  differs(): ProxyDiffer[] {
    return this.of('diff').map((connection) => new ProxyDiffer(connection));
  }

  /** @param directory of the content store. @throws Error when there is not one content store, here or elsewhere */
  async content(directory: string): Promise<ContentStore> {
    const [store, other] = this.of('content');
    const isLocal = !this.#config.disabled_plugins.includes(LOCAL_CONTENT);
    if (store !== undefined && isLocal)
      throw new Error(
        `proxy_plugins.${store.name}: there is one content store; disable ${LOCAL_CONTENT} for another`,
      );
    if (other !== undefined) throw new Error(`proxy_plugins.${other.name}: there is one content store`);
    return store === undefined ? ContentStore.open(directory) : ProxyContentStore.openProxy(directory, store);
  }

  close(): void {
    for (const connection of this.#connections.values()) connection.close();
  }
}
