/**
 * Moor's SDK: containers through the daemon's gRPC API, typed. It works with any daemon that speaks containerd's API.
 *
 *     const client = await connect();
 *     const spec = client.spec('hello', { rootfs: '/srv/rootfs', args: ['echo', 'hello'] });
 *     await using container = await client.containers.create('hello', { spec });
 *     await using task = await container.createTask();
 *     await task.start();
 *     for await (const chunk of task.stdout!) process.stdout.write(chunk);
 *     const { code } = await task.wait();
 *
 * Every failure is an `RpcError` with a `code`. Every call takes `signal` and `timeout`.
 */
import { IntrospectionDefinition, type Plugin } from '../proto/gen/containerd/services/introspection.ts';
import type { ServerResponse } from '../proto/gen/containerd/services/introspection.ts';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { VersionDefinition, type VersionResponse } from '../proto/gen/containerd/services/version.ts';
import type { Process as ProcessState } from '../proto/gen/containerd/types/task.ts';
import type { CallOptions, ServiceClient, ServiceDefinition } from '../ttrpc/service.ts';
import { Connection, DEFAULT_ADDRESS } from './connection.ts';
import { Content } from './content.ts';
import { Containers } from './container.ts';
import { Diffs } from './diff.ts';
import { type Event, eventOf, subscribe } from './events.ts';
import { type FollowOptions, follow } from './follow.ts';
import { Images } from './images.ts';
import { Kubernetes } from './kubernetes.ts';
import { Leases } from './lease.ts';
import { type Metrics, readMetrics } from './metrics.ts';
import { Namespaces } from './namespace.ts';
import type { PatientOptions } from './process.ts';
import { Networks } from './network.ts';
import type { Spec } from '../oci/spec.ts';
import { Sandboxes } from './sandbox.ts';
import { Snapshots } from './snapshots.ts';
import { buildSpec, type SpecOptions } from './spec.ts';
import { Transfers } from './transfer.ts';

const DEFAULT_NAMESPACE = 'default';

export interface ConnectOptions {
  /** The daemon's socket. Default: /run/moor/moor.sock. */
  readonly address?: string;
  /** Default: `default`. */
  readonly namespace?: string;
  /** Milliseconds to wait for a daemon that is not there yet. Default: 0, and the first call fails if there is none. */
  readonly patience?: number;
  readonly signal?: AbortSignal;
}

/** @throws RpcError Unavailable when `patience` was given and nobody listened by then */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const { address = DEFAULT_ADDRESS, namespace = DEFAULT_NAMESPACE, patience = 0, signal } = options;
  const connection = new Connection(address);
  try {
    if (patience > 0) await connection.ready(patience, signal);
    return new Client(connection, namespace);
  } catch (error) {
    connection.close();
    throw error;
  }
}

/** A daemon, seen from one namespace. */
export class Client implements Disposable {
  readonly namespace: string;
  readonly namespaces: Namespaces;
  readonly containers: Containers;
  readonly leases: Leases;
  readonly networks: Networks;
  readonly sandboxes: Sandboxes;
  readonly kubernetes: Kubernetes;
  readonly content: Content;
  readonly images: Images;
  readonly diffs: Diffs;
  /** Moves images between registries, archives and the daemon. */
  readonly transfers: Transfers;
  readonly #connection: Connection;
  readonly #headers: (readonly [string, string])[];

