/** The plugins of the table as this configuration and this host let them come up. */
import type { Logger } from 'pino';
import { messageOf, type RpcError, toRpcError } from '../ttrpc/errors.ts';
import type { Config } from './config.ts';
import type { Service } from './grpc/server.ts';
import { type Core, type Plugin, Type, proxyRows, table } from './plugins.ts';

/** A plugin as it came up. */
export interface LoadedPlugin extends Pick<Plugin, 'type' | 'id' | 'requires'> {
  /** `os/architecture/variant` */
  readonly platforms: readonly string[];
  readonly capabilities: readonly string[];
  readonly exports: { readonly [key: string]: string };
  /** Why it does not work, now. */
  readonly error: RpcError | undefined;
}

/** Whether the configuration leaves a plugin out. */
export function isDisabled(config: Config, type: keyof typeof Type, id: string): boolean {
  return config.disabled_plugins.includes(`${Type[type]}.${id}`);
}

const uriOf = ({ type, id }: Plugin): string => `${type}.${id}`;

const rowsOf = (config: Config): readonly Plugin[] => [...table, ...proxyRows(config)];

function loaded(plugin: Plugin, core: Core, error: RpcError | undefined): LoadedPlugin {
  const { type, id, requires, platforms, capabilities = [], exports, failure } = plugin;
  return {
    type,
    id,
    requires,
    capabilities,
    platforms: platforms?.(core.config) ?? [],
    exports: exports?.(core.config) ?? {},
    get error() {
      return error ?? failure?.(core);
    },
  };
}

/** The table's rows as they came up with this configuration. Disabled ones are not among them. */
export class LoadedPlugins {
  readonly rows: readonly LoadedPlugin[];
  readonly services: readonly Service[];

  /**
   * Brings up what the configuration has not disabled. An optional plugin that fails is reported and left out.
   *
   * @throws Error when the configuration requires one that failed
   */
  constructor(core: Core, log: Logger) {
    const { disabled_plugins: disabled, required_plugins: required } = core.config;
    const rows: LoadedPlugin[] = [];
    const services: Service[] = [];
    for (const plugin of rowsOf(core.config).filter((plugin) => !disabled.includes(uriOf(plugin)))) {
      const { serve, check } = plugin;
      try {
        check?.(core);
        if (serve !== undefined) services.push(...[serve(core, this)].flat());
        rows.push(loaded(plugin, core, undefined));
      } catch (error) {
        const uri = uriOf(plugin);
        if (required.includes(uri))
          throw new Error(`required plugin ${uri}: ${messageOf(error)}`, { cause: error });
        if (isSkipped(error)) log.info({ plugin: uri, reason: messageOf(error) }, 'plugin left out');
        else log.error({ err: error, plugin: uri }, 'plugin failed; the daemon goes on without it');
        rows.push(loaded(plugin, core, toRpcError(error)));
      }
    }
    this.rows = rows;
    this.services = services;
  }

  /** Whether the gRPC service of that full name is served. */
  serves(name: string): boolean {
    return this.services.some(({ definition }) => definition.fullName === name);
  }
}

/** Plugins of containerd's that Moor does without, so that disabling them is nothing to complain of. */
const elsewhere =
  /^io\.containerd\.(?:cri\.v1\.(?:images|runtime)|nri\.v1\.nri|snapshotter\.v1\.(?:aufs|blockfile|devmapper|erofs|zfs)|differ\.v1\.erofs|mount-handler\.v1\.erofs|internal\.v1\.(?:opt|tracing)|tracing\.processor\.v1\.otlp|image-verifier\.v1\.bindir|runtime\.v1\.linux)$/;

/** @throws Error when a plugin is named that is not there, or one is disabled that is required or of the core */
export function checkPluginNames(config: Config): void {
  const { disabled_plugins: disabled, required_plugins: required } = config;
  for (const proxy of proxyRows(config)) {
    if (table.some((plugin) => uriOf(plugin) === uriOf(proxy)))
      throw new Error(`proxy_plugins.${proxy.id}: there is a plugin ${uriOf(proxy)} already`);
  }
  const plugins = new Map(rowsOf(config).map((plugin) => [uriOf(plugin), plugin]));
  for (const uri of disabled) {
    const plugin = plugins.get(uri);
    if (plugin === undefined && elsewhere.test(uri)) continue;
    if (plugin === undefined) throw new Error(`disabled_plugins: there is no plugin ${uri}`);
    const isReplaced = proxyRows(config).some(({ type }) => type === Type.Content && type === plugin.type);
    if (plugin.serve === undefined && plugin.check === undefined && !isReplaced)
      throw new Error(`disabled_plugins: the daemon cannot be without ${uri}`);
  }
  for (const uri of required) {
    if (!plugins.has(uri)) throw new Error(`required_plugins: there is no plugin ${uri}`);
    if (disabled.includes(uri)) throw new Error(`required_plugins: ${uri} is disabled`);
  }
}

/** Not for this host, with nothing wrong. Clients know it by the same words. */
function isSkipped(error: unknown): boolean {
  return messageOf(error).endsWith('skip plugin');
}
