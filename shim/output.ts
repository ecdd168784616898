import { fchownSync } from 'node:fs';
import { pipe } from '../native/native.ts';
import { Descriptor } from './descriptor.ts';
import { afterExit, closeOutlet, leave, taken, type Outlet, type Unclaimed } from './fifo.ts';
import { Pump } from './pump.ts';
import type { Handed } from './runc.ts';

/**
 * How long descendants that outlive a process may go on writing to its output before it is closed: the time that
 * containerd's shim gives them (pkg/process/exec.go, `waitTimeout`).
 */
export const LINGER_MS = 2000;

/** Where one of a process's output descriptors leads. */
export interface Output {
  /** What the process gets. */
  readonly handed: Handed;
  /** The runtime has its copies: closes the process's end here, so that the process's own is the last. */
  spawned(): void;
  /** The runtime has succeeded; the process exists. */
  started(): void;
  /** The process has ended. */
  exited(): void;
  /** Resolves when all that the process wrote is where it should be. Never rejects, and not before `exited`. */
  readonly settled: Promise<void>;
  /**
   * Resolves when the client has read what the process itself has written into the client's FIFO, or is not expected to.
   * Never rejects, and not before `exited`.
   */
  readonly taken: Promise<void>;
  /** The process is being deleted: what takes its output in turn is to come to an end. */
  dismiss(): void;
  /** Gives up what is not delivered. */
  close(): void;
  /** Gives up what is kept for a client to come. */
  forsake(): void;
}

/** Who owns the pipes of a process, so that one without root's rights can open its /dev/stdout again. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** No output wanted: /dev/null. */
export const NULL_OUTPUT: Output = {
  handed: 'ignore',
  spawned() {},
  started() {},
  exited() {},
  settled: Promise.resolve(),
  taken: Promise.resolve(),
  dismiss() {},
  close() {},
  forsake() {},
};

/**
 * The client's FIFO (or a file, or a logger's pipe) is the process's descriptor: nothing is copied. For a process that no
 * writer can outlive, as readers get the end of file when the last end is closed.
 */
export class DirectOutput implements Output {
  readonly settled: Promise<void>;
  readonly #outlet: Outlet;
  readonly #closed = Promise.withResolvers<void>();
  #unclaimed: Unclaimed | undefined;

  constructor(outlet: Outlet, owner: Owner) {
    this.#outlet = outlet;
    this.settled = this.#closed.promise.then(() => outlet.delivered?.());
    chown(outlet.writer, owner);
  }

  get handed(): number {
    return this.#outlet.writer.fd;
  }

  get taken(): Promise<void> {
    return this.#closed.promise;
  }

  spawned(): void {
    this.#outlet.writer.close();
  }

  started(): void {}

  exited(): void {
    if (this.#outlet.keeper?.isOpen === true) void this.#release();
    else this.#end();
  }

  dismiss(): void {
    this.#outlet.dismiss?.();
  }

  close(): void {
    this.#end();
    this.dismiss();
  }

  #end(): void {
    closeOutlet(this.#outlet);
    this.#closed.resolve();
  }

  forsake(): void {
    this.#unclaimed?.close();
  }

  async #release(): Promise<void> {
    try {
      this.#unclaimed = await taken(this.#outlet);
    } finally {
      this.#closed.resolve();
    }
  }
}

/**
 * A pipe whose bytes are moved into the client's FIFO. For a process that may leave others behind which hold its descriptors:
 * the client's FIFO ends nevertheless, when the pipe is empty and they have had their time.
 */
export class PumpedOutput implements Output {
  readonly settled: Promise<void>;
  readonly taken = Promise.resolve();
  #outlet: Outlet;
  readonly #input: Descriptor;
  readonly #end: Descriptor;
  readonly #done = Promise.withResolvers<void>();
  #pump: Pump | undefined;
  #linger: NodeJS.Timeout | undefined;
  #unclaimed: Unclaimed | undefined;

  constructor(outlet: Outlet, owner: Owner) {
    const { read, write } = pipe();
    this.#outlet = outlet;
    this.#input = new Descriptor(read);
    this.#end = new Descriptor(write);
    chown(this.#end, owner);
    this.settled = this.#done.promise;
  }

  get handed(): number {
    return this.#end.fd;
  }

  spawned(): void {
    this.#end.close();
  }

  /** Not earlier: what the runtime prints when it fails is not the process's, and reaches the caller as an error. */
  started(): void {
    this.#pump = new Pump(this.#input.fd, this.#outlet.writer.fd);
    void this.#pump.done.then(() => this.#release());
  }

  exited(): void {
    this.#outlet = afterExit(this.#outlet);
    this.#linger = setTimeout(() => this.#pump?.finish(), LINGER_MS);
  }

  dismiss(): void {}

  close(): void {
    this.#pump?.close();
    this.#release();
    this.forsake();
  }

  forsake(): void {
    this.#unclaimed?.close();
  }

  #release(): void {
    clearTimeout(this.#linger);
    this.#input.close();
    this.#end.close();
    this.#unclaimed ??= leave(this.#outlet);
    this.#done.resolve();
  }
}

/** Has it belong to who will open it again by /dev/stdout. */
export function chown(descriptor: Descriptor, { uid, gid }: Owner): void {
  if (uid !== 0 || gid !== 0) fchownSync(descriptor.fd, uid, gid);
}
