import {
  ControllerDefinition,
  type ControllerStatusResponse,
  StoreDefinition,
} from '../proto/gen/containerd/services/sandbox.ts';
import type { Any } from '../proto/gen/google/protobuf/any.ts';
import type { Sandbox as SandboxRecord } from '../proto/gen/containerd/types/sandbox.ts';
import type { Headers } from '../grpc/channel.ts';
import { Code, internal, isCode } from '../ttrpc/errors.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import type { Connection } from './connection.ts';
import { DEFAULT_RUNTIME } from './container.ts';
import type { Labels } from './namespace.ts';
import { dateOf } from './timestamp.ts';

export type { ControllerStatusResponse as SandboxStatus, SandboxRecord };

/** The controller whose sandboxes have a shim. */
const SHIM = 'shim';

export interface SandboxOptions extends CallOptions {
  /** Name of the runtime whose shim it has. Default: io.containerd.runc.v2. */
  readonly runtime?: string;
  readonly runtimeOptions?: Any;
  readonly labels?: Labels;
  /** Who runs it. Default: `shim`. */
  readonly sandboxer?: string;
  /** For its shim to read. */
  readonly annotations?: Labels;
  /** Path of a network namespace that it is to use. */
  readonly netns?: string;
}

/** How a sandbox has ended. */
export interface SandboxEnd {
  readonly code: number;
  readonly exitedAt: Date | undefined;
}

/** Sandboxes: groups of containers, which belong to one by `sandbox` of their record. */
export class Sandboxes {
  readonly #store: ServiceClient<typeof StoreDefinition>;
  readonly #controller: ServiceClient<typeof ControllerDefinition>;

  constructor(connection: Connection, headers: Headers) {
    this.#store = connection.service(StoreDefinition, headers);
    this.#controller = connection.service(ControllerDefinition, headers);
  }

  /** Stores a sandbox and has it made; it is started by `start`. Nothing is stored of one that cannot be made. @throws RpcError AlreadyExists */
  async create(sandboxId: string, options: SandboxOptions = {}): Promise<Sandbox> {
    const { runtime = DEFAULT_RUNTIME, runtimeOptions, labels = {}, sandboxer = SHIM, ...rest } = options;
    const { annotations = {}, netns: netnsPath = '', ...call } = rest;
    const asked = { sandboxId, runtime: { name: runtime, options: runtimeOptions }, labels, sandboxer };
    const { sandbox } = await this.#store.create({ sandbox: asked }, call);
    if (sandbox === undefined) throw internal(`the daemon sent nothing of sandbox ${sandboxId}`);
    try {
      await this.#controller.create({ sandboxId, sandboxer, sandbox, annotations, netnsPath }, call);
    } catch (error) {
      await this.#store.delete({ sandboxId }).catch(() => undefined);
      throw error;
    }
    return this.#of(sandbox);
  }

  /** @throws RpcError NotFound */
  async get(sandboxId: string, options?: CallOptions): Promise<Sandbox> {
    const { sandbox } = await this.#store.get({ sandboxId }, options);
    if (sandbox === undefined) throw internal(`the daemon sent nothing of sandbox ${sandboxId}`);
    return this.#of(sandbox);
  }

  /** @param filters alternatives; within one, commas mean and */
  async list(filters: readonly string[] = [], options?: CallOptions): Promise<Sandbox[]> {
    const { list } = await this.#store.list({ filters: [...filters] }, options);
    return list.map((record) => this.#of(record));
  }

  #of(record: SandboxRecord): Sandbox {
    return new Sandbox(this.#store, this.#controller, record);
  }
}

/** One sandbox, as it was stored when it was asked for. */
export class Sandbox {
  readonly id: string;
  readonly record: SandboxRecord;
  readonly #store: ServiceClient<typeof StoreDefinition>;
  readonly #controller: ServiceClient<typeof ControllerDefinition>;

  constructor(
    store: ServiceClient<typeof StoreDefinition>,
    controller: ServiceClient<typeof ControllerDefinition>,
    record: SandboxRecord,
  ) {
    this.#store = store;
    this.#controller = controller;
    this.id = record.sandboxId;
    this.record = record;
  }

  /** @returns the process that it lives by @throws RpcError FailedPrecondition for one that has been started or has ended */
  async start(options?: CallOptions): Promise<number> {
    return (await this.#controller.start(this.#key, options)).pid;
  }

  async status(options?: CallOptions): Promise<ControllerStatusResponse> {
    return await this.#controller.status({ ...this.#key, verbose: true }, options);
  }

  /** @param options `grace`: seconds that it has to end by itself */
  async stop(options: CallOptions & { grace?: number } = {}): Promise<void> {
    const { grace: timeoutSecs = 0, ...call } = options;
    await this.#controller.stop({ ...this.#key, timeoutSecs }, call);
  }

  /** Resolves when it has ended. */
  async wait(options?: CallOptions): Promise<SandboxEnd> {
    const { exitStatus: code, exitedAt } = await this.#controller.wait(this.#key, options);
    return { code, exitedAt: dateOf(exitedAt) };
  }

  /** Ends it, and removes all there is of it. One that has no shim any more is removed as well. */
  async remove(options?: CallOptions): Promise<void> {
    await this.#controller.stop(this.#key, options);
    await this.#controller.shutdown(this.#key, options).catch((error: unknown) => {
      if (!isCode(error, Code.NotFound)) throw error;
    });
    await this.#store.delete({ sandboxId: this.id }, options);
  }

  get #key(): { sandboxId: string; sandboxer: string } {
    return { sandboxId: this.id, sandboxer: this.record.sandboxer || SHIM };
  }
}
