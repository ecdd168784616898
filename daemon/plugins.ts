/**
 * The table of everything the daemon is made of that clients can ask about (`ctr plugins ls`), by the types and ids that
 * containerd gives to the same parts. What can be left out by configuration is here with the function that makes it.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { messageOf, type RpcError, toRpcError } from '../ttrpc/errors.ts';
import type { Config } from './config.ts';
import type { NamespacedContent } from './content/namespaced-content.ts';
import type { Differ } from './diff/differ.ts';
import type { Distribution } from './distribution/distribution.ts';
import type { Streams } from './distribution/streams.ts';
import type { Exchange } from './events/exchange.ts';
import type { GcScheduler } from './gc/scheduler.ts';
import { type Service, service } from './grpc/server.ts';
import type { Health } from './health.ts';
import type { ImageStore } from './images/store.ts';
import type { MetadataStore } from './metadata/store.ts';
import type { TaskManager } from './runtime/manager.ts';
import { containersService } from './services/containers.ts';
import { contentService } from './services/content.ts';
import { diffService } from './services/diff.ts';
import { eventsService } from './services/events.ts';
import { healthService } from './services/health.ts';
import { imagesService } from './services/images.ts';
import { type ServerIdentity, introspectionService } from './services/introspection.ts';
import { leasesService } from './services/leases.ts';
import { namespacesService } from './services/namespaces.ts';
import { type Networking, networkService } from './services/network.ts';
import { snapshotsService } from './services/snapshots.ts';
import { streamingService } from './services/streaming.ts';
import { tasksService } from './services/tasks.ts';
import { transferService } from './services/transfer.ts';
import { versionService } from './services/version.ts';
import {
  type SnapshotterName,
  type Snapshotters,
  snapshotterNames,
  snapshotterRoot,
} from './snapshots/snapshotters.ts';
import { revision, version } from './version.ts';

/** What services are made from. */
export interface Core {
  readonly config: Config;
  readonly metadata: MetadataStore;
  readonly content: NamespacedContent;
  readonly images: ImageStore;
  readonly snapshotters: Snapshotters;
  readonly differ: Differ;
  readonly distribution: Distribution;
  readonly streams: Streams;
  readonly collections: GcScheduler;
  readonly networking: Networking;
  readonly exchange: Exchange;
  readonly tasks: TaskManager;
  readonly health: Health;
  readonly identity: ServerIdentity;
}

const Type = {
  Content: 'io.containerd.content.v1',
  Differ: 'io.containerd.differ.v1',
  Event: 'io.containerd.event.v1',
  Gc: 'io.containerd.gc.v1',
  Metadata: 'io.containerd.metadata.v1',
  Runtime: 'io.containerd.runtime.v2',
  Snapshotter: 'io.containerd.snapshotter.v1',
  Streaming: 'io.containerd.streaming.v1',
  Transfer: 'io.containerd.transfer.v1',
  Service: 'io.containerd.service.v1',
  Grpc: 'io.containerd.grpc.v1',
} as const;
type Type = (typeof Type)[keyof typeof Type];

/** A row of the table. */
export interface Plugin {
  readonly type: Type;
  readonly id: string;
  /** Types of other plugins without which it cannot be. */
  readonly requires: readonly Type[];
  /** Runs programs of this platform, which is worth telling. */
  readonly native?: boolean;
  readonly exports?: (config: Config) => { readonly [key: string]: string };
  /** Makes the service. Rows without it and without a check are the core, which the daemon makes itself and cannot be without. */
  readonly serve?: (core: Core, loaded: LoadedPlugins) => Service;
  /** Throws why that part of the core does not work on this host. */
  readonly check?: (core: Core) => void;
}

function snapshotter(id: SnapshotterName): Plugin {
  return {
    type: Type.Snapshotter,
    id,
    requires: [],
    native: true,
    exports: ({ root, plugins }) => ({
      root: snapshotterRoot(root, id, plugins[`${Type.Snapshotter}.${id}`]),
    }),
    check: ({ snapshotters }) => snapshotters.check(id),
  };
}

