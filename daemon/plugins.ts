/**
 * The table of everything the daemon is made of that clients can ask about (`ctr plugins ls`), by the types and ids that
 * containerd gives to the same parts. What can be left out by configuration is here with the function that makes it.
 */
import { join } from 'node:path';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import type { RpcError } from '../ttrpc/errors.ts';
import type { Config } from './config.ts';
import type { CheckpointImages } from './checkpoint/images.ts';
import type { Cri } from './cri/cri.ts';
import type { NamespacedContent } from './content/namespaced-content.ts';
import type { Differs } from './diff/differs.ts';
import type { Distribution } from './distribution/distribution.ts';
import type { Streams } from './distribution/streams.ts';
import type { Exchange } from './events/exchange.ts';
import type { GcScheduler } from './gc/scheduler.ts';
import { type Service, service } from './grpc/server.ts';
import type { Health } from './health.ts';
import type { LoadedPlugins } from './loaded-plugins.ts';
import type { ImageStore } from './images/store.ts';
import type { MetricsEndpoint } from './metrics/endpoint.ts';
import type { MetadataStore } from './metadata/store.ts';
import { architecture } from './platform.ts';
import type { TaskManager } from './runtime/manager.ts';
import type { Proxies } from './proxy/proxies.ts';
import type { ProxyKind } from './proxy/settings.ts';
import type { Sandboxes } from './sandboxes.ts';
import { containersService } from './services/containers.ts';
import { contentService } from './services/content.ts';
import { criServices } from './services/cri.ts';
import { diffService } from './services/diff.ts';
import { eventsService } from './services/events.ts';
import { healthService } from './services/health.ts';
import { imagesService } from './services/images.ts';
import { type ServerIdentity, introspectionService } from './services/introspection.ts';
import { leasesService } from './services/leases.ts';
import { namespacesService } from './services/namespaces.ts';
import { type Networking, networkService } from './services/network.ts';
import { sandboxControllerService, sandboxStoreService } from './services/sandbox.ts';
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
  readonly proxies: Proxies;
  readonly differs: Differs;
  readonly checkpoints: CheckpointImages;
  readonly distribution: Distribution;
  readonly streams: Streams;
  readonly collections: GcScheduler;
  readonly networking: Networking;
  readonly metrics: MetricsEndpoint;
  readonly exchange: Exchange;
  readonly tasks: TaskManager;
  readonly sandboxes: Sandboxes;
  /** Undefined when the configuration leaves it out. */
  readonly cri: Cri | undefined;
  readonly health: Health;
  readonly identity: ServerIdentity;
}

export const Type = {
  Content: 'io.containerd.content.v1',
  Differ: 'io.containerd.differ.v1',
  Event: 'io.containerd.event.v1',
  Gc: 'io.containerd.gc.v1',
  Internal: 'io.containerd.internal.v1',
  Metadata: 'io.containerd.metadata.v1',
  Monitor: 'io.containerd.monitor.v1',
  Runtime: 'io.containerd.runtime.v2',
  SandboxController: 'io.containerd.sandbox.controller.v1',
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
  /** Runs programs of these platforms (`os/architecture/variant`), if it says. */
  readonly platforms?: (config: Config) => readonly string[];
  readonly capabilities?: readonly string[];
  readonly exports?: (config: Config) => { readonly [key: string]: string };
  /** Makes the service. Rows without it and without a check are the core, which the daemon makes itself and cannot be without. */
  readonly serve?: (core: Core, loaded: LoadedPlugins) => Service | readonly Service[];
  /** Throws why that part of the core does not work on this host. */
  readonly check?: (core: Core) => void;
  /** What it fails with now, for what may come and go. */
  readonly failure?: (core: Core) => RpcError | undefined;
}

const native = (): readonly string[] => [`linux/${architecture}`];

function snapshotter(id: SnapshotterName): Plugin {
  return {
    type: Type.Snapshotter,
    id,
    requires: [],
    platforms: native,
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
  { type: Type.Differ, id: 'walking', requires: [Type.Metadata], platforms: native },
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
    platforms: ({ plugins }) => {
      const { platforms } = plugins['io.containerd.runtime.v2.task'];
      return platforms.length > 0 ? platforms : native();
    },
    exports: ({ root, state }) => ({ root, state: join(state, 'tasks') }),
  },
  {
    // Has its name from what containerd measures containers by; here it is the endpoint too.
    type: Type.Monitor,
    id: 'cgroups',
    requires: [Type.Event, Type.Runtime],
    platforms: native,
    exports: ({ metrics: { address } }): { [key: string]: string } => (address === '' ? {} : { address }),
    check: ({ metrics }) => {
      if (metrics.failure !== undefined) throw metrics.failure;
    },
  },
  { type: Type.Gc, id: 'scheduler', requires: [Type.Metadata] },
  { type: Type.Internal, id: 'restart', requires: [Type.Event, Type.Service], check: () => undefined },
  { type: Type.SandboxController, id: 'shim', requires: [Type.Event, Type.Runtime] },
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
    id: 'cri',
    requires: [Type.Metadata, Type.Runtime, Type.Snapshotter],
    platforms: native,
    serve: ({ cri }) => (cri === undefined ? [] : criServices(cri)),
  },
  {
    type: Type.Grpc,
    id: 'diff',
    requires: [Type.Service],
    serve: ({ config, differs }) =>
      diffService(differs, config.plugins['io.containerd.service.v1.diff-service'].sync_fs),
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
    platforms: native,
    exports: ({ state }) => ({ path: join(state, 'netns') }),
    serve: ({ networking }) => networkService(networking),
  },
  {
    type: Type.Grpc,
    id: 'sandbox-controllers',
    requires: [Type.SandboxController, Type.Event],
    serve: ({ sandboxes }) => sandboxControllerService(sandboxes.controllers),
  },
  {
    type: Type.Grpc,
    id: 'sandboxes',
    requires: [Type.Metadata],
    serve: ({ metadata, sandboxes }) => sandboxStoreService(metadata.sandboxes, sandboxes.pods),
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
    serve: ({ tasks, metadata, checkpoints, sandboxes }) => {
      const shimOf = sandboxes.shimOf.bind(sandboxes);
      return service(TasksDefinition, tasksService(tasks, metadata.containers, checkpoints, shimOf), [
        'wait',
      ]);
    },
  },
  {
    type: Type.Grpc,
    id: 'transfer',
    requires: [Type.Streaming, Type.Transfer],
    serve: ({ distribution, streams }) => transferService(distribution, streams),
  },
  { type: Type.Grpc, id: 'version', requires: [], serve: () => versionService(version, revision) },
];

const proxyTypes: { readonly [K in ProxyKind]: Type } = {
  snapshot: Type.Snapshotter,
  content: Type.Content,
  diff: Type.Differ,
};

/** The rows of what other processes serve. */
export function proxyRows({ proxy_plugins: proxies }: Config): Plugin[] {
  return Object.entries(proxies).map(([id, { type, address, platform, exports, capabilities }]) => ({
    type: proxyTypes[type],
    id,
    requires: [],
    platforms: platform === '' ? native : () => [platform],
    capabilities,
    exports: () => ({ ...exports, address }),
    check: () => undefined,
    failure: (core) => core.proxies.failure(id),
  }));
}
