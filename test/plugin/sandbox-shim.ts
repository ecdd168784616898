/**
 * A shim of sandboxes, in a process of its own: `sandbox-shim.ts FOLDER` and the flags of the shim contract. Its sandboxes are processes
 * that sleep, its containers processes of the host that run what their specification says. Each call and each `delete` is a line of the
 * file `calls` in the folder. An annotation `refuse` of a sandbox names a call that fails, `exit` the status it ends with.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TaskExit } from '../../proto/gen/containerd/events/task.ts';
import { type CreateSandboxRequest, SandboxDefinition } from '../../proto/gen/containerd/runtime/sandbox.ts';
import { EventsDefinition } from '../../proto/gen/containerd/services/events_ttrpc.ts';
import { DeleteResponse, type TaskDefinition as TaskV2 } from '../../proto/gen/containerd/task/v2.ts';
import { TaskDefinition } from '../../proto/gen/containerd/task/v3.ts';
import { Status } from '../../proto/gen/containerd/types/task.ts';
import { TtrpcClient } from '../../ttrpc/client.ts';
import { alreadyExists, failedPrecondition, notFound, unimplemented } from '../../ttrpc/errors.ts';
import { TtrpcServer } from '../../ttrpc/server.ts';
import type { ServiceImplementation } from '../../ttrpc/service.ts';

const [, program = '', folder = '', ...args] = process.argv;
const flag = (name: string): string => args[args.indexOf(`-${name}`) + 1] ?? '';
const note = (text: string): void => appendFileSync(join(folder, 'calls'), `${text}\n`);
const now = () => ({ seconds: BigInt(Math.floor(Date.now() / 1000)), nanos: (Date.now() % 1000) * 1e6 });

/** A process, and how it has ended. */
class Run {
  readonly child: ChildProcess;
  readonly exited: Promise<{ status: number; at: ReturnType<typeof now> }>;
  exit: { status: number; at: ReturnType<typeof now> } | undefined;

  constructor(command: readonly string[], stdout: 'ignore' | 'pipe' = 'ignore') {
    this.child = spawn(command[0]!, command.slice(1), { stdio: ['pipe', stdout, 'ignore'] });
    this.exited = once(this.child, 'exit').then(([code, signal]) => {
      this.exit = { status: signal === null ? (code as number) : 137, at: now() };
      return this.exit;
    });
  }
}

let sandbox: CreateSandboxRequest | undefined;
let life: Run | undefined;
const createdAt = now();
const containers = new Map<string, { bundle: string; run: Run; isStarted: boolean }>();

function demand(call: string, { sandboxId }: { sandboxId: string }): CreateSandboxRequest {
  note(`${call} ${sandboxId}`);
  if (sandbox?.sandboxId !== sandboxId) throw notFound(`stand-in: no sandbox ${sandboxId}`);
  if (sandbox.annotations['refuse'] === call) throw failedPrecondition(`stand-in: ${call} is refused`);
  return sandbox;
}

async function endAll(): Promise<void> {
  const runs = Array.from(containers.values(), ({ run }) => run);
  if (life !== undefined) runs.push(life);
  for (const run of runs) run.child.kill('SIGKILL');
  await Promise.all(runs.map((run) => run.exited));
}

const sandboxes: ServiceImplementation<typeof SandboxDefinition> = {
  async createSandbox(request) {
    note(`create ${request.sandboxId} ${request.netnsPath}`);
    if (request.annotations['refuse'] === 'create') throw failedPrecondition('stand-in: create is refused');
    sandbox = request;
    return {};
  },
  async startSandbox(request) {
    const { annotations } = demand('start', request);
    if (life !== undefined) throw failedPrecondition('stand-in: it has been started');
    const script = `trap 'exit ${annotations['exit'] ?? 0}' TERM; echo; while :; do sleep 0.05; done`;
    life = new Run(['/bin/sh', '-c', script], 'pipe');
    // Before its trap is there, a signal would kill it.
    await once(life.child.stdout!, 'data');
    return { pid: life.child.pid, createdAt };
  },
  async platform(request) {
    demand('platform', request);
    return { platform: { os: 'linux', architecture: 'riscv64', variant: 'v1' } };
  },
  async stopSandbox(request) {
    demand(`stop`, request);
    note(`timeout ${request.timeoutSecs}`);
    life?.child.kill('SIGTERM');
    await life?.exited;
    return {};
  },
  async waitSandbox(request) {
    demand('wait', request);
    const end = await life?.exited;
    return { exitStatus: end?.status, exitedAt: end?.at };
  },
  async sandboxStatus(request) {
    demand('status', request);
    const state = life !== undefined && life.exit === undefined ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY';
    const info: Record<string, string> = request.verbose ? { make: 'stand-in' } : {};
    return {
      sandboxId: request.sandboxId,
      pid: life?.child.pid,
      state,
      createdAt,
      exitedAt: life?.exit?.at,
      info,
    };
  },
  async pingSandbox(request) {
    demand('ping', request);
    return {};
  },
  async shutdownSandbox(request) {
    demand('shutdown', request);
    await endAll();
    setTimeout(() => process.exit(0), 20);
    return {};
  },
  async sandboxMetrics(request) {
    demand('metrics', request);
    return {
      metrics: {
        id: request.sandboxId,
        timestamp: now(),
        data: { typeUrl: 'stand-in', value: Buffer.from('1') },
      },
    };
  },
};

