import { randomUUID } from 'node:crypto';
import type { ProcessInfo } from '../proto/gen/containerd/types/task.ts';
import { Status, type Process as ProcessState } from '../proto/gen/containerd/types/task.ts';
import { CheckpointOptions, ProcessDetails } from '../proto/gen/containerd/runtime/runc.ts';
import type { Descriptor } from '../proto/gen/containerd/types/descriptor.ts';
import { internal } from '../ttrpc/errors.ts';
import type { CallOptions, PartialMessage } from '../ttrpc/service.ts';
import { anyOf, typeNameOf } from './any.ts';
import { pack, PROCESS_TYPE, RESOURCES_TYPE } from '../oci/packed.ts';
import { type Metrics, metricsOf } from './metrics.ts';
import type { Process as ProcessSpec, Spec } from '../oci/spec.ts';
import { type Exit, exitOf, Process, type ProcessParts, type Tasks } from './process.ts';
import { Stdio, type StdioOptions } from './stdio.ts';

/** A process to execute in a container. What is left out is as in the container's own process. */
export interface ExecOptions extends CallOptions {
  /** Default: a random one. */
  readonly id?: string;
  readonly args: readonly string[];
  /** Complete: it replaces the container's environment. */
  readonly env?: readonly string[];
  readonly cwd?: string;
  readonly user?: ProcessSpec['user'];
  /** Anything else of the OCI process. */
  readonly process?: Partial<ProcessSpec>;
  /** Default: pipes. */
  readonly stdio?: StdioOptions;
}

/** A process of the container, as the host's process table has it. */
export interface TaskProcess {
  readonly pid: number;
  /** Set for a process that was executed through the API, and not for its children. */
  readonly execId: string | undefined;
}

/** A container that runs, or ran: its init process and what goes on around it. Every container has one at most. */
export class Task extends Process {
  readonly #spec: () => Promise<Spec>;

  /** @param spec the container's, asked for when something is executed in it */
  constructor(tasks: Tasks, parts: Omit<ProcessParts, 'execId'>, spec: () => Promise<Spec>) {
    super(tasks, { ...parts, execId: '' });
    this.#spec = spec;
  }

  /**
   * Prepares another process in the container; `start()` runs it.
   *
   * @throws RpcError AlreadyExists for an id in use, FailedPrecondition in a container that does not run
   */
  async exec(options: ExecOptions): Promise<ExecProcess> {
    const { id = randomUUID(), args, env, cwd, user, process, stdio: streams = {}, ...call } = options;
    const base = (await this.#spec()).process;
    const stdio = Stdio.create(streams);
    const spec: ProcessSpec = {
      ...base,
      cwd: cwd ?? base?.cwd ?? '/',
      user: user ?? base?.user ?? { uid: 0, gid: 0 },
      env: [...(env ?? base?.env ?? [])],
      ...process,
      args: [...args],
      terminal: stdio.paths.terminal,
    };
    try {
      await this.tasks.exec(
        { containerId: this.containerId, execId: id, ...stdio.paths, spec: pack(PROCESS_TYPE, spec) },
        call,
      );
    } catch (error) {
      stdio.remove();
      stdio.detach();
      throw error;
    }
    return new ExecProcess(this.tasks, {
      containerId: this.containerId,
      execId: id,
      pid: 0,
      started: false,
      stdio,
    });
  }

  /** A process that was executed before, by this client or another. @throws RpcError NotFound */
  async process(execId: string, options: CallOptions & { attach?: boolean } = {}): Promise<ExecProcess> {
    const { attach = false, ...call } = options;
    const { process: state } = await this.tasks.get({ containerId: this.containerId, execId }, call);
    if (state === undefined) throw internal(`the daemon sent no state of ${execId}`);
    return new ExecProcess(this.tasks, partsOf(this.containerId, execId, state, attach));
  }

  /** Freezes all of the container's processes. */
  async pause(options?: CallOptions): Promise<void> {
    await this.tasks.pause({ containerId: this.containerId }, options);
  }

  async resume(options?: CallOptions): Promise<void> {
    await this.tasks.resume({ containerId: this.containerId }, options);
  }

  /** All processes of the container, however they came to be. */
  async pids(options?: CallOptions): Promise<TaskProcess[]> {
    const { processes } = await this.tasks.listPids({ containerId: this.containerId }, options);
    return processes.map(taskProcessOf);
  }

  /** One reading of the container's cgroup counters. */
  async metrics(options?: CallOptions): Promise<Metrics> {
    const { metrics } = await this.tasks.metrics({ filters: [`id==${this.containerId}`] }, options);
    const [metric] = metrics;
    if (metric !== undefined) return await metricsOf(metric);
    // None for a task that does not exist; that is the better message.
    await this.state(options);
    throw internal(`no metrics of ${this.containerId}`);
  }

  /** Changes limits of the running container. `resources` is the OCI specification's `linux.resources`. */
  async update(resources: object, options?: CallOptions): Promise<void> {
    await this.tasks.update(
      {
        containerId: this.containerId,
        resources: pack(RESOURCES_TYPE, resources),
      },
      options,
    );
  }

  /** Writes the container's state by means of the runtime (CRIU). @returns what was stored, unless `imagePath` was given */
  async checkpoint(
    checkpoint: PartialMessage<CheckpointOptions> = {},
    options?: CallOptions,
  ): Promise<Descriptor[]> {
    const { descriptors } = await this.tasks.checkpoint(
      {
        containerId: this.containerId,
        options: anyOf('containerd.runc.v1.CheckpointOptions', CheckpointOptions, checkpoint),
      },
      options,
    );
    return descriptors;
  }

  protected override async remove(options: CallOptions): Promise<Exit> {
    const { exitStatus, exitedAt } = await this.tasks.delete({ containerId: this.containerId }, options);
    return exitOf(exitStatus, exitedAt);
  }

  protected override async stop(options: CallOptions): Promise<void> {
    const { status } = await this.state(options);
    // A frozen process does not die of its signal before it is thawed (cgroup v1).
    if (status === Status.PAUSED || status === Status.PAUSING) await this.resume(options);
    await super.stop(options);
  }
}

/** A process that was executed in a running container. */
export class ExecProcess extends Process {
  protected override async remove(options: CallOptions): Promise<Exit> {
    const { exitStatus, exitedAt } = await this.tasks.deleteProcess(
      { containerId: this.containerId, execId: this.execId },
      options,
    );
    return exitOf(exitStatus, exitedAt);
  }
}

/** What the daemon's answer says of a process. `attach` opens its streams. */
export function partsOf(
  containerId: string,
  execId: string,
  state: ProcessState,
  attach: boolean,
): ProcessParts {
  const { stdin, stdout, stderr, terminal } = state;
  const paths = { stdin, stdout, stderr, terminal };
  const stdio = attach ? Stdio.attach(paths) : Stdio.of(paths);
  return { containerId, execId, pid: state.pid, started: state.status !== Status.CREATED, stdio };
}

function taskProcessOf({ pid, info }: ProcessInfo): TaskProcess {
  const details =
    info !== undefined && typeNameOf(info) === 'containerd.runc.v1.ProcessDetails'
      ? ProcessDetails.decode(info.value)
      : undefined;
  return { pid, execId: details?.execId === '' ? undefined : details?.execId };
}
