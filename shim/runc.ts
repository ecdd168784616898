import { fstatSync, openSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { CheckpointOptions, Options } from '../proto/gen/containerd/runtime/runc.ts';
import {
  failedPrecondition,
  internal,
  messageOf,
  notFound,
  unimplemented,
  unknown,
  type RpcError,
} from '../ttrpc/errors.ts';
import type { Program } from '../native/native.ts';
import { Descriptor } from './descriptor.ts';
import { findExecFifo } from './exec-fifo.ts';
import type { Exit, Reaper } from './reaper.ts';
import type { SealedRunc } from './sealed-runc.ts';
import { runtimeRoot } from './options.ts';
import { removeEnded } from './runc-removal.ts';
import { openScratch, readScratch } from './scratch.ts';
import { removeUnfinished } from './unfinished.ts';

/** What a process gets as one of its standard descriptors; `ignore` is /dev/null. */
export type Handed = number | 'ignore';

/** The standard descriptors of a process, in order. */
export type HandedStdio = readonly [Handed, Handed, Handed];

/** What runc is told about a process it starts. */
export interface Launch {
  readonly pidFile: string;
  readonly stdio: HandedStdio;
  /** Where to send the master of the terminal; there is a terminal exactly when this is said. */
  readonly consoleSocket?: string | undefined;
  /** Called when the runtime has its descriptors, so that the caller may close its own. */
  readonly onSpawned: () => void;
}

interface Invocation {
  readonly stdio?: HandedStdio;
  readonly onSpawned?: () => void;
  /** What it reads on standard input. */
  readonly input?: Descriptor;
  /** Where what it prints on standard output is wanted. */
  readonly output?: Descriptor;
  readonly log?: string;
}

/** A call of the OCI runtime, hooks included, may take this long; then it is killed. */
const TIMEOUT_MS = 120_000;

/** A deletion that somebody has killed is begun again, so often at most. */
const DELETIONS = 3;

/** What a process that SIGKILL has ended exits with. */
const KILLED = 128 + 9;

/** The cause of a failure: not the runtime's own, and not that it took too long. */
class Killed extends Error {}

/**
 * Variables that mean something to runc itself and are meant for the daemon: a NOTIFY_SOCKET or LISTEN_FDS that leaks into it
 * changes the container (runc's notify_socket.go, utils_linux.go).
 */
const NOT_FOR_RUNTIME = ['NOTIFY_SOCKET', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES'];

/** The OCI runtime, driven by its command line as runc defines it. Every failure is an RpcError with the runtime's own words. */
export class Runc {
  readonly #binary: string;
  /** Where the runtime keeps what it knows of the container. */
  readonly #state: string;
  readonly #id: string;
  readonly #bundle: string;
  readonly #options: Options;
  readonly #globals: readonly string[];
  readonly #reaper: Reaper;
  readonly #sealed: SealedRunc | undefined;
  #execs = 0;

  constructor(
    container: { id: string; namespace: string; bundle: string },
    options: Options,
    reaper: Reaper,
    sealed?: SealedRunc,
  ) {
    this.#id = container.id;
    this.#bundle = container.bundle;
    this.#options = options;
    this.#reaper = reaper;
    this.#sealed = sealed;
    this.#binary = options.binaryName || 'runc';
    const root = runtimeRoot(options, container.namespace);
    this.#state = join(root, container.id);
    this.#globals = [
      '--root',
      root,
      ...(options.criuPath === '' ? [] : ['--criu', options.criuPath]),
      ...(options.systemdCgroup ? ['--systemd-cgroup'] : []),
    ];
  }

  /** Without what runc keeps there of a container, it knows of none. Others may have none. */
  get stateFile(): string {
    return join(this.#state, 'state.json');
  }

  /** Creates the container; its init then waits for `start`. */
  async create(launch: Launch): Promise<void> {
    const { noPivotRoot, noNewKeyring } = this.#options;
    const args = [
      'create',
      '--bundle',
      this.#bundle,
      ...launchArguments(launch),
      ...(noPivotRoot ? ['--no-pivot'] : []),
      ...(noNewKeyring ? ['--no-new-keyring'] : []),
      this.#id,
    ];
    await this.#run(args, 'OCI runtime create failed', launch);
  }

  /**
   * The FIFO that the created container's init waits in, to be used instead of `start`. Only runc itself is known to do nothing else
   * there; what wraps it or stands in for it may.
   */
  execFifo(): string | undefined {
    return this.#isRunc ? findExecFifo(this.#state) : undefined;
  }

  /** Lets the container's init execute the program of the specification. */
  async start(): Promise<void> {
    await this.#run(['start', this.#id], 'OCI runtime start failed');
  }

  /** Runs another process in the container. `spec` is the `process` object of the OCI runtime specification. */
  async exec(spec: object, launch: Launch): Promise<void> {
    const name = join(this.#bundle, `exec-${this.#execs++}`);
    const specFile = `${name}.json`;
    // Of its own: what fails at the same time would take the last error of the other for its own.
    const log = `${name}.log`;
    writeFileSync(specFile, JSON.stringify(spec), { mode: 0o600 });
    const args = ['exec', '--detach', '--process', specFile, ...launchArguments(launch), this.#id];
    try {
      await this.#run(args, 'OCI runtime exec failed', { ...launch, log });
    } finally {
      remove(specFile);
      remove(log);
    }
  }

  /**
   * Removes what the runtime keeps of the container; kills it before when forced. Removing what it does not know is done
   * already.
   */
  async delete(how: { force: boolean } = { force: false }): Promise<void> {
    const args = ['delete', ...(how.force ? ['--force'] : []), this.#id];
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#run(args, 'failed to delete task');
      } catch (error) {
        if (messageOf(error).includes('does not exist')) return;
        if (!(error instanceof Error && error.cause instanceof Killed) || attempt === DELETIONS) throw error;
      }
    }
  }

  /**
   * Removes what is left of a creation that came to no end, also what the runtime does not know of.
   *
   * @param cgroupsPath of the specification
   * @throws RpcError when something remains
   */
  async deleteUnfinished(cgroupsPath: string): Promise<void> {
    // With systemd they are a unit, which goes when nothing is in it any more.
    const remove = async () => (this.#options.systemdCgroup ? [] : removeUnfinished(this.#id, cgroupsPath));
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.delete({ force: true });
        break;
      } catch (error) {
        if (attempt === DELETIONS) throw error;
        // A process that has been killed may leave its cgroup later than the runtime waits for it.
        await remove();
      }
    }
    const left = await remove();
    if (left.length > 0) throw internal(`cgroups that are in use remain: ${left.join(', ')}`);
  }

  /**
   * `delete` for a container that has ended with all its processes, and for whose deletion no hook waits. Only of runc itself, with the
   * cgroups that it makes by itself, is it known what has to be removed.
   */
  async deleteEnded(): Promise<void> {
    const isKnown = this.#isRunc && !this.#options.systemdCgroup;
    if (!isKnown || !(await removeEnded(this.#state))) await this.delete();
  }

  /** Sends a signal to the init, or to every process of the container. */
  async kill(signal: number, all: boolean): Promise<void> {
    const args = ['kill', ...(all ? ['--all'] : []), this.#id, String(signal)];
    await this.#run(args, 'OCI runtime kill failed');
  }

  async pause(): Promise<void> {
    await this.#run(['pause', this.#id], 'OCI runtime pause failed');
  }

  async resume(): Promise<void> {
    await this.#run(['resume', this.#id], 'OCI runtime resume failed');
  }

  /** @param resources JSON of `LinuxResources` */
  async update(resources: string): Promise<void> {
    using input = openScratch(this.#bundle, resources);
    await this.#run(['update', '--resources', '-', this.#id], 'OCI runtime update failed', {
      input,
    });
  }

  /** The pids of the container's processes, by the runtime's knowledge. */
  async ps(): Promise<number[]> {
    using output = openScratch(this.#bundle);
    await this.#run(['ps', '--format', 'json', this.#id], 'OCI runtime ps failed', {
      output,
    });
    return JSON.parse(readScratch(output)) as number[];
  }

  /**
   * Writes the state of the container's processes to `imagePath`. They go on running unless `exit` is asked for.
   *
   * @throws RpcError Unimplemented when criu, which does the work, is not on this host or cannot work here
   */
  async checkpoint(imagePath: string, workPath: string, options: CheckpointOptions): Promise<void> {
    const args = [
      'checkpoint',
      '--image-path',
      imagePath,
      '--work-path',
      workPath,
      ...(options.exit ? [] : ['--leave-running']),
      ...(options.openTcp ? ['--tcp-established'] : []),
      ...(options.externalUnixSockets ? ['--ext-unix-sk'] : []),
      ...(options.terminal ? ['--shell-job'] : []),
      ...(options.fileLocks ? ['--file-locks'] : []),
      ...options.emptyNamespaces.flatMap((namespace) => ['--empty-ns', namespace]),
      ...(options.cgroupsMode === '' ? [] : ['--manage-cgroups-mode', options.cgroupsMode]),
      this.#id,
    ];
    await this.#withCriu(args, 'OCI runtime checkpoint failed', join(workPath, 'dump.log'));
  }

  /** Creates and starts the container from what `checkpoint` has written. */
  async restore(imagePath: string, workPath: string, launch: Launch): Promise<void> {
    const args = [
      'restore',
      '--detach',
      '--no-subreaper',
      '--bundle',
      this.#bundle,
      '--image-path',
      imagePath,
      '--work-path',
      workPath,
      ...launchArguments(launch),
      ...(this.#options.noPivotRoot ? ['--no-pivot'] : []),
      this.#id,
    ];
    await this.#withCriu(args, 'OCI runtime restore failed', join(workPath, 'restore.log'), launch);
  }

  get #isRunc(): boolean {
    return basename(this.#binary) === 'runc';
  }

  /** Fails with criu's own last error, which the runtime only points to. */
  async #withCriu(args: string[], failure: string, log: string, invocation?: Invocation): Promise<void> {
    try {
      await this.#run(args, failure, invocation);
    } catch (error) {
      const [message = ''] = messageOf(error).split('\n');
      const text = readIfThere(log).toString();
      const reason = [...text.matchAll(/Error \([^)]*\): (.*)/g)].at(-1)?.[1];
      const words = reason === undefined ? message : `${message}: ${reason} (see ${log})`;
      // kerndat: criu looks at what the kernel can do before it touches any process.
      const isUnable = /criu.*(not found|no such file)/i.test(message) || text.includes('kerndat');
      throw (isUnable ? unimplemented : failedPrecondition)(words, error);
    }
  }

  /** Runs the runtime to its end. */
  async #run(args: string[], failure: string, invocation: Invocation = {}): Promise<void> {
    const log = invocation.log ?? join(this.#bundle, 'runc.log');
    // Not pipes: a hook that leaves a process behind would hold them open, and so hold up the call.
    using stderr = new Descriptor(openSync(log, 'a', 0o600));
    const before = fstatSync(stderr.fd).size;
    const { input, output } = invocation;
    const program = {
      args: [...this.#globals, '--log', log, '--log-format', 'json', ...args],
      environment: environment(),
      // The bundle may be gone when the last call is made.
      cwd: '/',
      descriptors: invocation.stdio ?? [input?.fd ?? 'ignore', output?.fd ?? 'ignore', stderr.fd],
    };
    const { exit, hasTimedOut } = await this.#toItsEnd(program, invocation).catch((error: unknown) => {
      throw unstarted(this.#binary, failure, error);
    });
    if (exit.status === 0) return;
    const outcome = hasTimedOut ? `killed after ${TIMEOUT_MS / 1000} s` : `exit status ${exit.status}`;
    const words = lastError(readIfThere(log).subarray(before).toString());
    const cause = exit.status === KILLED && !hasTimedOut ? new Killed(outcome) : undefined;
    throw unknown(
      `${failure}: ${words ?? `${this.#binary} did not terminate successfully: ${outcome}`}`,
      cause,
    );
  }

  /** @throws what `spawn` does */
  async #toItsEnd(
    program: Omit<Program, 'file'>,
    { onSpawned }: Invocation,
  ): Promise<{ exit: Exit; hasTimedOut: boolean }> {
    const start = this.#sealed?.start(this.#binary, this.#bundle);
    if (start?.passing !== undefined) {
      try {
        return await this.#reaper.run({ ...program, ...start }, TIMEOUT_MS, onSpawned);
      } catch {
        // Nothing has begun. What is wrong with the copy, or with the program itself, shows when that is started.
        this.#sealed?.close();
      }
    }
    return this.#reaper.run({ ...program, file: this.#binary }, TIMEOUT_MS, onSpawned);
  }
}

function launchArguments(launch: Launch): string[] {
  const { pidFile, consoleSocket } = launch;
  const console = consoleSocket === undefined ? [] : ['--console-socket', consoleSocket];
  return ['--pid-file', pidFile, ...console];
}

function environment(): NodeJS.ProcessEnv {
  const variables = { ...process.env };
  for (const name of NOT_FOR_RUNTIME) delete variables[name];
  return variables;
}

function unstarted(binary: string, failure: string, error: unknown): RpcError {
  if (!(error instanceof Error) || !('code' in error) || error.code !== 'ENOENT')
    return unknown(`${failure}: ${messageOf(error)}`, error);
  const where = binary.includes('/') ? 'no such file or directory' : 'executable file not found in $PATH';
  return notFound(`${failure}: exec: "${binary}": ${where}`);
}

/**
 * The runtime's own last error in what it wrote: the message of the last JSON line of level error, or else the last line that
 * is no JSON; undefined when it said nothing.
 */
export function lastError(text: string): string | undefined {
  let logged: string | undefined;
  let plain: string | undefined;
  for (const line of text.split('\n')) {
    try {
      const entry = JSON.parse(line) as { level?: unknown; msg?: unknown };
      if (entry.level === 'error' && typeof entry.msg === 'string') logged = entry.msg.trim();
    } catch {
      plain = line.trim() || plain;
    }
  }
  return logged ?? plain;
}

/** A log; empty without one. */
function readIfThere(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return Buffer.alloc(0);
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
