import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { pipe, setNonblock, unreadBytes } from '../native/native.ts';
import { deadlineExceeded, invalidArgument, messageOf } from '../ttrpc/errors.ts';
import { Descriptor } from './descriptor.ts';

const { O_APPEND, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** How long a client may take to open its end of a FIFO. */
const READER_TIMEOUT_MS = 10_000;
/** How long the news of an exit waits for a client to read the last output. */
const TAKEN_TIMEOUT_MS = 2_000;
const FIRST_PAUSE_MS = 2;
const LONGEST_PAUSE_MS = 50;
/** How long a client that comes for what is unclaimed may wait for the end of it. */
const CLAIM_PAUSE_MS = 100;

/** The way out to a client: the end that is written, and the one that keeps it writable while no client reads. */
export interface Outlet {
  readonly writer: Descriptor;
  /** Open for reading, never read: with it, a client that leaves does not end the writer with SIGPIPE. Undefined for a file. */
  readonly keeper: Descriptor | undefined;
  /** Resolves when who takes the bytes in turn has taken them all, once the writer is closed; never rejects. */
  readonly delivered?: () => Promise<void>;
  /** That is a matter of moments: the news of the end waits for it. */
  readonly isPrompt?: boolean;
  /** Nobody waits for that any more: who takes the bytes is to come to an end. */
  readonly dismiss?: () => void;
}

export function closeOutlet({ writer, keeper }: Outlet): void {
  writer.close();
  keeper?.close();
}

/**
 * Opens a client's FIFO (or file) for writing. Waits for the client to open its own end: a process that ends at once would
 * otherwise write into a FIFO whose ends are all closed again before the client comes, and its output would be gone.
 *
 * @returns a blocking writer, as the process that inherits it expects
 * @throws RpcError InvalidArgument when it cannot be opened; DeadlineExceeded when nobody reads it within 10 s
 */
export async function openOutlet(path: string, signal: AbortSignal): Promise<Outlet> {
  if (!isFifo(path)) return { writer: open(path, O_WRONLY | O_APPEND), keeper: undefined };
  const writer = await openWriter(path, signal);
  try {
    const keeper = open(path, O_RDONLY | O_NONBLOCK);
    setNonblock(writer.fd, false);
    return { writer, keeper };
  } catch (error) {
    writer.close();
    throw error;
  }
}

/**
 * What a process has written into a FIFO and nobody has read, when no client is left: a FIFO forgets it as soon as nobody has it open.
 * Held until the next client opens the FIFO, which a daemon does that was away while the process ended.
 */
export class Unclaimed {
  readonly #writer: Descriptor;
  #timer: NodeJS.Timeout | undefined;

  /** Takes the writing end over. */
  constructor(writer: Descriptor) {
    this.#writer = writer;
    this.#look();
  }

  /** Drops it. */
  close(): void {
    clearTimeout(this.#timer);
    this.#writer.close();
  }

  #look(): void {
    if (hasReader(this.#writer.fd)) this.close();
    else this.#timer = setTimeout(() => this.#look(), CLAIM_PAUSE_MS).unref();
  }
}

/** Lets go of a process's way out, after its last byte. What no client has read is still held when there is something. */
export function leave({ writer, keeper }: Outlet): Unclaimed | undefined {
  keeper?.close();
  const isFifo = keeper !== undefined && writer.isOpen;
  if (isFifo && unreadBytes(writer.fd) > 0 && !hasReader(writer.fd)) return new Unclaimed(writer);
  writer.close();
  return undefined;
}

/**
 * The way out as it is needed once the process has ended: while a client reads it there is no keeper, so that a client that
 * leaves from now on is told from one that is slow. While no client does, there is one, for the last bytes to be written at all.
 */
export function afterExit(outlet: Outlet): Outlet {
  const { writer, keeper } = outlet;
  if (keeper?.isOpen !== true || !writer.isOpen) return outlet;
  keeper.close();
  if (hasReader(writer.fd)) return outlet;
  const again = new Descriptor(openSync(`/proc/self/fd/${writer.fd}`, O_RDONLY | O_NONBLOCK));
  return { ...outlet, keeper: again };
}

/**
 * Resolves when the client has read all that the FIFO holds, when no client is left, or after 2 s.
 *
 * ctr 1.6 stops reading as soon as it hears of the end of a container (Task.Delete closes the streams before it waits for them), and
 * so loses what it has not read by then. The news waits for it.
 *
 * @param outlet taken over. Its keeper is closed: from then on a client that has left is told from one that is slow
 * @returns what nobody has read, when no client is left
 */
export async function taken(outlet: Outlet): Promise<Unclaimed | undefined> {
  const writer = anyWriter(outlet);
  if (writer === undefined) return undefined;
  outlet.keeper?.close();
  const deadline = performance.now() + TAKEN_TIMEOUT_MS;
  for (
    let pause = 1;
    writer.isOpen && unreadBytes(writer.fd) > 0;
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS)
  ) {
    if (!hasReader(writer.fd)) return new Unclaimed(writer);
    if (performance.now() > deadline) break;
    await sleep(pause);
  }
  writer.close();
  return undefined;
}

/** The process has its own copy of the writer, and ours is closed, when the FIFO is the process's descriptor. Undefined for a file. */
function anyWriter({ writer, keeper }: Outlet): Descriptor | undefined {
  if (writer.isOpen && keeper !== undefined) return writer;
  writer.close();
  if (keeper?.isOpen !== true) return undefined;
  return new Descriptor(openSync(`/proc/self/fd/${keeper.fd}`, O_WRONLY | O_NONBLOCK));
}

/** A FIFO without a reader cannot be opened for writing without waiting for one (ENXIO, fifo(7)). */
function hasReader(fd: number): boolean {
  try {
    closeSync(openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK));
    return true;
  } catch {
    return false;
  }
}

/** The way in from a client. */
export interface Inlet {
  readonly reader: Descriptor;
  /** Keeps the FIFO from ending when a client leaves; undefined for a file. The input ends when this is closed. */
  readonly keeper: Descriptor | undefined;
}

export function closeInlet({ reader, keeper }: Inlet): void {
  reader.close();
  keeper?.close();
}

/** A pipe that this process itself writes into, by the keeper, which does not block. */
export function pipeInlet(): Inlet {
  const { read, write } = pipe();
  setNonblock(write, true);
  return { reader: new Descriptor(read), keeper: new Descriptor(write) };
}

/**
 * Opens a client's FIFO (or file) for reading.
 *
 * @returns a blocking reader
 * @throws RpcError InvalidArgument when it cannot be opened
 */
export function openInlet(path: string): Inlet {
  const reader = open(path, O_RDONLY | O_NONBLOCK);
  try {
    const keeper = fstatSync(reader.fd).isFIFO() ? open(path, O_WRONLY | O_NONBLOCK) : undefined;
    setNonblock(reader.fd, false);
    return { reader, keeper };
  } catch (error) {
    reader.close();
    throw error;
  }
}

async function openWriter(path: string, signal: AbortSignal): Promise<Descriptor> {
  const deadline = performance.now() + READER_TIMEOUT_MS;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    try {
      return new Descriptor(openSync(path, O_WRONLY | O_NONBLOCK));
    } catch (error) {
      // ENXIO: nobody has it open for reading (fifo(7)). There is nothing to wait on but the clock.
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw failure(path, error);
    }
    signal.throwIfAborted();
    if (performance.now() > deadline) throw deadlineExceeded(`nobody reads the FIFO ${path}`);
    await sleep(pause, undefined, { signal });
  }
}

function isFifo(path: string): boolean {
  try {
    return statSync(path).isFIFO();
  } catch (error) {
    throw failure(path, error);
  }
}

function open(path: string, flags: number): Descriptor {
  try {
    return new Descriptor(openSync(path, flags));
  } catch (error) {
    throw failure(path, error);
  }
}

function failure(path: string, cause: unknown): Error {
  return invalidArgument(`failed to open ${path}: ${messageOf(cause)}`, cause);
}
