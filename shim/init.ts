import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { CheckpointOptions } from '../proto/gen/containerd/runtime/runc.ts';
import { internal, messageOf, notFound } from '../ttrpc/errors.ts';
import { releaseExecFifo } from './exec-fifo.ts';
import { ContainerProcess, demandSignal } from './process.ts';
import type { Exit, Reaper } from './reaper.ts';
import type { Launch, Runc } from './runc.ts';
import { created, deleted, demand, paused, resumed, started, type State } from './state.ts';
import type { ProcessStdio, StdioRequest } from './stdio.ts';

/** File of the bundle in which the runtime writes the init's pid. */
export const PID_FILE = 'init.pid';

export interface InitContext {
  readonly id: string;
  readonly bundle: string;
  readonly runc: Runc;
  readonly reaper: Reaper;
  /** Where criu keeps its logs; a folder of the bundle when empty. */
  readonly criuWorkPath: string;
  readonly hasPoststartHooks: boolean;
  /** They run when the container is deleted, which is then not to be done early. */
  readonly hasPoststopHooks: boolean;
  /** The kernel ends all processes of the container with it. */
  readonly ownPidNamespace: boolean;
  /** Called once, when the init has ended. Clients are told by it. */
  readonly onExit: (exit: Exit) => void;
}

/** The container's first process. Its life is the container's life. */
export class InitProcess extends ContainerProcess {
  protected current: State = created(undefined);
  readonly #context: InitContext;
  /** The image that `start` restores the container from, if it is to be restored. */
  readonly #checkpoint: string | undefined;
  /** Whether the runtime has removed the container already. */
  #released: Promise<boolean> | undefined;

  constructor(context: InitContext, request: StdioRequest, checkpoint: string) {
    super(context.id, request);
    this.#context = context;
    this.#checkpoint = checkpoint === '' ? undefined : checkpoint;
  }