  constructor(connection: Connection, namespace: string, lease?: string) {
    this.namespace = namespace;
    this.#connection = connection;
    this.#headers = [['containerd-namespace', namespace]];
    if (lease !== undefined) this.#headers.push(['containerd-lease', lease]);
    this.namespaces = new Namespaces(connection, this.#headers);
    this.containers = new Containers(connection, this.#headers, namespace);
    this.leases = new Leases(connection, this.#headers);
    this.networks = new Networks(connection, this.#headers);
    this.sandboxes = new Sandboxes(connection, this.#headers);
    this.kubernetes = new Kubernetes(connection);
    this.content = new Content(connection, this.#headers);
    this.diffs = new Diffs(connection, this.#headers);
    this.images = new Images(connection, this.#headers, namespace);
    this.transfers = new Transfers(connection, this.#headers, namespace);
  }

  /** The socket it is connected to. */
  get address(): string {
    return this.#connection.address;
  }

  /** The same connection, seen from another namespace. Closing one closes both. */
  in(namespace: string): Client {
    return new Client(this.#connection, namespace);
  }

  /** The same, with everything that its calls create added to a lease. */
  withLease(lease: string): Client {
    return new Client(this.#connection, this.namespace, lease);
  }

  /**
   * Waits until the daemon takes connections, after a restart of it for example.
   *
   * @param timeout milliseconds
   * @throws RpcError Unavailable when it does not by then
   */
  async ready(timeout: number, signal?: AbortSignal): Promise<void> {
    await this.#connection.ready(timeout, signal);
  }

  /** The daemon's version and the revision it was built from. */
  async version(options?: CallOptions): Promise<VersionResponse> {
    return await this.#connection.service(VersionDefinition).version({}, options);
  }

  /** The daemon's identity: a UUID that stays over restarts, and its process id where it tells. */
  async server(options?: CallOptions): Promise<ServerResponse> {
    return await this.#connection.service(IntrospectionDefinition, this.#headers).server({}, options);
  }

  /** What the daemon is made of. @param filters alternatives: `type==io.containerd.snapshotter.v1,id==overlayfs` */
  async plugins(filters: readonly string[] = [], options?: CallOptions): Promise<Plugin[]> {
    const service = this.#connection.service(IntrospectionDefinition, this.#headers);
    return (await service.plugins({ filters: [...filters] }, options)).plugins;
  }

  /** The state of every task in the namespace. */
  async tasks(options?: CallOptions): Promise<ProcessState[]> {
    return (await this.service(TasksDefinition).list({}, options)).tasks;
  }

  /**
   * The counters of every container in the namespace that runs, one reading each.
   *
   * @param filters alternatives: `id==web`
   */
  metrics(filters: readonly string[] = [], options: PatientOptions = {}): Promise<Metrics[]> {
    return readMetrics(this.service(TasksDefinition), filters, options);
  }

  /** Root filesystems and their layers. @param name the snapshotter; empty for the namespace's default */
  snapshots(name = ''): Snapshots {
    return new Snapshots(this.#connection, this.#headers, this.namespace, name);
  }

  /**
   * What happens in the daemon, in all namespaces, from now on. Leaving the loop or aborting `signal` ends it.
   *
   * @param filters alternatives: `topic==/tasks/exit,namespace==default`
   */
  events(filters: readonly string[] = [], options?: CallOptions): AsyncIterable<Event> {
    return subscribe(this.#connection, this.#headers, filters, options);
  }

  /**
   * Subscribes as `events` does, and again whenever the daemon was killed or restarted: no event is missed, and none comes twice.
   *
   * @param filters no other subscription of this process has the same
   */
  async *follow(filters: readonly string[] = [], options?: FollowOptions): AsyncGenerator<Event> {
    for await (const envelope of follow(this.#connection, this.#headers, filters, options))
      yield eventOf(envelope);
  }

  /**
   * The OCI specification of a container in this namespace, with containerd's defaults.
   *
   * @throws RpcError InvalidArgument or NotFound for what the host or the root filesystem does not have
   */
  spec(id: string, options: SpecOptions): Spec {
    return buildSpec(this.namespace, id, options);
  }

  /** Any service of the daemon, raw, by its generated definition; calls carry the namespace. */
  service<S extends ServiceDefinition>(definition: S): ServiceClient<S> {
    return this.#connection.service(definition, this.#headers);
  }

  /** Ends the connection. Containers are not disturbed. */
  close(): void {
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }
}

export { Code, isCode, RpcError } from '../ttrpc/errors.ts';
export type { CallOptions, ServiceClient, ServiceDefinition } from '../ttrpc/service.ts';
export type { Plugin };
export type { Any } from './any.ts';
export { DEFAULT_ADDRESS } from './connection.ts';
export {
  type Container,
  type ContainerDeleteOptions,
  type ContainerInfo,
  type ContainerOptions,
  type Containers,
  DEFAULT_RUNTIME,
  type ImageContainerOptions,
  type Mount,
  type Runtime,
  type TaskOptions,
} from './container.ts';
export type { Bytes, Content, ContentInfo, Ingest, ReadOptions, WriteOptions } from './content.ts';
export type { ConvertOptions, LayerFormat } from './convert.ts';
export type { CredentialProvider, Credentials, Question } from './credentials.ts';
export { dockerCredentials } from './credentials-docker.ts';
export type { CompareOptions, Diffs } from './diff.ts';
export type { Event, KnownEvent } from './events.ts';
export type { Completeness, Image, Images, PlatformOptions } from './images.ts';
export { STOP_SIGNAL_LABEL } from './image-config.ts';
export {
  type CommandStreams,
  type ContainerConfig,
  ContainerEventType,
  ContainerState,
  type Kubernetes,
  type KubernetesContainer,
  type KubernetesContainerStatus,
  type KubernetesImage,
  type PodSandbox,
  type PodSandboxConfig,
  PodSandboxState,
  type RemoteCommand,
  type RemoteOptions,
} from './kubernetes.ts';
export type { Lease, LeaseOptions, Leases, Resource } from './lease.ts';
export type { Descriptor, DescriptorJson, ImageConfig, Manifest, PlatformImage } from './manifest.ts';
export type { ContainerCheckpointOptions, ContainerRestoreOptions } from './checkpoint.ts';
export { chainIds } from './manifest.ts';
export type { Metrics } from './metrics.ts';
export { mountAll, unmountAll } from './mounts.ts';
export type { Labels, Namespace, Namespaces } from './namespace.ts';
export {
  type Address,
  type AddLinkOptions,
  HOST_NETWORK,
  type Link,
  type LinkKind,
  type LinkSettings,
  type Network,
  type Networks,
  type Route,
  type SetLinkOptions,
} from './network.ts';
export { withEnvironment } from '../oci/environment.ts';
export type * as oci from '../oci/spec.ts';
export { hostPlatform, normalize, parsePlatform, type PlatformParts, platformText } from '../oci/platform.ts';
export {
  type DeleteOptions,
  type Exit,
  type PatientOptions,
  type Process,
  type ProcessStatus,
  statusName,
  type WindowSize,
} from './process.ts';
export { parseRestartPolicy, type RestartOptions, type RestartPolicy } from './restart.ts';
export { defaultSeccompProfile, type SeccompProfile } from '../oci/seccomp.ts';
export { type ShimOptions, shimState } from './shim.ts';
export { type Signal, signalNumber } from '../oci/signal.ts';
export {
  type Sandbox,
  type SandboxEnd,
  type Sandboxes,
  type SandboxOptions,
  type SandboxRecord,
  type SandboxStatus,
} from './sandbox.ts';
export { buildSpec, type ImageSpecOptions, type SpecOptions } from './spec.ts';
export {
  DEFAULT_SNAPSHOTTER,
  kindName,
  type SnapshotInfo,
  type SnapshotKind,
  type SnapshotOptions,
  type Snapshots,
  type Usage,
} from './snapshots.ts';
export type { PipeOptions, StdioOptions, StdioPaths } from './stdio.ts';
export type { ExecOptions, ExecProcess, Task, TaskProcess } from './task.ts';
export { dateOf } from './timestamp.ts';
export type {
  ExportOptions,
  ImportedName,
  ImportOptions,
  Platforms,
  Progress,
  PullOptions,
  PushOptions,
  RegistryOptions,
  TransferOptions,
} from './transfer-options.ts';
export { type ProgressSteps, stepsOf } from './transfer-calls.ts';
export type { Transfers } from './transfer.ts';
export { lookUpUser } from '../oci/user.ts';
