import { openSync } from 'node:fs';
import { pipe, Poll, splice, unreadBytes } from '../native/native.ts';
import {
  deadlineExceeded,
  invalidArgument,
  messageOf,
  notFound,
  type RpcError,
  unknown,
} from '../ttrpc/errors.ts';
import { Descriptor } from './descriptor.ts';
import type { Log } from './log.ts';
import { isReadElsewhere } from './pipe-reader.ts';
import { Pump } from './pump.ts';
import type { Reaper, Subprocess } from './reaper.ts';

/** How long a logger may take until it is ready. */
const READY_TIMEOUT_MS = 10_000;
/** What a logger whose process is deleted is given to write down what it still has, and again after SIGTERM. */
const END_TIMEOUT_MS = 2000;
const TERMINATION_TIMEOUT_MS = 7000;

/** For whom a logger works. */
export interface LoggerContext {
  readonly id: string;
  readonly namespace: string;
  readonly reaper: Reaper;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * A program that takes a container's output: `binary:///path/of/program?argument=value`. It reads standard output from
 * descriptor 3 and standard error from 4, and says that it is ready by closing (or writing to) 5; it finds CONTAINER_ID and
 * CONTAINER_NAMESPACE in its environment and nothing else (containerd's pkg/process/io.go, runtime/v2/logging).
 *
 * It is a child of the shim, so the daemon may come and go. It ends by itself at the end of its input. One that ends before is
 * no reason for its container to end of SIGPIPE: what the container writes from then on is thrown away.
 */
export class Logger {
  /** The ends to write to. */
  readonly stdout: Descriptor;
  readonly stderr: Descriptor;
  /** Resolves when the program has ended. Never rejects. */
  readonly ended: Promise<void>;
  readonly #subprocess: Subprocess;
  #hasEnded = false;
  #dismissed: Promise<void> | undefined;

  private constructor(
    stdout: Descriptor,
    stderr: Descriptor,
    subprocess: Subprocess,
    afterwards: () => void,
  ) {
    this.stdout = stdout;
    this.stderr = stderr;
    this.#subprocess = subprocess;
    this.ended = subprocess.ended.then(() => {
      this.#hasEnded = true;
      afterwards();
    });
  }

  /**
   * Starts the program and waits until it is ready.
   *
   * @throws RpcError InvalidArgument for a URI without a program, NotFound when there is no such program, Unknown when it cannot be
   *         run, DeadlineExceeded when it is not ready after 10 s
   */
  static async start(uri: URL, context: LoggerContext): Promise<Logger> {
    const { reaper, log, signal } = context;
    const program = pathOf(uri);
    using opened = new DisposableStack();
    const newPipe = () => {
      const { read, write } = pipe();
      return { read: opened.use(new Descriptor(read)), write: opened.use(new Descriptor(write)) };
    };
    const [out, err, ready] = [newPipe(), newPipe(), newPipe()];
    let subprocess: Subprocess;
    try {
      subprocess = reaper.spawn({
        file: program,
        args: [...uri.searchParams].flat(),
        environment: { CONTAINER_ID: context.id, CONTAINER_NAMESPACE: context.namespace },
        cwd: '/',
        descriptors: ['ignore', 'ignore', 'ignore', out.read.fd, err.read.fd, ready.write.fd],
      });
    } catch (error) {
      throw unlaunched(program, error);
    }
    ready.write.close();
    try {
      await readable(ready.read.fd, program, signal);
    } catch (error) {
      subprocess.kill('SIGKILL');
      throw error;
    }
    ready.read.close();
    opened.move();
    return new Logger(out.write, err.write, subprocess, () => {
      for (const { read } of [out, err]) bereave(read, program, log);
    });
  }

  /**
   * The process is deleted: gives the program 2 s to end, asks it to, and makes it after 7 s more. Resolves when it has ended.
   * Never rejects.
   */
  dismiss(): Promise<void> {
    this.#dismissed ??= this.#terminate();
    return this.#dismissed;
  }

  async #terminate(): Promise<void> {
    const steps: ['SIGTERM' | 'SIGKILL', number][] = [
      ['SIGTERM', END_TIMEOUT_MS],
      ['SIGKILL', TERMINATION_TIMEOUT_MS],
    ];
    for (const [signal, timeout] of steps) {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, timeout);
      });
      await Promise.race([late, this.ended]);
      clearTimeout(timer);
      if (this.#hasEnded) return;
      this.#subprocess.kill(signal);
    }
    await this.ended;
  }
}

/** The path that a URI of a program or a file names. @throws RpcError InvalidArgument when there is none */
export function pathOf(uri: URL): string {
  let path: string;
  try {
    path = decodeURIComponent(uri.pathname);
  } catch (error) {
    throw invalidArgument(`${uri.href}: ${messageOf(error)}`, error);
  }
  if (uri.host !== '' || !path.startsWith('/') || path.endsWith('/') || path.includes('\0')) {
    throw invalidArgument(`${uri.href} names no file: ${uri.protocol}///PATH is expected`);
  }
  return path;
}

/**
 * The program has ended. When that was before its input ended, and it has left nobody who reads in its place, the pipe is
 * emptied from here, so that whoever writes into it neither ends of it nor waits for ever.
 */
function bereave(reader: Descriptor, program: string, log: Log): void {
  const nowhere = new Descriptor(openSync('/dev/null', 'w'));
  const close = () => {
    reader.close();
    nowhere.close();
  };
  const hasEnded = unreadBytes(reader.fd) === 0 && splice(reader.fd, nowhere.fd, 1) === 0;
  if (hasEnded || isReadElsewhere(reader.fd)) return close();
  log.warn('the logging program has ended before its input; what is written from now on is lost', {
    program,
  });
  void new Pump(reader.fd, nowhere.fd).done.then(close);
}

function unlaunched(program: string, error: unknown): RpcError {
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: 'no such file or directory',
    EACCES: 'permission denied',
    ENOEXEC: 'exec format error',
  };
  const { code = '' } = error as NodeJS.ErrnoException;
  const make = code === 'ENOENT' ? notFound : unknown;
  return make(`cannot start the logging binary ${program}: ${reasons[code] ?? messageOf(error)}`, error);
}

/** Resolves when the descriptor can be read or has ended. */
async function readable(fd: number, program: string, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const late = `the logging binary ${program} is not ready after ${READY_TIMEOUT_MS / 1000} s`;
  const timeout = setTimeout(() => reject(deadlineExceeded(late)), READY_TIMEOUT_MS);
  const aborted = () => reject(signal.reason as Error);
  signal.addEventListener('abort', aborted, { once: true });
  const poll = new Poll(fd, 'readable', (error) => (error ? reject(error) : resolve()));
  try {
    await promise;
  } finally {
    poll.close();
    clearTimeout(timeout);
    signal.removeEventListener('abort', aborted);
  }
}
