/** Private daemons, of either kind: each with its own directory, sockets and namespaces, side by side on one host. */
import { spawn, execFileSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createConnection } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { VersionDefinition } from '../../proto/gen/containerd/services/version.ts';
import { Code } from '../../ttrpc/errors.ts';
import { pidsIn, removeCgroups } from './cgroups.ts';
import { Ctr } from './ctr.ts';
import { alive, commandLine, killProcess, processOf, processes, workingDirectory } from './processes.ts';
import { Connection, type Failure } from './rpc.ts';
import { PATIENCE, soon } from './wait.ts';

/** The kinds of daemon under test: ours, and Debian's containerd as the reference. */
export type Peer = 'moord' | 'containerd';

export interface DaemonOptions {
  /** TOML added to the daemon's configuration file. */
  readonly config?: string;
  /** What it is started by; the moord of this checkout, or containerd, unless given. */
  readonly program?: string;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Where it keeps what is durable, and what is not; below its directory unless given. */
  readonly root?: string;
  readonly state?: string;
  /** Where it listens; a socket in its directory unless given. */
  readonly address?: string;
  /** With containerd's CRI, which only its own comparisons need. Ours is always there. */
  readonly cri?: boolean;
}

const repository = resolve(import.meta.dirname, '../..');

/** The kinds' shim, by absolute path as `--runtime` takes it. */
export const shimBinary: Readonly<Record<Peer, string>> = {
  moord: join(repository, 'bin/containerd-shim-moor-v1'),
  containerd: '/usr/bin/containerd-shim-runc-v2',
};

/** Where nothing is built, the launchers run the sources. */
const built = ['moord.cjs', 'shim.js'].every((name) => existsSync(join(repository, 'dist', name)));
const sources = built ? {} : { MOOR_SOURCES: '1' };

const running = new Set<ChildProcess>();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

/** Moor has a template that shims are forked from, where a suite has no choice of its own (`TEST_SHIM_SPAWN`). */
export const isForking = process.env['TEST_SHIM_SPAWN'] !== 'exec';

/** A daemon with its own directory. It can be killed and started again over the same state as often as one likes. */
export class Daemon implements AsyncDisposable {
  readonly peer: Peer;
  /** Short, because a unix socket's path holds 107 bytes; everything of this daemon is below it. */
  readonly directory: string;
  readonly address: string;
  readonly root: string;
  readonly state: string;
  /** What the daemon printed, over all its lives. */
  readonly log: string;
  /** What its next life runs. */
  program: string;
  readonly #options: DaemonOptions;
  readonly #namespaces = new Set<string>();
  readonly #users = new AsyncDisposableStack();
  #child: ChildProcess | undefined;

  private constructor(peer: Peer, options: DaemonOptions) {
    this.peer = peer;
    this.#options = options;
    this.directory = mkdtempSync('/tmp/m-');
    this.address = options.address ?? join(this.directory, 'd.sock');
    this.root = options.root ?? join(this.directory, 'root');
    this.state = options.state ?? join(this.directory, 'state');
    this.log = join(this.directory, 'log');
    this.program = options.program ?? (peer === 'containerd' ? 'containerd' : join(repository, 'bin/moord'));
  }

  /** Starts a daemon and returns when it answers. */
  static async start(peer: Peer, options: DaemonOptions = {}): Promise<Daemon> {
    const daemon = new Daemon(peer, options);
    try {
      await daemon.start();
    } catch (error) {
      await daemon.stop();
      throw error;
    }
    return daemon;
  }

