import { getPid } from '../native/native.ts';
import { CheckpointOptions, ProcessDetails } from '../proto/gen/containerd/runtime/runc.ts';
import { CheckpointOptions as LegacyCheckpointOptions } from '../proto/gen/containerd/runtime/runc_v1.ts';
import type { TaskDefinition as TaskV2 } from '../proto/gen/containerd/task/v2.ts';
import type { TaskDefinition as TaskV3 } from '../proto/gen/containerd/task/v3.ts';
import { Status } from '../proto/gen/containerd/types/task.ts';
import type { Any } from '../proto/gen/google/protobuf/any.ts';
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from '../ttrpc/errors.ts';
import type { CallContext, ServiceImplementation } from '../ttrpc/service.ts';
import { nameOf, pack } from './any.ts';
import type { Berth } from './berth.ts';
import { Container, type Surroundings } from './container.ts';
import { event } from './events.ts';
import type { ContainerProcess } from './process.ts';
import type { Envelope, Publisher } from './publisher.ts';
import { Queue } from './queue.ts';
import type { State } from './state.ts';

/** What the task service needs from the shim around it. */
export interface ServiceSurroundings extends Surroundings {
  readonly berth: Berth;
  /** Ends the shim, once the answer that is being given is written and, or soon after, all output has been delivered. */
  readonly shutdown: (delivered: Promise<unknown>) => void;
}

const STATUS: Record<State['status'], Status> = {
  created: Status.CREATED,
  running: Status.RUNNING,
  paused: Status.PAUSED,
  stopped: Status.STOPPED,
  deleted: Status.STOPPED,
};

/** The task service: decodes calls, lets the container do the work, encodes answers. Version 3 is version 2 and the events. */
export function taskService(
  surroundings: ServiceSurroundings,
): ServiceImplementation<typeof TaskV2> & ServiceImplementation<typeof TaskV3> {
  const { publisher, shutdown, berth } = surroundings;
  const creations = new Queue();
  /** Output of deleted processes that their clients have not taken yet. */
  const undelivered = new Set<Promise<void>>();

  const remember = ({ delivered }: ContainerProcess): void => {
    undelivered.add(delivered);
    void delivered.then(() => undelivered.delete(delivered));
  };

  const containerOf = ({ id }: { id: string }): Container => berth.demand(id);

  const service: ServiceImplementation<typeof TaskV3> = {
    create: (request, { signal }) =>
      creations.run(async () => {
        const taken = berth.occupant(request.id)?.id;
        if (taken !== undefined) throw alreadyExists(`this shim has the container ${taken} already`);
        if (berth.sandbox?.state.kind === 'stopped')
          throw failedPrecondition(`sandbox ${berth.sandbox.id} has been stopped`);
        const container = await Container.create(request, surroundings, signal);
        berth.add(container);
        return { pid: container.init.pid };
      }),

    start: async (request, context) => {
      const container = containerOf(request);
      const { execId } = request;
      if (execId === '') return answered(container.init, () => container.start());
      const exec = container.exec(execId);
      return answered(exec, () => container.startExec(exec, context.signal));
    },

    delete: async (request) => {
      const container = containerOf(request);
      if (request.execId === '') {
        await container.delete();
        berth.remove(container);
        remember(container.init);
        return ending(container.init);
      }
      const exec = container.exec(request.execId);
      await container.deleteExec(exec);
      remember(exec);
      return ending(exec);
    },

    exec: async (request) => {
      containerOf(request).addExec(request);
      return {};
    },

    kill: async (request) => {
      const container = containerOf(request);
      if (request.execId === '') await container.init.kill(request.signal, request.all);
      else await container.exec(request.execId).kill(request.signal);
      return {};
    },

    wait: async (request, { signal }) => {
      const { status, at } = await before(signal, containerOf(request).process(request.execId).exited);
      return { exitStatus: status, exitedAt: at };
    },

    state: async (request) => {
      // A new daemon asks this while the creation that its predecessor wanted may still be under way.
      await creations.idle();
      const container = containerOf(request);
      const process = container.process(request.execId);
      const { stdin, stdout, stderr, terminal } = process.request;
      return {
        id: process.id,
        bundle: container.bundle,
        pid: process.pid,
        status: statusOf(process, container),
        stdin,
        stdout,
        stderr,
        terminal,
        exitStatus: process.exit?.status,
        exitedAt: process.exit?.at,
        execId: request.execId,
      };
    },

    pids: async (request) => {
      const container = containerOf(request);
      const infos = new Map([...container.execs].map((exec) => [exec.pid, details(exec.id)]));
      const pids = await container.pids();
      return { processes: pids.map((pid) => ({ pid, info: infos.get(pid) })) };
    },

    pause: async (request) => {
      await containerOf(request).pause();
      return {};
    },

    resume: async (request) => {
      await containerOf(request).resume();
      return {};
    },

    resizePty: async (request) => {
      const process = containerOf(request).process(request.execId);
      process.resize({ rows: request.height, columns: request.width });
      return {};
    },

    closeIO: async (request) => {
      if (request.stdin) containerOf(request).process(request.execId).closeStdin();
      return {};
    },

    checkpoint: async (request) => {
      const container = containerOf(request);
      await container.init.checkpoint(request.path, checkpointOptions(request.options));
      void publisher.publish(event.checkpointed(container.id, request.path));
      return {};
    },

    update: async (request) => {
      await containerOf(request).init.update(request.resources?.value.toString() ?? '{}');
      return {};
    },

    stats: async (request) => {
      const stats = containerOf(request).cgroup?.metrics();
      if (stats === undefined) throw notFound('cgroup does not exist');
      return { stats };
    },

    connect: async ({ id }) => {
      const { containers } = berth;
      const container = containers.find((each) => each.id === id) ?? containers[0];
      return { shimPid: getPid(), taskPid: container?.init.pid };
    },

    shutdown: async (request) => {
      await creations.idle();
      // A sandbox outlives what runs in it, and has a call of its own to be ended by.
      const isEmpty = berth.containers.length === 0 && berth.sandbox === undefined;
      if (isEmpty || request.now) shutdown(Promise.all(undelivered));
      return {};
    },

    events: (_request, { signal }) => subscribe(publisher, signal),
  };
  return poking(service, publisher);
}

