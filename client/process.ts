import type { Writable, Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Process as ProcessState, Status } from '../proto/gen/containerd/types/task.ts';
import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';
import type { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { Code, internal, isCode } from '../ttrpc/errors.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import { type Signal, signalNumber } from '../oci/signal.ts';
import type { Stdio } from './stdio.ts';
import { dateOf } from './timestamp.ts';

export type Tasks = ServiceClient<typeof TasksDefinition>;

/** How a process ended. */
export interface Exit {
  /** Its exit status, 128+n when signal n ended it. */
  readonly code: number;
  readonly exitedAt: Date | undefined;
}

/** A process's state, in the words of the API: CREATED, RUNNING, STOPPED, PAUSED, PAUSING or UNKNOWN. */
export type ProcessStatus = keyof typeof Status;

/** A terminal's size in characters. */
export interface WindowSize {
  readonly columns: number;
  readonly rows: number;
}

export interface PatientOptions extends CallOptions {
  /**
   * Milliseconds to bear with a daemon that is gone: the container runs on without it, so the call is repeated until the
   * daemon is back. 0 (the default) fails with Unavailable at once.
   */
  readonly patience?: number;
}

export interface DeleteOptions extends CallOptions {
  /** Kill it first when it runs. */
  readonly force?: boolean;
}

/** What is known of a process when it is made or found. */
export interface ProcessParts {
  readonly containerId: string;
  readonly execId: string;
  readonly pid: number;
  readonly started: boolean;
  readonly stdio: Stdio;
}

const RETRY_MS = 100;

/** One process of a container: its init, which is the task, or one that was executed in it. */
export abstract class Process implements AsyncDisposable {
  readonly containerId: string;
  /** Empty for the init. */
  readonly execId: string;
  protected readonly tasks: Tasks;
  protected readonly stdio: Stdio;
  #pid: number;
  #started: boolean;

  constructor(tasks: Tasks, parts: ProcessParts) {
    const { containerId, execId, pid, started, stdio } = parts;
    this.tasks = tasks;
    this.containerId = containerId;
    this.execId = execId;
    this.#pid = pid;
    this.#started = started;
    this.stdio = stdio;
    stdio.stdin?.once('finish', () => this.#onStdinEnd());
  }

  /** As the host sees it; 0 for an executed process before its start. */
  get pid(): number {
    return this.#pid;
  }

  /**
   * The process's input, when it was asked for. `end()` closes the process's stdin; `destroy()` only leaves it. Closes
   * without an error when the process reads no more.
   */
  get stdin(): Writable | undefined {
    return this.stdio.stdin;
  }

  /** The process's output, when it was asked for; with a terminal, all of it. */
  get stdout(): Readable | undefined {
    return this.stdio.stdout;
  }

  get stderr(): Readable | undefined {
    return this.stdio.stderr;
  }

  /**
   * Runs the process. A daemon that goes away meanwhile may have started it or not: with `patience` that is found out.
   *
   * @returns its pid on the host
   * @throws RpcError FailedPrecondition when it has been started before; what the runtime says when it cannot
   */
  async start(options: PatientOptions = {}): Promise<number> {
    let asked = false;
    const pid = await patiently(options, async (call) => {
      if (asked) {
        const { status, pid } = await this.state(call);
        if (status !== Status.CREATED) return pid;
      }
      asked = true;
      return (await this.tasks.start(this.#name(), call)).pid;
    }).catch((error: unknown) => {
      // Refused, it will never run; of an interrupted call nobody knows.
      if (!this.#started && !isInterruption(error)) this.#dropStdio();
      throw error;
    });
    this.#pid = pid;
    this.#started = true;
    this.stdio.opened();
    if (this.stdio.stdin?.writableFinished === true) this.#onStdinEnd();
    return pid;
  }

  /** Waits for the process's end; answers for one that has ended, too, until it is deleted. */
  async wait(options: PatientOptions = {}): Promise<Exit> {
    const { exitStatus, exitedAt } = await patiently(options, (call) => this.tasks.wait(this.#name(), call));
    // What is still to be written nobody will read; the shim may hold the FIFO open until the deletion.
    this.stdio.stdin?.destroy();
    return exitOf(exitStatus, exitedAt);
  }

  /**
   * @param signal default: SIGTERM
   * @param options `all`: every process of the container gets it
   * @throws RpcError NotFound when it has ended
   */
  async kill(signal: Signal = 'SIGTERM', options: CallOptions & { all?: boolean } = {}): Promise<void> {
    const { all = false, ...call } = options;
    await this.tasks.kill({ ...this.#name(), signal: signalNumber(signal), all }, call);
  }

  /** Sets the size of the process's terminal. */
  async resize({ columns, rows }: WindowSize, options?: CallOptions): Promise<void> {
    await this.tasks.resizePty({ ...this.#name(), width: columns, height: rows }, options);
  }

  /** Closes the process's stdin: it reads to the end of what was written, then the end of file. */
  async closeStdin(options?: CallOptions): Promise<void> {
    this.stdio.stdin?.destroy();
    await this.tasks.closeIO({ ...this.#name(), stdin: true }, options);
  }

  /** Its state as the daemon has it now. */
  async state(options?: CallOptions): Promise<ProcessState> {
    const { process } = await this.tasks.get(this.#name(), options);
    if (process === undefined) throw internal(`the daemon sent no state of ${this.containerId}`);
    return process;
  }

  async status(options?: CallOptions): Promise<ProcessStatus> {
    return statusName((await this.state(options)).status);
  }

  /**
   * Deletes what is left of a process that has ended. Its streams can still be read to their end.
   *
   * @throws RpcError FailedPrecondition (Unknown from containerd) when it runs and `force` is not set, NotFound when it has
   *   been deleted
   */
  async delete(options: DeleteOptions = {}): Promise<Exit> {
    const { force = false, ...call } = options;
    if (force) await this.stop(call);
    const exit = await this.remove(call);
    this.stdio.remove();
    return exit;
  }

  /** Kills the process when it runs, deletes it, and leaves its streams. One that is gone already is no error. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.delete({ force: true });
    } catch (error) {
      if (!isCode(error, Code.NotFound)) throw error;
      this.stdio.remove();
    } finally {
      this.stdio.detach();
    }
  }

  /** Leaves the process's streams without disturbing it: it runs on, and another client can attach. */
  detach(): void {
    this.stdio.detach();
  }

  protected abstract remove(options: CallOptions): Promise<Exit>;

  /** SIGKILL, and waits for the end. */
  protected async stop(options: CallOptions): Promise<void> {
    const { status } = await this.state(options);
    // An executed process that was never started has nothing to kill.
    if (status === Status.STOPPED || (status === Status.CREATED && this.execId !== '')) return;
    const ended = this.wait(options);
    // Awaited below, or given up together with the failure of the signal.
    ended.catch(() => {});
    try {
      await this.kill('SIGKILL', { all: this.execId === '', ...options });
    } catch (error) {
      // It ended by itself just now.
      if (!isCode(error, Code.NotFound) && !isCode(error, Code.FailedPrecondition)) throw error;
      if ((await this.state(options)).status !== Status.STOPPED) throw error;
      return;
    }
    await ended;
  }

  #dropStdio(): void {
    this.stdio.remove();
    this.stdio.detach();
  }

  #name(): { containerId: string; execId: string } {
    return { containerId: this.containerId, execId: this.execId };
  }

  #onStdinEnd(): void {
    // Before the start an executed process has no stdin that could be closed, and the call would be lost.
    if (!this.#started) return;
    // When it fails, the process has ended, and its stdin with it; or the daemon is gone, which the next call tells.
    this.tasks.closeIO({ ...this.#name(), stdin: true }).catch(() => {});
  }
}

/** Makes a call again while the daemon is gone, for as long as `patience` lasts. */
export async function patiently<T>(
  options: PatientOptions,
  ask: (call: CallOptions) => Promise<T>,
): Promise<T> {
  const { patience = 0, ...call } = options;
  let lostAt: number | undefined;
  for (;;) {
    const askedAt = performance.now();
    try {
      return await ask(call);
    } catch (error) {
      if (!isCode(error, Code.Unavailable)) throw error;
      const now = performance.now();
      // A call that lasted had a connection: the daemon went away only now.
      if (lostAt === undefined || now - askedAt > RETRY_MS) lostAt = now;
      if (now - lostAt >= patience) throw error;
      // Aborted, it ends at once, and the next call says so.
      await sleep(RETRY_MS, undefined, { signal: call.signal }).catch(() => {});
    }
  }
}

export function exitOf(code: number, exitedAt: Timestamp | undefined): Exit {
  return { code, exitedAt: dateOf(exitedAt) };
}

/** A failure of the call rather than of what it asked for: whether that was done nobody knows. */
export function isInterruption(error: unknown): boolean {
  return [Code.Unavailable, Code.Cancelled, Code.DeadlineExceeded].some((code) => isCode(error, code));
}

/** The word for a state. */
export function statusName(status: Status): ProcessStatus {
  const found = Object.entries(Status).find(([, value]) => value === status);
  return (found?.[0] ?? 'UNKNOWN') as ProcessStatus;
}
