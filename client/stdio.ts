/**
 * A process's standard streams: FIFOs between the shim, which opens them by path, and this process, which has them as
 * Node streams. Nothing here blocks: every FIFO is opened with O_NONBLOCK and an end of its own on the other side.
 */
import { closeSync, constants, mkdirSync, mkdtempSync, openSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { mkfifo } from '../native/native.ts';
import { invalidArgument } from '../ttrpc/errors.ts';

/** Where a new process's standard streams go. */
export type StdioOptions =
  /** All of them to /dev/null. */
  | 'null'
  /**
   * To a log: `file:///path` or `binary:///path?name=value`. The shim, not this process, feeds it, so that it outlives the
   * client. There is no stdin.
   */
  | { readonly log: string }
  /** To this process, as Node streams. */
  | PipeOptions;

export interface PipeOptions {
  /** The process gets a terminal; what it writes arrives on stdout. */
  readonly terminal?: boolean;
  /** Default: true. Without, the process reads /dev/null. */
  readonly stdin?: boolean;
  /** Default: true. */
  readonly stdout?: boolean;
  /** Default: true, but false with a terminal, which has no such stream. */
  readonly stderr?: boolean;
  /** Made when missing, mode 0700. A directory of its own is made in it. Default: /run for root, else the system's. */
  readonly fifoDirectory?: string;
}

/** The streams as the daemon is told of them: paths, URIs or empty. */
export interface StdioPaths {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

interface Streams {
  readonly stdin?: Writable;
  readonly stdout?: Readable;
  readonly stderr?: Readable;
}

const NOWHERE: StdioPaths = { stdin: '', stdout: '', stderr: '', terminal: false };

export class Stdio {
  readonly paths: StdioPaths;
  /**
   * `end()` closes the process's stdin. `destroy()` only leaves it: the process goes on waiting for input, from the next
   * client that attaches.
   */
  readonly stdin: Writable | undefined;
  /** Ends when the last process that has it open has ended. */
  readonly stdout: Readable | undefined;
  readonly stderr: Readable | undefined;
  #keepers: number[];

  private constructor(paths: StdioPaths, streams: Streams = {}, keepers: number[] = []) {
    this.paths = paths;
    this.stdin = streams.stdin;
    this.stdout = streams.stdout;
    this.stderr = streams.stderr;
    this.#keepers = keepers;
  }

  /** New streams, on disk and open. */
  static create(options: StdioOptions): Stdio {
    if (options === 'null') return new Stdio(NOWHERE);
    if ('log' in options) {
      if (!URL.canParse(options.log)) throw invalidArgument(`log is not a URI: ${options.log}`);
      return new Stdio({ ...NOWHERE, stdout: options.log, stderr: options.log });
    }
    const { terminal = false, stdin = true, stdout = true, stderr = !terminal } = options;
    if (terminal && stderr) throw invalidArgument('a terminal has no stderr of its own');
    const directory = makeDirectory(options.fifoDirectory);
    const path = (wanted: boolean, name: string) => (wanted ? join(directory, name) : '');
    const paths = {
      stdin: path(stdin, 'stdin'),
      stdout: path(stdout, 'stdout'),
      stderr: path(stderr, 'stderr'),
      terminal,
    };
    const descriptors: number[] = [];
    try {
      for (const fifo of fifosOf(paths)) mkfifo(fifo, 0o600);
      const { streams, keepers } = openAll(paths, descriptors);
      return new Stdio(paths, streams, keepers);
    } catch (error) {
      for (const descriptor of descriptors) closeSync(descriptor);
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** The streams of a process that runs already. Those that are no FIFOs, or have nobody at the other end, stay undefined. */
  static attach(paths: StdioPaths): Stdio {
    return new Stdio(paths, {
      stdin: isFifo(paths.stdin) ? attachWriter(paths.stdin) : undefined,
      stdout: isFifo(paths.stdout) ? attachReader(paths.stdout) : undefined,
      stderr: !paths.terminal && isFifo(paths.stderr) ? attachReader(paths.stderr) : undefined,
    });
  }

  /** The streams of a process that others read; kept to remove their files with the process. */
  static of(paths: StdioPaths): Stdio {
    return new Stdio(paths);
  }

  /**
   * To be called when the shim has opened its ends, which it has when it answered the call that makes it do so. From then
   * on the streams end as the process's do.
   */
  opened(): void {
    for (const keeper of this.#keepers) closeSync(keeper);
    this.#keepers = [];
  }

  /** Leaves the streams as they are, for another client to attach to. The process is not disturbed. */
  detach(): void {
    this.opened();
    this.stdin?.destroy();
    this.stdout?.destroy();
    this.stderr?.destroy();
  }

  /** Removes the FIFOs' files and their directory when nothing else is in it. Open streams can be read to their end. */
  remove(): void {
    this.opened();
    this.stdin?.destroy();
    const fifos = fifosOf(this.paths).filter(isFifo);
    for (const fifo of fifos) rmSync(fifo, { force: true });
    for (const directory of new Set(fifos.map((fifo) => dirname(fifo)))) {
      try {
        rmdirSync(directory);
      } catch {
        // Somebody else's directory, with other things in it.
      }
    }
  }
}

function makeDirectory(parent: string | undefined): string {
  const base = parent ?? (process.getuid?.() === 0 ? '/run' : tmpdir());
  if (parent !== undefined) mkdirSync(parent, { recursive: true, mode: 0o700 });
  return mkdtempSync(join(base, 'moor-stdio-'));
}

function fifosOf({ stdin, stdout, stderr }: StdioPaths): string[] {
  return [stdin, stdout, stderr].filter((path) => path !== '');
}

/**
 * Opens both ends of every FIFO, so that neither does the reader see an end before the shim has come nor does the writer
 * fail for want of a reader (fifo(7)). `descriptors` gets all that is open, for the case that a later one fails.
 */
function openAll(paths: StdioPaths, descriptors: number[]): { streams: Streams; keepers: number[] } {
  const keepers: number[] = [];
  const open = (path: string, flags: number) => {
    const descriptor = openSync(path, flags | constants.O_NONBLOCK);
    descriptors.push(descriptor);
    return descriptor;
  };
  const reader = (path: string) => {
    const descriptor = open(path, constants.O_RDONLY);
    keepers.push(open(path, constants.O_WRONLY));
    return descriptor;
  };
  const writer = (path: string) => {
    keepers.push(open(path, constants.O_RDONLY));
    return open(path, constants.O_WRONLY);
  };
  const stdin = paths.stdin === '' ? undefined : writer(paths.stdin);
  const stdout = paths.stdout === '' ? undefined : reader(paths.stdout);
  const stderr = paths.stderr === '' ? undefined : reader(paths.stderr);
  const streams = {
    stdin: stdin === undefined ? undefined : writableOn(stdin),
    stdout: stdout === undefined ? undefined : readableOn(stdout),
    stderr: stderr === undefined ? undefined : readableOn(stderr),
  };
  return { streams, keepers };
}

/** Without a writer the kernel reports no end of file until one has been there: one comes and goes (fs/pipe.c). */
function attachReader(path: string): Readable {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK));
  return readableOn(descriptor);
}

function attachWriter(path: string): Writable | undefined {
  try {
    return writableOn(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK));
  } catch (error) {
    // Nobody reads: the process has closed its stdin or has ended.
    if ((error as NodeJS.ErrnoException).code === 'ENXIO') return undefined;
    throw error;
  }
}

function readableOn(fd: number): Readable {
  return new Socket({ fd, readable: true, writable: false });
}

function writableOn(fd: number): Writable {
  const socket = new Socket({ fd, readable: false, writable: true });
  // A process that ends without reading its input is no failure of the client: the stream closes, and that is all.
  socket.on('error', () => {});
  return socket;
}

function isFifo(path: string): boolean {
  return path.startsWith('/') && statSync(path, { throwIfNoEntry: false })?.isFIFO() === true;
}
