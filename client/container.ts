import { BinaryWriter } from '@bufbuild/protobuf/wire';
import {
  type Container as ContainerInfo,
  ContainersDefinition,
} from '../proto/gen/containerd/services/containers.ts';
import { Options as RuncOptions } from '../proto/gen/containerd/runtime/runc.ts';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { Code, failedPrecondition, internal, isCode } from '../ttrpc/errors.ts';
import type { CallOptions, PartialMessage, ServiceClient } from '../ttrpc/service.ts';
import { type Any, anyOf, typeNameOf } from './any.ts';
import { pack, SPEC_TYPE } from '../oci/packed.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import type { ContainerCheckpointOptions, ContainerRestoreOptions } from './checkpoint.ts';
import type { ImageContainerOptions, Place } from './image-container.ts';
import type { Image } from './images.ts';
import type { Descriptor } from './manifest.ts';
import type { Labels } from './namespace.ts';
import type { Spec } from '../oci/spec.ts';
import type { ExecProcess } from './task.ts';
import { type RestartOptions, restartLabels, stopLabels } from './restart.ts';
import { partsOf, Task } from './task.ts';
import type { Tasks } from './process.ts';
import { Snapshots } from './snapshots.ts';
import { Stdio, type StdioOptions } from './stdio.ts';

export type { ContainerInfo, ExecProcess, ImageContainerOptions, Mount };

/** The runtime that every daemon has: its own shim with runc. */
export const DEFAULT_RUNTIME = 'io.containerd.runc.v2';

const RUNC_OPTIONS_TYPE = 'containerd.runc.v1.Options';

/** A shim and what it is told. */
export interface Runtime {
  /** Default: DEFAULT_RUNTIME. */
  readonly name?: string;
  /** Options of a runc shim. */
  readonly runc?: PartialMessage<RuncOptions>;
  /** The configuration file of another shim. */
  readonly configPath?: string;
  /** Options of another shim, packed. */
  readonly options?: Any;
}

export interface ContainerOptions extends CallOptions {
  /** What to run; `Client.spec` makes one. */
  readonly spec: Spec;
  readonly labels?: Labels;
  readonly runtime?: Runtime;
  /** The image's name, for those who ask; it is not looked up. */
  readonly image?: string;
  readonly snapshotter?: string;
  readonly snapshotKey?: string;
  readonly extensions?: { readonly [name: string]: Any };
  /** Has the daemon start it again when it ends. Default: never. */
  readonly restart?: RestartOptions;
}

export interface TaskOptions extends CallOptions {
  /** Default: pipes. `terminal` must agree with the container's spec. */
  readonly stdio?: StdioOptions;
  /**
   * Mounted on the container's rootfs directory. Default: the container's snapshot, where it has one. None for a spec whose root is
   * an absolute path.
   */
  readonly rootfs?: readonly PartialMessage<Mount>[];
  /** Changes to the container's runtime options, for this task. */
  readonly runc?: PartialMessage<RuncOptions>;
  /** An image of `Containers.checkpoint` with a task, or where one has it: the container goes on from there. */
  readonly checkpoint?: string | Descriptor | undefined;
}

/** The functions that containers are made of, all in one namespace. */
interface Services {
  readonly containers: ServiceClient<typeof ContainersDefinition>;
  readonly tasks: Tasks;
  readonly snapshots: (name: string) => Snapshots;
  readonly place: Place;
}

export interface ContainerDeleteOptions extends CallOptions {
  /** Leave the snapshot that is its root filesystem. */
  readonly keepSnapshot?: boolean;
}

/** The containers of a namespace. */
export class Containers {
  readonly #connection: Connection;
  readonly #services: Services;

