/** `containerd.services.tasks.v1.Tasks`: translates between the wire and the task manager. */
import type { Container } from '../../proto/gen/containerd/services/containers.ts';
import type { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import { type Process, Status } from '../../proto/gen/containerd/types/task.ts';
import type { Metric } from '../../proto/gen/containerd/types/metrics.ts';
import { Code, invalidArgument, isCode } from '../../ttrpc/errors.ts';
import type { CallContext, PartialMessage, ServiceImplementation } from '../../ttrpc/service.ts';
import type { CheckpointImages } from '../checkpoint/images.ts';
import { type Fields, parseFilters, present } from '../filters/filter.ts';
import { leaseOf, namespaceOf } from '../grpc/context.ts';
import { type ContainerId, type Namespace, parseExecId, parseId } from '../identifiers.ts';
import type { TaskManager } from '../runtime/manager.ts';
import { checkpointPath } from '../runtime/options.ts';
import type { SandboxShim } from '../runtime/sandboxed-shim.ts';
import type { ProcessId, Task } from '../runtime/task.ts';
import type { SandboxKey } from '../sandbox/controller.ts';
import { timestampNow } from '../timestamp.ts';

/** What the service needs of the metadata. */
export interface Containers {
  /** @throws RpcError NotFound */
  get(namespace: Namespace, id: ContainerId): Container | Promise<Container>;
}

/** The shim of a sandbox in which its tasks are to be made; undefined where each has its own. @throws RpcError NotFound, FailedPrecondition */
export type ShimOfSandbox = (key: SandboxKey) => SandboxShim | undefined;

/** Milliseconds after which a task whose shim does not answer is shown with the status UNKNOWN, as containerd does. */
const STATE_TIMEOUT_MS = 2000;

export function tasksService(
  tasks: TaskManager,
  containers: Containers,
  checkpoints: Pick<CheckpointImages, 'store' | 'unpack'>,
  shimOfSandbox: ShimOfSandbox,
): ServiceImplementation<typeof TasksDefinition> {
  const taskOf = (containerId: string, context: CallContext): Task =>
    tasks.get(namespaceOf(context), parseId(containerId));

  return {
    async create(request, context) {
      const namespace = namespaceOf(context);
      const id = parseId(request.containerId);
      const container = await containers.get(namespace, id);
      const { sandbox } = container;
      const { rootfs, stdin, stdout, stderr, terminal, options, checkpoint } = request;
      const purpose = { namespace, lease: leaseOf(context), signal: context.signal };
      const task = await tasks.create(
        namespace,
        id,
        {
          spec: container.spec,
          runtime: request.runtimePath || (container.runtime?.name ?? ''),
          options,
          containerOptions: container.runtime?.options,
          sandbox: sandbox === '' ? undefined : shimOfSandbox({ namespace, id: sandbox }),
          rootfs,
          stdin,
          stdout,
          stderr,
          terminal,
          checkpoint: '',
          restore: checkpoint && ((directory: string) => checkpoints.unpack(checkpoint, directory, purpose)),
        },
        context.signal,
      );
      return { containerId: id, pid: task.pid };
    },

    async start(request, context) {
      const task = taskOf(request.containerId, context);
      return { pid: await task.start(processOf(request.execId), context.signal) };
    },

    async delete(request, context) {
      const exit = await taskOf(request.containerId, context).delete(context.signal);
      return { pid: exit.pid, exitStatus: exit.status, exitedAt: exit.exitedAt };
    },

    async deleteProcess(request, context) {
      const id = parseExecId(request.execId);
      const exit = await taskOf(request.containerId, context).deleteExec(id, context.signal);
      return { id, pid: exit.pid, exitStatus: exit.status, exitedAt: exit.exitedAt };
    },

    async get(request, context) {
      const task = taskOf(request.containerId, context);
      return { process: await describe(task, processOf(request.execId), context.signal) };
    },

    async list(request, context) {
      const filter = parseFilters(request.filter === '' ? [] : [request.filter]);
      const listed = tasks.list(namespaceOf(context));
      const processes = await Promise.all(listed.map((task) => describeListed(task, context.signal)));
      const shown = processes.filter((process) => process !== undefined);
      return { tasks: shown.filter((process) => filter(processFields(process))) };
    },

    async kill(request, context) {
      const { signal, all } = request;
      const execId = processOf(request.execId);
      await taskOf(request.containerId, context).kill({ execId, signal, all }, context.signal);
      return {};
    },

    async exec(request, context) {
      const execId = parseExecId(request.execId);
      const { stdin, stdout, stderr, terminal, spec } = request;
      if (spec === undefined) throw invalidArgument(`exec ${execId}: the process spec is missing`);
      const task = taskOf(request.containerId, context);
      await task.exec({ execId, stdin, stdout, stderr, terminal, spec }, context.signal);
      return {};
    },

    async resizePty(request, context) {
      const { width, height } = request;
      const task = taskOf(request.containerId, context);
      await task.resizePty(processOf(request.execId), { width, height }, context.signal);
      return {};
    },

    async closeIO(request, context) {
      const task = taskOf(request.containerId, context);
      if (request.stdin) await task.closeStdin(processOf(request.execId), context.signal);
      return {};
    },

    async pause(request, context) {
      await taskOf(request.containerId, context).pause(context.signal);
      return {};
    },

    async resume(request, context) {
      await taskOf(request.containerId, context).resume(context.signal);
      return {};
    },

    async listPids(request, context) {
      return { processes: await taskOf(request.containerId, context).pids(context.signal) };
    },

    async checkpoint(request, context) {
      const { options } = request;
      const task = taskOf(request.containerId, context);
      const given = checkpointPath(options);
      const write = (path: string) => task.checkpoint({ path, options }, context.signal);
      if (given !== '') {
        await write(given);
        return { descriptors: [] };
      }
      const { namespace } = task;
      const { spec } = await containers.get(namespace, task.id);
      const purpose = { namespace, lease: leaseOf(context), signal: context.signal };
      return { descriptors: await checkpoints.store(spec, write, purpose) };
    },

    async update(request, context) {
      const { resources, annotations } = request;
      await taskOf(request.containerId, context).update({ resources, annotations }, context.signal);
      return {};
    },

    async metrics(request, context) {
      const filter = parseFilters(request.filters);
      const chosen = tasks.list(namespaceOf(context)).filter((task) => filter(taskFields(task)));
      const metrics = await Promise.all(chosen.map((task) => measure(task, context.signal)));
      return { metrics: metrics.filter((metric) => metric !== undefined) };
    },

    async wait(request, context) {
      const task = taskOf(request.containerId, context);
      const exit = await task.wait(processOf(request.execId), context.signal);
      return { exitStatus: exit.status, exitedAt: exit.exitedAt };
    },
  };
}

/** Empty means the container's first process. */
function processOf(execId: string): ProcessId {
  return execId === '' ? '' : parseExecId(execId);
}

/**
 * One process as clients see it. A shim that does not answer in time does not make it vanish: what is known is shown, with the
 * status UNKNOWN.
 * @throws RpcError NotFound
 */
async function describe(
  task: Task,
  execId: ProcessId,
  signal: AbortSignal,
): Promise<PartialMessage<Process>> {
  const identity = { containerId: task.id, id: execId || task.id };
  try {
    const state = await task.state(execId, forAWhile(signal));
    const { pid, status, stdin, stdout, stderr, terminal, exitStatus, exitedAt } = state;
    return { ...identity, pid, status, stdin, stdout, stderr, terminal, exitStatus, exitedAt };
  } catch (error) {
    if (signal.aborted || isCode(error, Code.NotFound)) throw error;
    task.log.warn({ err: error }, 'the shim does not say how its container is');
    return { ...identity, pid: execId === '' ? task.pid : 0, status: Status.UNKNOWN };
  }
}

/** The caller's patience with one shim, stuck or just being cleaned up after. */
function forAWhile(signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(STATE_TIMEOUT_MS)]);
}