/** Every call is a sign of life from the daemon, which may have been away. */
function poking<T extends object>(service: T, publisher: Publisher): T {
  const wrapped: Record<string, unknown> = {};
  for (const [name, method] of Object.entries(service)) {
    wrapped[name] = (request: unknown, context: CallContext) => {
      publisher.poke();
      return (method as (request: unknown, context: CallContext) => unknown)(request, context);
    };
  }
  return wrapped as T;
}

/** Holds back the news of an exit until the start has been answered, which is when the promise's listeners have run. */
async function answered(process: ContainerProcess, start: () => Promise<number>): Promise<{ pid: number }> {
  const release = process.holdExit();
  try {
    return { pid: await start() };
  } finally {
    setImmediate(release);
  }
}

function ending({ pid, exit }: ContainerProcess) {
  return { pid, exitStatus: exit?.status, exitedAt: exit?.at };
}

/** An exec is frozen with its container. */
function statusOf(process: ContainerProcess, { init }: Container): Status {
  const { status } = process.state;
  return STATUS[status === 'running' ? init.state.status : status];
}

function details(execId: string): Any {
  return pack('containerd.runc.v1.ProcessDetails', ProcessDetails.encode({ execId }).finish());
}

function checkpointOptions(any: Any | undefined): CheckpointOptions {
  if (any === undefined || any.typeUrl === '') return CheckpointOptions.fromPartial({});
  switch (nameOf(any)) {
    case 'containerd.runc.v1.CheckpointOptions':
      return CheckpointOptions.decode(any.value);
    case 'containerd.linux.runc.CheckpointOptions':
      return CheckpointOptions.fromPartial(LegacyCheckpointOptions.decode(any.value));
    default:
      throw invalidArgument(`checkpoint options of the unknown type ${any.typeUrl}`);
  }
}

/** The promise's value, unless the call is given up before. */
export async function before<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason as Error);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** The events from now on, until the caller leaves. */
async function* subscribe(publisher: Publisher, signal: AbortSignal): AsyncGenerator<Envelope> {
  const waiting: Envelope[] = [];
  let wake = () => {};
  const unsubscribe = publisher.subscribe((envelope) => {
    waiting.push(envelope);
    wake();
  });
  const abort = () => wake();
  signal.addEventListener('abort', abort);
  try {
    while (!signal.aborted) {
      const envelope = waiting.shift();
      if (envelope !== undefined) yield envelope;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    unsubscribe();
    signal.removeEventListener('abort', abort);
  }
}