function containerOf({ id }: { id: string }) {
  const container = containers.get(id);
  if (container === undefined) throw notFound(`stand-in: no container ${id}`);
  return container;
}

const refuse = async (): Promise<never> => {
  throw unimplemented('stand-in');
};

const tasks: ServiceImplementation<typeof TaskDefinition> & ServiceImplementation<typeof TaskV2> = {
  async create({ id, bundle }) {
    note(`task-create ${id}`);
    if (containers.has(id)) throw alreadyExists(`stand-in: ${id}`);
    const { process } = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as {
      process: { args: string[] };
    };
    // It waits for a line.
    const run = new Run(['/bin/sh', '-c', 'read line; exec "$@"', 'sh', ...process.args]);
    const pid = run.child.pid ?? 0;
    containers.set(id, { bundle, run, isStarted: false });
    void run.exited.then(({ status, at }) => tell(id, pid, status, at));
    return { pid };
  },
  async start({ id }) {
    note(`task-start ${id}`);
    const container = containerOf({ id });
    container.isStarted = true;
    container.run.child.stdin?.end('\n');
    return { pid: container.run.child.pid };
  },
  async delete({ id }) {
    note(`task-delete ${id}`);
    const { run } = containerOf({ id });
    if (run.exit === undefined) throw failedPrecondition(`stand-in: ${id} runs`);
    containers.delete(id);
    return { pid: run.child.pid, exitStatus: run.exit?.status, exitedAt: run.exit?.at };
  },
  async state({ id }) {
    const { bundle, run, isStarted } = containerOf({ id });
    const alive = isStarted ? Status.RUNNING : Status.CREATED;
    const status = run.exit === undefined ? alive : Status.STOPPED;
    return {
      id,
      bundle,
      pid: run?.child.pid,
      status,
      exitStatus: run?.exit?.status,
      exitedAt: run?.exit?.at,
    };
  },
  async wait({ id }) {
    const end = await containerOf({ id }).run.exited;
    return { exitStatus: end?.status, exitedAt: end?.at };
  },
  async kill({ id }) {
    containerOf({ id }).run.child.kill('SIGKILL');
    return {};
  },
  connect: async ({ id }) => ({ shimPid: process.pid, taskPid: containers.get(id)?.run.child.pid }),
  async shutdown({ id }) {
    note(`task-shutdown ${id}`);
    return {};
  },
  pids: refuse,
  pause: refuse,
  resume: refuse,
  checkpoint: refuse,
  exec: refuse,
  resizePty: refuse,
  closeIO: refuse,
  update: refuse,
  stats: refuse,
  // eslint-disable-next-line require-yield
  async *events() {
    await refuse();
  },
};

/** A daemon that is away hears nothing: it asks when it is back. */
async function tell(
  id: string,
  pid: number,
  exitStatus: number,
  exitedAt: ReturnType<typeof now>,
): Promise<void> {
  const event = TaskExit.fromPartial({ containerId: id, id, pid, exitStatus, exitedAt });
  const value = Buffer.from(TaskExit.encode(event).finish());
  try {
    using client = await TtrpcClient.connect(process.env['TTRPC_ADDRESS'] ?? '');
    await client.service(EventsDefinition).forward({
      envelope: {
        timestamp: exitedAt,
        namespace: flag('namespace'),
        topic: '/tasks/exit',
        event: { typeUrl: 'containerd.events.TaskExit', value },
      },
    });
  } catch {
    note(`untold ${id}`);
  }
}

const socket = join(folder, `${flag('namespace')}-${flag('id')}.sock`);
/** There once it listens. */
const ready = `${socket}.ready`;
switch (args.at(-1)) {
  case 'start': {
    rmSync(ready, { force: true });
    const child = spawn(
      process.execPath,
      [...process.execArgv, program, folder, ...args.slice(0, -1), 'serve'],
      {
        detached: true,
        stdio: 'ignore',
      },
    );
    child.unref();
    while (!existsSync(ready) && child.exitCode === null) await sleep(20);
    process.stdout.write(JSON.stringify({ version: 3, address: `unix://${socket}`, protocol: 'ttrpc' }));
    break;
  }
  case 'serve': {
    const server = new TtrpcServer();
    server.add(SandboxDefinition, sandboxes).add(TaskDefinition, tasks);
    await server.listen(socket);
    writeFileSync(ready, '');
    break;
  }
  case 'delete':
    note(`delete ${flag('id')}`);
    for (const file of [socket, ready]) rmSync(file, { force: true });
    process.stdout.write(
      DeleteResponse.encode(DeleteResponse.fromPartial({ exitStatus: 137, exitedAt: now() })).finish(),
    );
    break;
  case undefined:
  default:
    throw new Error(`unknown action ${args.at(-1)}`);
}
