import type { WindowSize } from '../native/native.ts';
import { failedPrecondition, invalidArgument, messageOf, notFound } from '../ttrpc/errors.ts';
import type { Journal } from './journal.ts';
import { Queue } from './queue.ts';
import type { Exit } from './reaper.ts';
import { pidOf, type State, stopped } from './state.ts';
import type { ProcessStdio, StdioRequest } from './stdio.ts';

/** Highest signal number of Linux (signal(7)). */
const LAST_SIGNAL = 64;
/** How long a deletion waits for the output of a process to be taken. */
const SETTLE_MS = 2000;

/**
 * A process of the container: the init or an exec. What changes its state goes through its queue, one after the other; its exit
 * comes in between whenever it happens.
 */
export abstract class ContainerProcess {
  /** The container's id for the init, the exec's id for an exec, as on the wire. */
  readonly id: string;
  readonly request: StdioRequest;
  protected readonly queue = new Queue();
  protected stdio: ProcessStdio | undefined;
  protected abstract current: State;
  readonly #exited = Promise.withResolvers<Exit>();
  #starts: Promise<void> = Promise.resolve();

  constructor(id: string, request: StdioRequest) {
    this.id = id;
    this.request = request;
    // Not everybody waits for it.
    this.#exited.promise.catch(() => {});
  }

  get state(): State {
    return this.current;
  }

  get pid(): number {
    return pidOf(this.current);
  }

  /** The exit, once it has happened. */
  get exit(): Exit | undefined {
    const { current } = this;
    return current.status === 'stopped' || current.status === 'deleted' ? current.exit : undefined;
  }

  /** Resolves with the exit; rejects when the process will never have one. */
  get exited(): Promise<Exit> {
    return this.#exited.promise;
  }

  /** Resolves when no start is on its way that a caller still waits for. Until then nobody may hear of the exit. */
  get startsAnswered(): Promise<void> {
    return this.#starts;
  }

  /** Holds back the news of the exit while the caller of a start waits for its answer. */
  holdExit(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#starts = promise;
    return resolve;
  }

  /** Where the output is kept, if it is and the process has been made. */
  get journal(): Journal | undefined {
    return this.stdio?.journal;
  }

  closeStdin(): void {
    this.stdio?.closeStdin();
  }

  resize(size: WindowSize): void {
    this.stdio?.resize(size);
  }

  /**
   * The process is deleted. Resolves when the output has gone where it should, or after 2 s: what is left then goes on being
   * delivered.
   */
  async settle(): Promise<void> {
    if (this.stdio === undefined) return;
    this.stdio.dismiss();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, SETTLE_MS);
    });
    await Promise.race([this.stdio.settled, late]);
    clearTimeout(timer);
  }

  /** Resolves when all output is delivered, however long it takes. */
  get delivered(): Promise<void> {
    return this.stdio?.settled ?? Promise.resolve();
  }

  /** Gives up the output that is not delivered. */
  abandonOutput(): void {
    this.stdio?.close();
  }

  /** The process exists: joins its descriptors to its client's. One that cannot be joined is not left to run on its own. */
  protected connect(stdio: ProcessStdio, pid: number): void {
    try {
      stdio.started();
    } catch (error) {
      process.kill(pid, 'SIGKILL');
      throw error;
    }
  }

  /** The process will not run: whoever waits for its exit is told why. */
  protected neverRan(reason: Error): void {
    this.#exited.reject(reason);
  }

  /** The kernel has reported the exit. Returns false when that is no news. */
  protected ended(exit: Exit): boolean {
    const { current } = this;
    if (current.status === 'stopped' || current.status === 'deleted') return false;
    this.current = stopped(current, exit);
    this.stdio?.exited();
    return true;
  }

  /** Lets everybody who waits for the exit know. */
  tell(exit: Exit): void {
    this.#exited.resolve(exit);
  }

  /** Resolves when the client has read what it is to read before it hears of the exit. */
  get outputTaken(): Promise<void> {
    return this.stdio?.taken ?? Promise.resolve();
  }

  /**
   * Sends a signal to the one process. Its pid cannot have been given to another: the shim is its parent and has not reaped it.
   *
   * @throws RpcError NotFound when it is over, FailedPrecondition when it has not begun, InvalidArgument for no signal
   */
  protected signal(signal: number): void {
    demandSignal(signal);
    const { current } = this;
    if (current.status === 'stopped' || current.status === 'deleted')
      throw notFound('process already finished');
    if (current.pid === undefined) throw failedPrecondition('process not created');
    try {
      process.kill(current.pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH')
        throw notFound('process already finished', error);
      throw failedPrecondition(`signal ${signal}: ${messageOf(error)}`, error);
    }
  }
}

/** @throws RpcError InvalidArgument */
export function demandSignal(signal: number): void {
  if (signal > LAST_SIGNAL) throw invalidArgument(`there is no signal ${signal}`);
}