  constructor(connection: Connection, headers: Headers, namespace: string) {
    this.#connection = connection;
    this.#services = {
      containers: connection.service(ContainersDefinition, headers),
      tasks: connection.service(TasksDefinition, headers),
      snapshots: (name) => new Snapshots(connection, headers, namespace, name),
      place: { connection, headers, namespace },
    };
  }

  /** Stores a container. Nothing runs yet. @throws RpcError AlreadyExists, InvalidArgument for a malformed id or label */
  async create(id: string, options: ContainerOptions): Promise<Container> {
    return await this.#create(this.#services.containers, id, options);
  }

  /**
   * Stores a container with an image for its root filesystem: unpacks the image when that has not been done, prepares a
   * snapshot for the container and makes its specification from the image's configuration. Nothing runs yet.
   *
   * @param image its name as the daemon has it
   * @throws RpcError NotFound for an image, a platform, content or a user that is not there; AlreadyExists; InvalidArgument
   */
  async createFromImage(id: string, image: string, options: ImageContainerOptions = {}): Promise<Container> {
    // What images need beyond is loaded by those who run them.
    const { createFromImage } = await import('./image-container.ts');
    return await createFromImage(this.#services.place, id, image, options, (made, leased) =>
      this.#create(this.#connection.service(ContainersDefinition, leased), id, made),
    );
  }

  /**
   * Writes a container to an image, so that it can be restored, here or elsewhere. A task stands still meanwhile.
   *
   * @param name of the image
   * @throws RpcError AlreadyExists for the name, NotFound, and what the runtime says when it cannot
   */
  async checkpoint(id: string, name: string, options: ContainerCheckpointOptions = {}): Promise<Image> {
    const { checkpointContainer } = await import('./checkpoint.ts');
    return await checkpointContainer(this.#services.place, id, name, options);
  }

  /**
   * Stores the container that an image of `checkpoint` holds, under the same id or another. Nothing runs yet: `createTask` with
   * `checkpoint` has it go on where it was.
   *
   * @throws RpcError NotFound, AlreadyExists, InvalidArgument for an image of another kind
   */
  async restore(id: string, name: string, options: ContainerRestoreOptions = {}): Promise<Container> {
    const { restoreContainer } = await import('./checkpoint.ts');
    return await restoreContainer(this.#services.place, id, name, options, async (made, leased) => {
      const service = this.#connection.service(ContainersDefinition, leased);
      return this.#found((await service.create({ container: made })).container, id);
    });
  }

  async #create(service: Services['containers'], id: string, options: ContainerOptions): Promise<Container> {
    const {
      spec,
      labels = {},
      runtime = {},
      image,
      snapshotter,
      snapshotKey,
      extensions,
      restart,
      ...call
    } = options;
    const { container } = await service.create(
      {
        container: {
          id,
          labels: { ...labels, ...restartLabels(restart) },
          image,
          runtime: { name: runtime.name ?? DEFAULT_RUNTIME, options: runtimeOptions(runtime) },
          spec: pack(SPEC_TYPE, spec),
          snapshotter,
          snapshotKey,
          extensions,
        },
      },
      call,
    );
    return this.#found(container, id);
  }

  /** @throws RpcError NotFound */
  async get(id: string, options?: CallOptions): Promise<Container> {
    return this.#found((await this.#services.containers.get({ id }, options)).container, id);
  }

  /** @param filters alternatives; within one, commas mean and: `labels."app"==web,image~=^docker` */
  async list(filters: readonly string[] = [], options?: CallOptions): Promise<Container[]> {
    const { containers } = await this.#services.containers.list({ filters: [...filters] }, options);
    return containers.map((info) => new Container(this.#services, info));
  }

  #found(info: ContainerInfo | undefined, id: string): Container {
    if (info === undefined) throw internal(`the daemon sent nothing of container ${id}`);
    return new Container(this.#services, info);
  }
}

/** What to run and how, under a name; running or not. */
export class Container implements AsyncDisposable {
  readonly id: string;
  readonly #services: Services;
  #info: ContainerInfo;

  constructor(services: Services, info: ContainerInfo) {
    this.id = info.id;
    this.#services = services;
    this.#info = info;
  }

  /** All that the daemon stores of it, as it was when last asked for. */
  get info(): ContainerInfo {
    return this.#info;
  }

  get labels(): Labels {
    return this.#info.labels;
  }

  /** The OCI specification it runs by. @throws RpcError FailedPrecondition when it has none, or one that is not JSON */
  get spec(): Spec {
    const text = this.#info.spec?.value.toString();
    if (text === undefined) throw failedPrecondition(`container ${this.id} has no spec`);
    try {
      return JSON.parse(text) as Spec;
    } catch (error) {
      throw failedPrecondition(`the spec of container ${this.id} is not JSON`, error);
    }
  }

  async refresh(options?: CallOptions): Promise<ContainerInfo> {
    const { container } = await this.#services.containers.get({ id: this.id }, options);
    this.#info = container ?? this.#info;
    return this.#info;
  }

  /** Sets the given labels and leaves the others; an empty value clears one. @returns all of them */
  async label(labels: Labels, options?: CallOptions): Promise<Labels> {
    const updateMask = Object.keys(labels).map((key) => `labels.${key}`);
    return (await this.update({ labels }, updateMask, options)).labels;
  }

  /**
   * Tells the daemon that it is stopped on purpose, or that it is not any more: with the restart policy `unless-stopped` it stays
   * so. Does nothing where there is no policy.
   */
  async stoppedOnPurpose(isStopped: boolean, options?: CallOptions): Promise<void> {
    const labels = stopLabels(this.labels, isStopped);
    if (labels !== undefined) await this.label(labels, options);
  }

  /** Replaces fields. @param updateMask their names in the API, `spec` or `labels.app` for example */
  async update(
    changes: PartialMessage<ContainerInfo>,
    updateMask: string[],
    options?: CallOptions,
  ): Promise<ContainerInfo> {
    const { container } = await this.#services.containers.update(
      { container: { ...changes, id: this.id }, updateMask },
      options,
    );
    this.#info = container ?? this.#info;
    return this.#info;
  }

  /** How to mount its root filesystem's snapshot; empty for a container that has none. @throws RpcError NotFound */
  async mounts(options?: CallOptions): Promise<Mount[]> {
    const { snapshotter, snapshotKey } = this.#info;
    if (snapshotKey === '') return [];
    return await this.#services.snapshots(snapshotter).mounts(snapshotKey, options);
  }

  /**
   * Has the runtime prepare the container; `start()` of the task runs it.
   *
   * @throws RpcError AlreadyExists when it has a task, and what the runtime says when it cannot
   */
  async createTask(options: TaskOptions = {}): Promise<Task> {
    const { stdio: streams = {}, rootfs, runc, checkpoint, ...call } = options;
    const mounts = rootfs ?? (await this.mounts(call));
    const from = typeof checkpoint === 'string' ? await this.#checkpoint(checkpoint, call) : checkpoint;
    const stdio = Stdio.create(streams);
    try {
      const { pid } = await this.#services.tasks.create(
        {
          containerId: this.id,
          ...stdio.paths,
          rootfs: [...mounts],
          checkpoint: from,
          options: runc === undefined ? undefined : this.#runtimeOptions(runc),
        },
        call,
      );
      stdio.opened();
      return this.#task({ containerId: this.id, pid, started: false, stdio });
    } catch (error) {
      stdio.remove();
      stdio.detach();
      throw error;
    }
  }

  /**
   * The task it has.
   *
   * @param options `attach`: opens its streams. Two clients that read the same stream get a part each
   * @throws RpcError NotFound when it has none
   */
  async task(options: CallOptions & { attach?: boolean } = {}): Promise<Task> {
    const { attach = false, ...call } = options;
    const { process } = await this.#services.tasks.get({ containerId: this.id }, call);
    if (process === undefined) throw internal(`the daemon sent no state of ${this.id}`);
    return this.#task(partsOf(this.id, '', process, attach));
  }

  /** Removes it, and the snapshot that is its root filesystem. @throws RpcError FailedPrecondition when it has a task, NotFound */
  async delete(options: ContainerDeleteOptions = {}): Promise<void> {
    const { keepSnapshot = false, ...call } = options;
    const { snapshotter, snapshotKey } = this.#info;
    const snapshot = keepSnapshot ? '' : snapshotKey;
    // A daemon may remove the record of a container that runs; its files it must not lose.
    if (snapshot !== '') await this.#requireNoTask(call);
    await this.#services.containers.delete({ id: this.id }, call);
    // Last: a snapshot without a container is garbage that is collected; a container without a snapshot nobody could use.
    if (snapshot !== '') await removed(this.#services.snapshots(snapshotter).remove(snapshot, call));
  }

  async #checkpoint(name: string, call: CallOptions): Promise<Descriptor> {
    const { checkpointOf } = await import('./checkpoint.ts');
    return await checkpointOf(this.#services.place, name, call);
  }

  async #requireNoTask(call: CallOptions): Promise<void> {
    try {
      await this.#services.tasks.get({ containerId: this.id }, call);
    } catch (error) {
      if (isCode(error, Code.NotFound)) return;
      throw error;
    }
    throw failedPrecondition(`cannot delete running task ${this.id}`);
  }

  /** Kills and deletes its task, then itself. What is gone already is no error. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      const task = await this.task();
      await task[Symbol.asyncDispose]();
    } catch (error) {
      if (!isCode(error, Code.NotFound)) throw error;
    }
    await removed(this.delete());
  }

  #runtimeOptions(changes: PartialMessage<RuncOptions>): Any {
    const own = this.#info.runtime?.options;
    const base =
      own !== undefined && typeNameOf(own) === RUNC_OPTIONS_TYPE ? RuncOptions.decode(own.value) : {};
    return anyOf(RUNC_OPTIONS_TYPE, RuncOptions, { ...base, ...changes });
  }

  #task(parts: ConstructorParameters<typeof Task>[1]): Task {
    return new Task(this.#services.tasks, parts, () => Promise.resolve().then(() => this.spec));
  }
}

/** What is gone already is as good as removed. */
async function removed(removal: Promise<void>): Promise<void> {
  try {
    await removal;
  } catch (error) {
    if (!isCode(error, Code.NotFound)) throw error;
  }
}

function runtimeOptions({ name = DEFAULT_RUNTIME, runc, configPath, options }: Runtime): Any | undefined {
  if (options !== undefined) return options;
  if (configPath !== undefined) {
    // Of a message of three texts, `type_url`, `config_path` and `config_body`, the second: most shims take their options so.
    const value = Buffer.from(
      new BinaryWriter()
        .uint32((2 << 3) | 2)
        .string(configPath)
        .finish(),
    );
    return { typeUrl: 'runtimeoptions.v1.Options', value };
  }
  if (runc !== undefined || name === DEFAULT_RUNTIME)
    return anyOf(RUNC_OPTIONS_TYPE, RuncOptions, runc ?? {});
  return undefined;
}
