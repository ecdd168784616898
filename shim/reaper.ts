import { childPids, setChildSubreaper, waitPid } from '../native/native.ts';
import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';
import { now } from './timestamp.ts';

/** How a process ended. */
export interface Exit {
  readonly pid: number;
  /** The exit code; 128 + n when signal n ended it, as shells and containerd have it. */
  readonly status: number;
  readonly at: Timestamp;
}

/** A child that `child_process` has started and waits for itself. */
export interface Spawned {
  readonly pid?: number | undefined;
  once(event: 'exit', listener: () => void): unknown;
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
  readonly #spawned = new Set<number>();
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

  /** Leaves a child to `child_process`, whose wait would fail if the reaper came first. Call it right after the spawn. */
  leave(child: Spawned): void {
    const { pid } = child;
    if (pid === undefined) return;
    this.#spawned.add(pid);
    child.once('exit', () => this.#spawned.delete(pid));
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
    for (const pid of childPids()) {
      if (!this.#spawned.has(pid)) this.#reap(pid);
    }
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
