import { childPids, setChildSubreaper, spawn, waitPid, type Program } from '../native/native.ts';
import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';
import { now } from './timestamp.ts';

/** How a process ended. */
export interface Exit {
  readonly pid: number;
  /** The exit code; 128 + n when signal n ended it, as shells and containerd have it. */
  readonly status: number;
  readonly at: Timestamp;
}

/** A program that the shim itself has started. */
export interface Subprocess {
  readonly pid: number;
  /** Resolves when it has ended. Never rejects. */
  readonly ended: Promise<Exit>;
  /** Sends a signal, unless it has ended: its pid may be another's then. */
  kill(signal: NodeJS.Signals): void;
}

/** While it is not disposed, no exit is lost. */
export interface Expectation extends Disposable {
  /** Resolves with the exit of a process, at once if it has been seen. Ask once for each pid. */
  exitOf(pid: number): Promise<Exit>;
}

/**
 * Waits for every process that ends up as a child of the shim: the containers' processes, which the OCI runtime leaves to it,
 * and all orphans below them, because the shim is their subreaper.
 *
 * An exit may be seen before anyone knows whose it is: the runtime says the pid of a process when the process may be over
 * already. So while a runtime is at work (`expect`), exits of unknown pids are kept; an exit is never lost, and an orphan
 * is never left a zombie. A shim that drops what it does not know loses the exits of short processes (containerd #10603).
 */
export class Reaper {
  readonly #watched = new Map<number, (exit: Exit) => void>();
  readonly #unclaimed = new Map<number, Exit>();
  readonly #sweep = () => this.sweep();
  #expecting = 0;

  /** Makes this process the subreaper of all its descendants and begins to wait for them. */
  start(): void {
    setChildSubreaper(true);
    process.on('SIGCHLD', this.#sweep);
  }

  stop(): void {
    process.off('SIGCHLD', this.#sweep);
  }

  /**
   * Starts a program. Its end is seen between `start` and `stop` only, and does not keep this process running.
   *
   * @throws what `spawn` of native/spawn.ts does
   */
  spawn(program: Program): Subprocess {
    const pid = spawn(program);
    // One that had this pid before.
    this.#unclaimed.delete(pid);
    let isRunning = true;
    const ended = new Promise<Exit>((resolve) => {
      this.#watched.set(pid, (exit) => {
        isRunning = false;
        resolve(exit);
      });
    });
    const kill = (signal: NodeJS.Signals) => void (isRunning && process.kill(pid, signal));
    return { pid, ended, kill };
  }

  /**
   * Runs a program to its end, and kills it when that takes too long.
   *
   * @throws what `spawn` does
   */
  async run(
    program: Program,
    timeoutMs: number,
    onSpawned?: () => void,
  ): Promise<{ exit: Exit; hasTimedOut: boolean }> {
    const subprocess = this.spawn(program);
    let hasTimedOut = false;
    const timer = setTimeout(() => {
      hasTimedOut = true;
      subprocess.kill('SIGKILL');
    }, timeoutMs);
    try {
      onSpawned?.();
      return { exit: await subprocess.ended, hasTimedOut };
    } finally {
      clearTimeout(timer);
    }
  }

  /** Keeps the exits of unknown pids until it is disposed: a new process is about to appear. */
  expect(): Expectation {
    this.#expecting++;
    return {
      exitOf: (pid) => this.#exitOf(pid),
      [Symbol.dispose]: () => {
        this.#expecting--;
        if (this.#expecting === 0) this.#unclaimed.clear();
      },
    };
  }

  /** Reaps every child that has ended. One signal may stand for several exits. */
  sweep(): void {
    for (const pid of childPids()) this.#reap(pid);
  }

  #exitOf(pid: number): Promise<Exit> {
    const seen = this.#unclaimed.get(pid);
    if (seen === undefined) return new Promise((resolve) => this.#watched.set(pid, resolve));
    this.#unclaimed.delete(pid);
    return Promise.resolve(seen);
  }

  #reap(pid: number): void {
    const ended = waitPid(pid);
    if (ended === undefined) return;
    const status = ended.signal === 0 ? ended.code : 128 + ended.signal;
    const exit: Exit = { pid, status, at: now() };
    const watcher = this.#watched.get(pid);
    if (watcher !== undefined) {
      this.#watched.delete(pid);
      watcher(exit);
    } else if (this.#expecting > 0) {
      this.#unclaimed.set(pid, exit);
    }
  }
}