export const table: readonly Plugin[] = [
  { type: Type.Event, id: 'exchange', requires: [] },
  {
    type: Type.Content,
    id: 'content',
    requires: [],
    exports: ({ root }) => ({ root: join(root, 'content') }),
  },
  ...snapshotterNames.map(snapshotter),
  { type: Type.Differ, id: 'walking', requires: [Type.Metadata], native: true },
  {
    // Clients look for the metadata store under this name, whatever it is made of.
    type: Type.Metadata,
    id: 'bolt',
    requires: [Type.Event, Type.Content, Type.Snapshotter],
    exports: ({ root }) => ({ path: join(root, 'metadata') }),
  },
  {
    type: Type.Runtime,
    id: 'task',
    requires: [Type.Event, Type.Metadata],
    native: true,
    exports: ({ root, state }) => ({ root, state: join(state, 'tasks') }),
  },
  { type: Type.Gc, id: 'scheduler', requires: [Type.Metadata] },
  { type: Type.Streaming, id: 'manager', requires: [Type.Metadata] },
  { type: Type.Transfer, id: 'local', requires: [Type.Metadata, Type.Differ] },
  { type: Type.Service, id: 'containers-service', requires: [Type.Event, Type.Metadata] },
  { type: Type.Service, id: 'content-service', requires: [Type.Event, Type.Metadata] },
  { type: Type.Service, id: 'diff-service', requires: [Type.Differ] },
  { type: Type.Service, id: 'images-service', requires: [Type.Metadata, Type.Gc] },
  { type: Type.Service, id: 'introspection-service', requires: [] },
  { type: Type.Service, id: 'leases-service', requires: [Type.Metadata, Type.Gc] },
  { type: Type.Service, id: 'namespaces-service', requires: [Type.Event, Type.Metadata] },
  { type: Type.Service, id: 'snapshots-service', requires: [Type.Event, Type.Metadata] },
  { type: Type.Service, id: 'tasks-service', requires: [Type.Event, Type.Metadata, Type.Runtime] },
  {
    type: Type.Grpc,
    id: 'containers',
    requires: [Type.Service],
    serve: ({ metadata, exchange }) => containersService(metadata.containers, exchange),
  },
  {
    type: Type.Grpc,
    id: 'content',
    requires: [Type.Service],
    serve: ({ content, exchange }) => contentService(content, exchange),
  },
  {
    type: Type.Grpc,
    id: 'diff',
    requires: [Type.Service],
    serve: ({ config, differ, content }) =>
      diffService(differ, content, config.plugins['io.containerd.service.v1.diff-service'].sync_fs),
  },
  { type: Type.Grpc, id: 'events', requires: [Type.Event], serve: ({ exchange }) => eventsService(exchange) },
  {
    type: Type.Grpc,
    id: 'healthcheck',
    requires: [],
    serve: ({ health }, loaded) => healthService(health, (name) => loaded.serves(name)),
  },
  {
    type: Type.Grpc,
    id: 'images',
    requires: [Type.Service],
    serve: ({ images, collections }) => imagesService(images, collections),
  },
  {
    type: Type.Grpc,
    id: 'introspection',
    requires: [Type.Service],
    serve: ({ identity }, loaded) => introspectionService(identity, loaded),
  },
  {
    type: Type.Grpc,
    id: 'leases',
    requires: [Type.Service],
    serve: ({ metadata, collections }) => leasesService(metadata.leases, collections),
  },
  {
    type: Type.Grpc,
    id: 'namespaces',
    requires: [Type.Service],
    serve: ({ metadata, exchange }) => namespacesService(metadata.namespaces, exchange),
  },
  {
    type: Type.Grpc,
    id: 'network',
    requires: [Type.Event, Type.Metadata],
    native: true,
    exports: ({ state }) => ({ path: join(state, 'netns') }),
    serve: ({ networking }) => networkService(networking),
  },
  {
    type: Type.Grpc,
    id: 'snapshots',
    requires: [Type.Service],
    serve: ({ snapshotters }) => snapshotsService(snapshotters),
  },
  {
    type: Type.Grpc,
    id: 'streaming',
    requires: [Type.Streaming],
    serve: ({ streams }) => streamingService(streams),
  },
  {
    type: Type.Grpc,
    id: 'tasks',
    requires: [Type.Service],
    serve: ({ tasks, metadata }) =>
      service(TasksDefinition, tasksService(tasks, metadata.containers), ['wait']),
  },
  {
    type: Type.Grpc,
    id: 'transfer',
    requires: [Type.Streaming, Type.Transfer],
    serve: ({ distribution, streams }) => transferService(distribution, streams),
  },
  { type: Type.Grpc, id: 'version', requires: [], serve: () => versionService(version, revision) },
];

/** A plugin as it came up. */
export interface LoadedPlugin extends Omit<Plugin, 'exports' | 'serve' | 'check'> {
  readonly exports: { readonly [key: string]: string };
  /** Why it does not work. */
  readonly error?: RpcError;
}

/** Whether the configuration leaves a plugin out. */
export function isDisabled(config: Config, type: keyof typeof Type, id: string): boolean {
  return config.disabled_plugins.includes(`${Type[type]}.${id}`);
}

const uriOf = ({ type, id }: Plugin): string => `${type}.${id}`;

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
    for (const plugin of table.filter((plugin) => !disabled.includes(uriOf(plugin)))) {
      const { serve, check, exports, ...row } = plugin;
      const loaded = { ...row, exports: exports?.(core.config) ?? {} };
      try {
        check?.(core);
        if (serve !== undefined) services.push(serve(core, this));
        rows.push(loaded);
      } catch (error) {
        const uri = uriOf(plugin);
        if (required.includes(uri))
          throw new Error(`required plugin ${uri}: ${messageOf(error)}`, { cause: error });
        if (isSkipped(error)) log.info({ plugin: uri, reason: messageOf(error) }, 'plugin left out');
        else log.error({ err: error, plugin: uri }, 'plugin failed; the daemon goes on without it');
        rows.push({ ...loaded, error: toRpcError(error) });
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
  /^io\.containerd\.(?:grpc\.v1\.cri|cri\.v1\.(?:images|runtime)|nri\.v1\.nri|snapshotter\.v1\.(?:aufs|blockfile|devmapper|erofs|zfs)|differ\.v1\.erofs|mount-handler\.v1\.erofs|internal\.v1\.(?:opt|tracing)|tracing\.processor\.v1\.otlp|image-verifier\.v1\.bindir|runtime\.v1\.linux)$/;

/** @throws Error when a plugin is named that is not there, or one is disabled that is required or of the core */
export function checkPluginNames({ disabled_plugins: disabled, required_plugins: required }: Config): void {
  const plugins = new Map(table.map((plugin) => [uriOf(plugin), plugin]));
  for (const uri of disabled) {
    const plugin = plugins.get(uri);
    if (plugin === undefined && elsewhere.test(uri)) continue;
    if (plugin === undefined) throw new Error(`disabled_plugins: there is no plugin ${uri}`);
    if (plugin.serve === undefined && plugin.check === undefined)
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
