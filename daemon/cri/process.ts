/** Processes of containers as somebody is connected to them: by exec, or attached to the first one. */
import { randomBytes } from 'node:crypto';
import { constants, mkdirSync, openSync, readdirSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import { mkfifo } from '../../native/native.ts';
import type { Process as ProcessSpec, Spec } from '../../oci/spec.ts';
import { withEnvironment } from '../../oci/environment.ts';
import { pack, PROCESS_TYPE } from '../../oci/packed.ts';
import { Code, failedPrecondition, invalidArgument, isCode } from '../../ttrpc/errors.ts';
import { type ContainerId, type ExecId, parseExecId } from '../identifiers.ts';
import type { Task } from '../runtime/task.ts';
import type { Cri } from './cri.ts';
import { type PodContainer, stateName } from './pod.ts';
import { KUBERNETES } from './registry.ts';
import { taskOf } from './remains.ts';
import type { AttachSession, ExecSession, RemoteProcess, Wanted } from './streaming/session.ts';
import type { TerminalSize } from './streaming/terminal-size.ts';

type ExecRequest = Omit<ExecSession, 'kind'>;
type AttachRequest = Omit<AttachSession, 'kind' | 'tty'>;

const SIGKILL = 9;
/** Milliseconds that the end of a killed process may take. */
const KILL_TIMEOUT_MS = 10_000;
const { O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/**
 * Runs a program in a container.
 *
 * @param signal ends the wait for the beginning
 * @throws RpcError NotFound; FailedPrecondition for a container that does not run; what the runtime says of the program
 */
export async function exec(cri: Cri, request: ExecRequest, signal: AbortSignal): Promise<RemoteProcess> {
  const container = runningContainer(cri, request.containerId);
  if (request.command.length === 0) throw invalidArgument('no command to execute: invalid argument');
  const task = cri.tasks.get(KUBERNETES, container.id as ContainerId);
  const execId = parseExecId(randomBytes(16).toString('hex'));
  const fifos = new Fifos(join(execsOf(cri), `${container.id}.${execId}`), request);
  try {
    const spec = pack(PROCESS_TYPE, processSpec(cri, container, request));
    const { stdin, stdout, stderr } = fifos.paths;
    const io = { stdin, stdout, stderr, terminal: request.tty };
    await task.exec({ execId, ...io, spec }, signal);
    await startExec(task, execId, signal);
    return new ExecProcess(task, execId, fifos);
  } catch (error) {
    fifos.close();
    throw error;
  }
}

/** Where the named pipes of execs are, which also say what execs there are. */
function execsOf({ state }: Pick<Cri, 'state'>): string {
  return join(state, 'execs');
}

/** Ends what a daemon before this one was running for clients that it has lost. Never rejects. */
export async function endExecs(cri: Cri): Promise<void> {
  const directory = execsOf(cri);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  await Promise.all(
    readdirSync(directory).map(async (name) => {
      const [containerId = '', execId = ''] = name.split('.');
      const task = taskOf(cri, containerId);
      if (task !== undefined) await removeExec(task, execId as ExecId);
      rmSync(join(directory, name), { recursive: true, force: true });
    }),
  );
}

/** One that does not start is not left behind. */
async function startExec(task: Task, execId: ExecId, signal: AbortSignal): Promise<void> {
  try {
    await task.start(execId, signal);
  } catch (error) {
    await removeExec(task, execId);
    throw error;
  }
}

async function removeExec(task: Task, execId: ExecId): Promise<void> {
  const late = AbortSignal.timeout(KILL_TIMEOUT_MS);
  try {
    await task.kill({ execId, signal: SIGKILL }, late).catch(ignoreOver);
    await task.wait(execId, late).catch(ignoreOver);
    await task.deleteExec(execId, late);
  } catch (error) {
    // With its container it goes, too.
    if (!isCode(error, Code.NotFound)) task.log.warn({ err: error, execId }, 'an exec is left behind');
  }
}

/** What it says of a process that is not there (any more) is what was wanted. */
function ignoreOver(error: unknown): void {
  if (isCode(error, Code.NotFound) || isCode(error, Code.FailedPrecondition)) return;
  throw error;
}

/** @throws RpcError NotFound, FailedPrecondition */
export function runningContainer(cri: Cri, id: string): PodContainer {
  const container = cri.containers.get(id);
  if (container.state?.$case !== 'running')
    throw failedPrecondition(`container ${container.id} is in ${stateName(container)} state`);
  return container;
}

/** As the container's own process, but for the program. */
function processSpec(cri: Cri, { id }: PodContainer, { command, tty }: ExecRequest): ProcessSpec {
  const { spec } = cri.metadata.containers.get(KUBERNETES, id as ContainerId);
  const { process } = JSON.parse(Buffer.from(spec?.value ?? '{}').toString()) as Spec;
  if (process === undefined) throw failedPrecondition(`container ${id} has no process to be like`);
  const env = tty ? withEnvironment(process.env ?? [], ['TERM=xterm']) : process.env;
  return { ...process, terminal: tty, args: [...command], env };
}

/** The named pipes between the shim and this process, for as long as the exec lives. */
class Fifos {
  readonly paths: { readonly stdin: string; readonly stdout: string; readonly stderr: string };
  readonly stdout: Socket | undefined;
  readonly stderr: Socket | undefined;
  readonly #directory: string;
  #stdin: Socket | undefined;

  constructor(directory: string, { stdin, stdout, stderr, tty }: Wanted) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const path = (name: string, isWanted: boolean): string => {
      if (!isWanted) return '';
      mkfifo(join(directory, name), 0o600);
      return join(directory, name);
    };
    this.paths = {
      stdin: path('stdin', stdin),
      // A terminal's output is always read: a process must not stand still for nobody listening.
      stdout: path('stdout', stdout || tty),
      stderr: path('stderr', stderr && !tty),
    };
    this.stdout = reader(this.paths.stdout);
    this.stderr = reader(this.paths.stderr);
    if (!stdout) this.stdout?.resume();
  }

  /** Once the shim has its end. */
  openStdin(): Socket | undefined {
    const path = this.paths.stdin;
    if (path === '') return undefined;
    this.#stdin = new Socket({ fd: openSync(path, O_WRONLY | O_NONBLOCK), readable: false, writable: true });
    // EPIPE: the process does not want it.
    this.#stdin.on('error', () => {});
    return this.#stdin;
  }

  close(): void {
    for (const socket of [this.#stdin, this.stdout, this.stderr]) socket?.destroy();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

function reader(path: string): Socket | undefined {
  if (path === '') return undefined;
  return new Socket({ fd: openSync(path, O_RDONLY | O_NONBLOCK), readable: true, writable: false });
}

class ExecProcess implements RemoteProcess {
  readonly stdin: Writable | undefined;
  readonly stdout: Readable | undefined;
  readonly stderr: Readable | undefined;
  readonly exited: Promise<number>;
  readonly #task: Task;
  readonly #execId: ExecId;
  readonly #fifos: Fifos;
  #isOver = false;

  constructor(task: Task, execId: ExecId, fifos: Fifos) {
    this.#task = task;
    this.#execId = execId;
    this.#fifos = fifos;
    this.stdout = fifos.stdout;
    this.stderr = fifos.stderr;
    this.stdin = fifos.openStdin();
    this.stdin?.once('finish', () => void this.#closeStdin());
    this.exited = task.wait(execId, NEVER).then(({ status }) => {
      this.#isOver = true;
      return status;
    });
    this.exited.catch(() => {});
  }

  async resize(size: TerminalSize): Promise<void> {
    if (!this.#isOver) await this.#task.resizePty(this.#execId, size, NEVER).catch(ignoreOver);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fifos.close();
    await removeExec(this.#task, this.#execId);
  }

  async #closeStdin(): Promise<void> {
    try {
      await this.#task.closeStdin(this.#execId, NEVER);
    } catch {
      // It has ended, which ends its input, too.
    }
  }
}

const NEVER = new AbortController().signal;

/**
 * Connects to the first process of a container. Its output is copied from now on.
 *
 * @param signal ends the connection
 * @throws RpcError NotFound; FailedPrecondition for a container that does not run, or takes no input when there is to be some
 */
export async function attach(cri: Cri, request: AttachRequest, signal: AbortSignal): Promise<RemoteProcess> {
  const { id, config } = runningContainer(cri, request.containerId);
  const task = cri.tasks.get(KUBERNETES, id as ContainerId);
  const gone = new AbortController();
  const connected = AbortSignal.any([signal, gone.signal]);
  const input = request.stdin ? new PassThrough() : undefined;
  const output = await task.attach(input, connected);
  const stdout = request.stdout ? new PassThrough() : undefined;
  const stderr = request.stderr && config?.tty !== true ? new PassThrough() : undefined;
  const exited = deliver(output, stdout, stderr).then(() => undefined);
  return {
    stdin: input,
    stdout,
    stderr,
    exited,
    resize: (size) => task.resizePty('', size, connected).catch(ignoreOver),
    async [Symbol.asyncDispose]() {
      gone.abort();
      input?.destroy();
      await exited;
    },
  };
}

/** Never rejects: a connection that breaks off is over. */
async function deliver(
  output: AsyncIterable<{ readonly stdout: Uint8Array; readonly stderr: Uint8Array }>,
  ...[stdout, stderr]: (Writable | undefined)[]
): Promise<void> {
  try {
    for await (const heard of output) {
      await write(stdout, heard.stdout);
      await write(stderr, heard.stderr);
    }
  } catch {
    // The caller has gone, or the container with its shim.
  } finally {
    stdout?.end();
    stderr?.end();
  }
}

async function write(stream: Writable | undefined, bytes: Uint8Array): Promise<void> {
  if (stream === undefined || bytes.length === 0 || stream.destroyed || stream.write(bytes)) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.once('drain', resolve);
  stream.once('close', resolve);
  await promise;
}
