import {
  type Container as ContainerInfo,
  ContainersDefinition,
} from '../proto/gen/containerd/services/containers.ts';
import { Options as RuncOptions } from '../proto/gen/containerd/runtime/runc.ts';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { Code, failedPrecondition, internal, isCode } from '../ttrpc/errors.ts';
import type { CallOptions, PartialMessage, ServiceClient } from '../ttrpc/service.ts';
import { type Any, anyOf, pack, SPEC_TYPE, typeNameOf } from './any.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import type { Labels } from './namespace.ts';
import type { Spec } from './oci.ts';
import type { ExecProcess } from './task.ts';
import { partsOf, Task } from './task.ts';
import type { Tasks } from './process.ts';
import { Stdio, type StdioOptions } from './stdio.ts';

export type { ContainerInfo, ExecProcess, Mount };

/** The runtime that every daemon has: its own shim with runc. */
export const DEFAULT_RUNTIME = 'io.containerd.runc.v2';

const RUNC_OPTIONS_TYPE = 'containerd.runc.v1.Options';

/** A shim and what it is told. */
export interface Runtime {
  /** Default: DEFAULT_RUNTIME. */
  readonly name?: string;
  /** Options of a runc shim. */
  readonly runc?: PartialMessage<RuncOptions>;
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
}

export interface TaskOptions extends CallOptions {
  /** Default: pipes. `terminal` must agree with the container's spec. */
  readonly stdio?: StdioOptions;
  /** Mounted on the container's rootfs directory. None for a spec whose root is an absolute path. */
  readonly rootfs?: readonly PartialMessage<Mount>[];
  /** Changes to the container's runtime options, for this task. */
  readonly runc?: PartialMessage<RuncOptions>;
}

/** The functions that containers are made of, all in one namespace. */
interface Services {
  readonly containers: ServiceClient<typeof ContainersDefinition>;
  readonly tasks: Tasks;
}

/** The containers of a namespace. */
export class Containers {
  readonly #services: Services;

  constructor(connection: Connection, headers: Headers) {
    this.#services = {
      containers: connection.service(ContainersDefinition, headers),
      tasks: connection.service(TasksDefinition, headers),
    };
  }

  /** Stores a container. Nothing runs yet. @throws RpcError AlreadyExists, InvalidArgument for a malformed id or label */
  async create(id: string, options: ContainerOptions): Promise<Container> {
    const { spec, labels = {}, runtime = {}, image, snapshotter, snapshotKey, extensions, ...call } = options;
    const { container } = await this.#services.containers.create(
      {
        container: {
          id,
          labels,
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

  /**
   * Has the runtime prepare the container; `start()` of the task runs it.
   *
   * @throws RpcError AlreadyExists when it has a task, and what the runtime says when it cannot
   */
  async createTask(options: TaskOptions = {}): Promise<Task> {
    const { stdio: streams = {}, rootfs = [], runc, ...call } = options;
    const stdio = Stdio.create(streams);
    try {
      const { pid } = await this.#services.tasks.create(
        {
          containerId: this.id,
          ...stdio.paths,
          rootfs: [...rootfs],
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

  /** @throws RpcError FailedPrecondition when it has a task, NotFound */
  async delete(options?: CallOptions): Promise<void> {
    await this.#services.containers.delete({ id: this.id }, options);
  }

  /** Kills and deletes its task, then itself. What is gone already is no error. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      const task = await this.task();
      await task[Symbol.asyncDispose]();
    } catch (error) {
      if (!isCode(error, Code.NotFound)) throw error;
    }
    try {
      await this.delete();
    } catch (error) {
      if (!isCode(error, Code.NotFound)) throw error;
    }
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

function runtimeOptions({ name = DEFAULT_RUNTIME, runc, options }: Runtime): Any | undefined {
  if (options !== undefined) return options;
  if (runc !== undefined || name === DEFAULT_RUNTIME)
    return anyOf(RUNC_OPTIONS_TYPE, RuncOptions, runc ?? {});
  return undefined;
}