  /** The daemon's process. */
  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('the daemon is not running');
    return pid;
  }

  /** Where the kind keeps the bundle of a task. */
  bundle(namespace: string, id: string): string {
    const tasks = this.peer === 'moord' ? 'tasks' : 'io.containerd.runtime.v2.task';
    return join(this.state, tasks, namespace, id);
  }

  /** The directory under which the kind's shim keeps runc's state of a namespace. */
  runcRoot(namespace: string): string {
    return join(this.peer === 'moord' ? join(this.state, 'runc') : '/run/containerd/runc', namespace);
  }

  /** Debian's ctr against this daemon, in a namespace no other daemon on the host has (unless named). */
  ctr(namespace = `n${Math.random().toString(36).slice(2, 10)}`): Ctr {
    this.#namespaces.add(namespace);
    return new Ctr(this.address, namespace, join(this.directory, 'fifo'));
  }

  /** Every namespace that ctr() was asked for. */
  get namespaces(): ReadonlySet<string> {
    return this.#namespaces;
  }

  connect(): Connection {
    return new Connection(this.address);
  }

  /** Starts the daemon (again) and returns when it answers a call; milliseconds it took. */
  async start(): Promise<number> {
    const began = performance.now();
    this.launch();
    await this.ready();
    return performance.now() - began;
  }

  /** Starts the daemon without waiting for anything. */
  launch(): void {
    const [command, ...args] = this.commandLine();
    const log = openSync(this.log, 'a');
    try {
      const child = spawn(command as string, args, {
        stdio: ['ignore', log, log],
        env: { ...process.env, ...sources, ...this.#options.env },
      });
      running.add(child);
      child.once('exit', () => running.delete(child));
      this.#child = child;
    } finally {
      closeSync(log);
    }
  }

  /** Waits until the daemon answers. Fails with its log when it ends instead, or takes longer than it may. */
  async ready(): Promise<void> {
    const child = this.#child;
    const ended = () => child === undefined || child.exitCode !== null || child.signalCode !== null;
    const deadline = performance.now() + PATIENCE;
    for (;;) {
      if (ended()) throw new Error(`${this.peer} ended at start:\n${this.tail()}`);
      if (performance.now() > deadline) throw new Error(`${this.peer} does not answer:\n${this.tail()}`);
      if (await this.#serves()) return;
      await delay(2);
    }
  }

  /** Whether a call is answered. One to a daemon that was killed may be taken by the kernel, and is cut off then. */
  async #serves(): Promise<boolean> {
    if (!(await accepts(this.address))) return false;
    using connection = this.connect();
    try {
      await connection.service(VersionDefinition).version({});
      return true;
    } catch (error) {
      if ((error as Failure).code === Code.Unavailable) return false;
      throw error;
    }
  }

  /** kill -9, the ordinary way to stop it; returns when the process is gone. */
  async kill9(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** Resolves when the daemon has ended, whatever ended it; at once when it is not running. */
  async ended(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    await once(child, 'exit');
  }

  /** SIGTERM: a stop that lets calls finish; SIGKILL when it takes too long. */
  async terminate(): Promise<void> {
    await this.#end('SIGTERM');
  }

  /** kill -9 and start; milliseconds from the start to its first answer. */
  async restart(): Promise<number> {
    await this.kill9();
    return this.start();
  }

  /** Length of the log now, as tail() takes it. */
  logged(): number {
    return existsSync(this.log) ? statSync(this.log).size : 0;
  }

  /** The last lines of the log, at most back to a length it once had. */
  tail(since = 0, lines = 40): string {
    const log = existsSync(this.log) ? readFileSync(this.log).subarray(since).toString().trimEnd() : '';
    const telling = (line: string) => !/loading plugin|starting signal loop/.test(line);
    const { exitCode = null, signalCode = null } = this.#child ?? {};
    const end = exitCode === null && signalCode === null ? [] : [`(ended by ${signalCode ?? exitCode})`];
    return [...log.split('\n').filter(telling).slice(-lines), ...end].join('\n');
  }

  /** Shims of this daemon: processes whose command line or working directory is in its directory. */
  shims(): number[] {
    return processes()
      .map(({ pid }) => pid)
      .filter((pid) => pid !== this.#child?.pid && pid !== process.pid)
      .filter((pid) => this.#mine(pid));
  }

  /** Has something that runs on this daemon end before it does. */
  use<T extends AsyncDisposable>(user: T): T {
    return this.#users.use(user);
  }

  /** Ends the daemon, its containers and shims, and removes everything it made. */
  async stop(): Promise<void> {
    await this.#users.disposeAsync();
    if (this.#child !== undefined) await this.#end('SIGTERM');
    for (const pid of this.shims()) await killProcess(pid);
    for (const namespace of this.#namespaces) {
      for (const pid of pidsIn(namespace)) await killProcess(pid);
      removeCgroups(namespace);
      rmSync(this.runcRoot(namespace), { recursive: true, force: true });
      rmSync(join('/run/containerd/runc', namespace), { recursive: true, force: true });
    }
    for (const mount of mountsBelow(this.directory).reverse()) execFileSync('umount', ['-l', mount]);
    rmSync(this.directory, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** The command that starts this daemon, for tests that start a second one over the same directories. */
  commandLine(): string[] {
    const config = join(this.directory, 'config.toml');
    writeFileSync(config, `version = 2\n${this.#plugins()}${this.#options.config ?? ''}${this.#spawn()}`);
    const flags = ['--address', this.address, '--root', this.root, '--state', this.state, '--config', config];
    return [this.program, ...flags, '--log-level', process.env['TEST_LOG_LEVEL'] ?? 'info'];
  }

  #plugins(): string {
    if (this.peer === 'moord') return '';
    const unneeded = ['internal.v1.opt', 'tracing.processor.v1.otlp'].concat(
      this.#options.cri === true ? [] : ['grpc.v1.cri'],
      ['aufs', 'btrfs', 'zfs', 'devmapper'].map((name) => `snapshotter.v1.${name}`),
    );
    return `disabled_plugins = [${unneeded.map((name) => `"io.containerd.${name}"`).join(', ')}]\n`;
  }

  /** `TEST_SHIM_SPAWN=exec` has all shims started afresh, but where a suite has a choice of its own. */
  #spawn(): string {
    const spawn = process.env['TEST_SHIM_SPAWN'];
    const isOurs = this.peer === 'moord';
    if (!isOurs || spawn === undefined || this.#options.config?.includes('[shim]') === true) return '';
    // At the end, where it changes no number of a line.
    return `\n[shim]\nspawn = "${spawn}"\n`;
  }

  #mine(pid: number): boolean {
    const below = (path: string) => path === this.directory || path.startsWith(`${this.directory}/`);
    if (below(workingDirectory(pid))) return true;
    if (processOf(pid)?.name === 'ctr') return false;
    return commandLine(pid).includes(`${this.directory}/`);
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await soon(`${this.peer} ends on ${signal}`, exited).catch(async () => {
      child.kill('SIGKILL');
      await exited;
    });
  }
}

/** Mount points at or below a directory, in the order they were mounted. */
export function mountsBelow(directory: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point === directory || point.startsWith(`${directory}/`));
}

/** Whether a process of the container is left; containers of ctr live in the cgroup `/<namespace>/<id>`. */
export function containerPids(namespace: string, id: string): number[] {
  return pidsIn(join(namespace, id)).filter(alive);
}

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