  /** Creates the container with the given descriptors, which it takes over. A restored one comes to be by `start` only. */
  create(stdio: ProcessStdio): Promise<void> {
    return this.queue.run(async () => {
      this.stdio = stdio;
      if (this.#checkpoint !== undefined) return;
      const before = this.current;
      const pid = await this.#launch((launch) => this.#context.runc.create(launch));
      // It may have been killed already.
      if (this.current === before) this.current = created(pid);
    });
  }

  start(): Promise<number> {
    return this.queue.run(async () => {
      const before = demand(this.current, 'start', 'created');
      if (this.#checkpoint !== undefined) {
        const image = this.#checkpoint;
        const work = this.#workPath();
        const pid = await this.#launch((launch) => this.#context.runc.restore(image, work, launch));
        if (this.current === before) this.current = started(before, pid);
        return pid;
      }
      if (before.pid === undefined) throw internal('the container has no process');
      await this.#release();
      // It may be over already.
      if (this.current === before) this.current = started(before, before.pid);
      return before.pid;
    });
  }

  pause(): Promise<void> {
    return this.queue.run(async () => {
      demand(this.current, 'pause', 'running');
      await this.#context.runc.pause();
      if (this.current.status === 'running') this.current = paused(this.current);
    });
  }

  resume(): Promise<void> {
    return this.queue.run(async () => {
      demand(this.current, 'resume', 'paused');
      await this.#context.runc.resume();
      if (this.current.status === 'paused') this.current = resumed(this.current);
    });
  }

  /** Signals the init, or with `all` every process of the container. */
  kill(signal: number, all: boolean): Promise<void> {
    return this.queue.run(async () => {
      const { status } = this.current;
      // The runtime thaws a frozen container for SIGKILL, which would not end it otherwise with cgroups of version 1.
      if (!all && status !== 'paused') return this.signal(signal);
      demandSignal(signal);
      if (status === 'stopped' || status === 'deleted') throw notFound('process already finished');
      await this.#context.runc.kill(signal, all).catch((error: unknown) => {
        throw over(error) ? notFound('process already finished', error) : error;
      });
    });
  }

  /** @param resources JSON of `LinuxResources` of the OCI runtime specification */
  update(resources: string): Promise<void> {
    return this.queue.run(async () => {
      demand(this.current, 'update', 'created', 'running', 'paused');
      await this.#context.runc.update(resources);
    });
  }

  checkpoint(path: string, options: CheckpointOptions): Promise<void> {
    return this.queue.run(async () => {
      demand(this.current, 'checkpoint', 'running', 'paused');
      const work = options.workPath || this.#workPath();
      mkdirSync(path, { recursive: true, mode: 0o700 });
      await this.#context.runc.checkpoint(path, work, options);
      if (options.workPath === '') rmSync(work, { recursive: true, force: true });
    });
  }

  /** Removes the container from the runtime. One that was never started is killed before. */
  delete(): Promise<void> {
    return this.queue.run(async () => {
      const before = demand(this.current, 'delete', 'created', 'stopped');
      const isAlive = before.status === 'created' && before.pid !== undefined;
      if (isAlive) this.signal(9);
      if (isAlive) await this.exited;
      else if (before.status === 'created') this.abandonOutput();
      await this.settle();
      await this.#remove(isAlive);
      this.current = deleted(demand(this.current, 'delete', 'created', 'stopped'));
      if (this.exit === undefined) this.neverRan(notFound('the container was deleted before it ran'));
    });
  }

  /**
   * Has the runtime remove what it keeps of the container, which has ended, while clients hear of the end: most delete it next, and
   * need not wait then. A failure is met again by `delete`.
   */
  release(): void {
    if (this.#context.hasPoststopHooks) return;
    this.#released = this.queue.run(async () => {
      if (this.current.status !== 'stopped') return false;
      await this.#deleteEnded();
      return true;
    });
    this.#released.catch(() => {});
  }

  /** Lets the init go on to the container's program. */
  async #release(): Promise<void> {
    const { runc, hasPoststartHooks } = this.#context;
    // Newer runtimes may run the hooks in `start`.
    const fifo = hasPoststartHooks ? undefined : runc.execFifo();
    if (fifo === undefined) await runc.start();
    else await releaseExecFifo(fifo, this.exited);
  }

  async #remove(isAlive: boolean): Promise<void> {
    // One that was killed just now has its release behind this in the queue.
    const isReleased = !isAlive && (await this.#released?.catch(() => false));
    if (isReleased === true) return;
    await (isAlive ? this.#context.runc.delete({ force: true }) : this.#deleteEnded());
  }

  #deleteEnded(): Promise<void> {
    const { runc, hasPoststopHooks, ownPidNamespace } = this.#context;
    return hasPoststopHooks || !ownPidNamespace ? runc.delete() : runc.deleteEnded();
  }

  /** Runs the runtime so that it makes the init, and learns the pid. */
  async #launch(make: (launch: Launch) => Promise<void>): Promise<number> {
    const { bundle, reaper, onExit } = this.#context;
    const { stdio } = this;
    if (stdio === undefined) throw internal('the process has no descriptors');
    using expectation = reaper.expect();
    const pidFile = join(bundle, PID_FILE);
    try {
      await make({
        pidFile,
        stdio: stdio.handed,
        consoleSocket: stdio.consoleSocket,
        onSpawned: () => stdio.spawned(),
      });
      const pid = readPid(pidFile);
      void expectation.exitOf(pid).then((exit) => {
        if (this.ended(exit)) onExit(exit);
      });
      this.connect(stdio, pid);
      return pid;
    } catch (error) {
      stdio.close();
      throw error;
    }
  }

  #workPath(): string {
    const path = this.#context.criuWorkPath || join(this.#context.bundle, 'criu-work');
    mkdirSync(path, { recursive: true, mode: 0o700 });
    return path;
  }
}

/** True for what runtimes say when a process they should signal has ended. */
function over(error: unknown): boolean {
  return /not running|already finished|no such process|does not exist/i.test(messageOf(error));
}

/** @throws RpcError Internal when the runtime has not written a pid */
export function readPid(path: string): number {
  const pid = Number(readFileSync(path, 'latin1'));
  if (!Number.isSafeInteger(pid) || pid <= 0) throw internal(`the OCI runtime has written no pid to ${path}`);
  return pid;
}
