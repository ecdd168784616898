import { rmSync } from 'node:fs';
import { failedPrecondition, notFound, toRpcError } from '../ttrpc/errors.ts';
import { readPid } from './init.ts';
import { ContainerProcess } from './process.ts';
import type { Exit, Reaper } from './reaper.ts';
import type { Runc } from './runc.ts';
import { created, deleted, demand, started, type State } from './state.ts';
import type { ProcessStdio, StdioRequest } from './stdio.ts';

export interface ExecContext {
  readonly id: string;
  /** For the runtime to write the pid in. */
  readonly pidFile: string;
  /** The `process` object of the OCI runtime specification. */
  readonly spec: object;
  readonly runc: Runc;
  readonly reaper: Reaper;
  readonly openStdio: (request: StdioRequest, signal: AbortSignal) => Promise<ProcessStdio>;
  /** Called once, when the process has ended. */
  readonly onExit: (exit: Exit) => void;
}

/** A further process in the container. */
export class ExecProcess extends ContainerProcess {
  protected current: State = created(undefined);
  readonly #context: ExecContext;
  #hasFailed = false;

  constructor(context: ExecContext, request: StdioRequest) {
    super(context.id, request);
    this.#context = context;
  }

  /**
   * Runs it. When that fails it stays created, without a second chance: as with containerd, it is to be deleted.
   *
   * @param signal gives up the wait for the client to open its FIFOs
   */
  start(signal: AbortSignal): Promise<number> {
    return this.queue.run(async () => {
      const before = demand(this.current, 'start', 'created');
      if (this.#hasFailed) throw failedPrecondition('cannot start a process whose start has failed');
      const pid = await this.#launch(signal).catch((error: unknown) => {
        this.#hasFailed = true;
        this.neverRan(toRpcError(error));
        throw error;
      });
      // It may be over already.
      if (this.current === before) this.current = started(before, pid);
      return pid;
    });
  }

  kill(signal: number): Promise<void> {
    return this.queue.run(async () => this.signal(signal));
  }

  delete(): Promise<void> {
    return this.queue.run(async () => {
      const before = demand(this.current, 'delete', 'created', 'stopped');
      if (before.status === 'created') this.abandonOutput();
      await this.settle();
      this.stdio?.forsake();
      this.current = deleted(before);
      if (before.status === 'created')
        this.neverRan(notFound(`process ${this.id} was deleted before it ran`));
    });
  }

  async #launch(signal: AbortSignal): Promise<number> {
    const { pidFile, spec, runc, reaper, onExit } = this.#context;
    const stdio = await this.#context.openStdio(this.request, signal);
    this.stdio = stdio;
    using expectation = reaper.expect();
    try {
      await runc.exec(spec, {
        pidFile,
        stdio: stdio.handed,
        consoleSocket: stdio.consoleSocket,
        onSpawned: () => stdio.spawned(),
      });
      const pid = readPid(pidFile);
      void expectation.exitOf(pid).then((exit) => {
        if (!this.ended(exit)) return;
        this.tell(exit);
        onExit(exit);
      });
      this.connect(stdio, pid);
      return pid;
    } catch (error) {
      stdio.close();
      throw error;
    } finally {
      rmSync(pidFile, { force: true });
    }
  }
}