/** Undefined when the task went while it was asked. */
async function describeListed(task: Task, signal: AbortSignal): Promise<PartialMessage<Process> | undefined> {
  try {
    return await describe(task, '', signal);
  } catch (error) {
    if (isCode(error, Code.NotFound)) return undefined;
    throw error;
  }
}

/** Undefined when there is nothing to measure, as before the start and after the end. */
async function measure(task: Task, signal: AbortSignal): Promise<PartialMessage<Metric> | undefined> {
  const timestamp = timestampNow();
  try {
    const data = await task.stats(forAWhile(signal));
    return data && { timestamp, id: task.id, data };
  } catch (error) {
    if (signal.aborted) throw error;
    if (!isCode(error, Code.NotFound)) task.log.warn({ err: error }, 'cannot measure the container');
    return undefined;
  }
}

function taskFields(task: Task): Fields {
  return ([first]) => {
    if (first === 'id') return present(task.id);
    return first === 'namespace' ? present(task.namespace) : undefined;
  };
}

const statusNames = new Map<number, string>(Object.entries(Status).map(([name, value]) => [value, name]));

function processFields(process: PartialMessage<Process>): Fields {
  return ([first]) => {
    if (first === 'id') return present(process.id ?? '');
    if (first === 'pid') return String(process.pid ?? 0);
    return first === 'status' ? statusNames.get(process.status ?? Status.UNKNOWN) : undefined;
  };
}
