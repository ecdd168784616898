import { execa } from 'execa';
import { pipe, Poll } from '../native/native.ts';
import { deadlineExceeded, messageOf, notFound, type RpcError, unknown } from '../ttrpc/errors.ts';
import { Descriptor } from './descriptor.ts';
import type { Reaper } from './reaper.ts';
import { toExeca } from './runc.ts';

/** How long a logger may take until it is ready. */
const READY_TIMEOUT_MS = 10_000;
/** What a logger is given to write down what it still has, after the end of its input and after SIGTERM. */
const END_TIMEOUT_MS = 2000;
const TERMINATION_TIMEOUT_MS = 10_000;

/**
 * A program that takes a container's output: `binary:///path/of/program?argument=value`. It reads standard output from
 * descriptor 3 and standard error from 4, and says that it is ready by closing (or writing to) 5; it finds CONTAINER_ID and
 * CONTAINER_NAMESPACE in its environment and nothing else (containerd's pkg/process/io.go, runtime/v2/logging).
 */
export class Logger {
  /** The ends to write to. */
  readonly stdout: Descriptor;
  readonly stderr: Descriptor;
  readonly #end: () => Promise<void>;
  #ending: Promise<void> | undefined;

  private constructor(stdout: Descriptor, stderr: Descriptor, end: () => Promise<void>) {
    this.stdout = stdout;
    this.stderr = stderr;
    this.#end = end;
  }

  /**
   * Starts the program and waits until it is ready.
   *
   * @throws RpcError NotFound when there is no such program, Unknown when it cannot be run, DeadlineExceeded after 10 s
   */
  static async start(
    uri: URL,
    container: { id: string; namespace: string },
    reaper: Reaper,
    signal: AbortSignal,
  ): Promise<Logger> {
    using opened = new DisposableStack();
    const newPipe = () => {
      const { read, write } = pipe();
      return { read: opened.use(new Descriptor(read)), write: opened.use(new Descriptor(write)) };
    };
    const [out, err, ready] = [newPipe(), newPipe(), newPipe()];
    const program = decodeURIComponent(uri.pathname);
    const subprocess = execa(program, [...uri.searchParams].flat(), {
      stdio: [
        'ignore',
        'ignore',
        'ignore',
        toExeca(out.read.fd),
        toExeca(err.read.fd),
        toExeca(ready.write.fd),
      ],
      env: { CONTAINER_ID: container.id, CONTAINER_NAMESPACE: container.namespace },
      extendEnv: false,
      cwd: '/',
      buffer: false,
      reject: false,
      cleanup: false,
    });
    reaper.leave(subprocess);
    for (const end of [out.read, err.read, ready.write]) end.close();
    try {
      const failed = subprocess.then(({ code, cause }) => {
        if (code !== undefined) throw unlaunched(program, code, cause);
      });
      await Promise.race([readable(ready.read.fd, signal), failed]);
    } catch (error) {
      subprocess.kill('SIGKILL');
      throw error;
    }
    ready.read.close();
    opened.move();
    return new Logger(out.write, err.write, () => terminate(subprocess));
  }

  /** Waits for the program to end, which it does when both ends are closed, or is made to after 12 s. Never rejects. */
  end(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }
}

function unlaunched(program: string, code: string, cause: unknown): RpcError {
  const make = code === 'ENOENT' ? notFound : unknown;
  return make(
    `logging binary ${program}: ${code === 'ENOENT' ? 'no such file or directory' : messageOf(cause)}`,
  );
}

/** Resolves when the descriptor can be read or has ended. */
async function readable(fd: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timeout = setTimeout(
    () => reject(deadlineExceeded('the logging binary is not ready')),
    READY_TIMEOUT_MS,
  );
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

interface Killable {
  kill(signal: 'SIGTERM' | 'SIGKILL'): boolean;
  then<T>(fulfilled: () => T): Promise<T>;
}

/** Its input has ended: waits for it to end too, asks it to, makes it. */
async function terminate(subprocess: Killable): Promise<void> {
  const steps: ['SIGTERM' | 'SIGKILL', number][] = [
    ['SIGTERM', END_TIMEOUT_MS],
    ['SIGKILL', TERMINATION_TIMEOUT_MS],
  ];
  for (const [signal, timeout] of steps) {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(true), timeout);
    });
    const isLate = await Promise.race([late, subprocess.then(() => false)]);
    clearTimeout(timer);
    if (!isLate) return;
    subprocess.kill(signal);
  }
  await subprocess.then(() => undefined);
}
