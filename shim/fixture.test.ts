/** A daemon, containers and clients for the shim's tests: real FIFOs, real runc, a root filesystem of busybox. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
} from 'node:fs';
import { readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { listenUnix, mkfifo } from '../native/native.ts';
import { TaskExit } from '../proto/gen/containerd/events/task.ts';
import { EventsDefinition } from '../proto/gen/containerd/services/events_ttrpc.ts';
import { SandboxDefinition } from '../proto/gen/containerd/runtime/sandbox.ts';
import { TaskDefinition } from '../proto/gen/containerd/task/v2.ts';
import { TaskDefinition as TaskV3Definition } from '../proto/gen/containerd/task/v3.ts';
import type { Any } from '../proto/gen/google/protobuf/any.ts';
import { ShimDefinition } from '../proto/gen/moor/shim/v1.ts';
import { TtrpcClient } from '../ttrpc/client.ts';
import { TtrpcServer } from '../ttrpc/server.ts';
import type { ServiceClient } from '../ttrpc/service.ts';
import type { Envelope } from './publisher.ts';

const MAIN = new URL('main.ts', import.meta.url).pathname;
const WAIT_MS = 30_000;

/** Resolves when `check` returns something; looks again whenever asked, and every few milliseconds. */
export async function eventually<T>(what: string, check: () => T | undefined | false): Promise<T> {
  const deadline = performance.now() + WAIT_MS;
  for (;;) {
    const found = check();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > deadline) throw new Error(`timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A folder of its own for everything a test makes. */
export class Workshop implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'moor-shim-test-'));
  readonly namespace = `test-${randomBytes(4).toString('hex')}`;
  readonly rootfs = join(this.folder, 'rootfs');
  readonly #shims: Shim[] = [];
  readonly #daemons: Daemon[] = [];

  constructor() {
    for (const each of ['bin', 'proc', 'dev', 'sys', 'tmp', 'etc']) {
      mkdirSync(join(this.rootfs, each), { recursive: true });
    }
    copyFileSync('/bin/busybox', join(this.rootfs, 'bin/busybox'));
    execFileSync('chroot', [this.rootfs, '/bin/busybox', '--install', '/bin'], { stdio: 'ignore' });
  }

  async daemon(path = join(this.folder, 'events.sock')): Promise<Daemon> {
    const daemon = new Daemon(path);
    this.#daemons.push(daemon);
    await daemon.start();
    return daemon;
  }

  /** A shim that serves, and nothing else yet. */
  async shim(options: ShimOptions = {}): Promise<Shim> {
    const shim = new Shim(this, options);
    this.#shims.push(shim);
    await shim.connect();
    return shim;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const shim of this.#shims) await shim.destroy();
    for (const daemon of this.#daemons) await daemon.stop();
    // The runtime removes the cgroups of its containers, and not what they were in.
    for (const tree of readdirSync('/sys/fs/cgroup')) {
      const folder = join('/sys/fs/cgroup', tree, this.namespace);
      if (existsSync(folder)) rmdirSync(folder);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The daemon's end of the events. */
export class Daemon {
  readonly path: string;
  readonly events: Envelope[] = [];
  #server: TtrpcServer | undefined;

  constructor(path: string) {
    this.path = path;
  }

  async start(): Promise<void> {
    rmSync(this.path, { force: true });
    this.#server = new TtrpcServer();
    this.#server.add(EventsDefinition, {
      forward: async ({ envelope }) => {
        this.events.push(envelope as Envelope);
        return {};
      },
    });
    await this.#server.listen(this.path);
  }

  async stop(): Promise<void> {
    await this.#server?.close({ graceMs: 0 });
    this.#server = undefined;
  }

  topics(): string[] {
    return this.events.map(({ topic }) => topic.replace('/tasks/', ''));
  }

  /** The exit of a process: of the init without an exec's id. */
  exit(containerId: string, id = containerId): Promise<TaskExit> {
    return eventually(`the exit of ${id}`, () =>
      this.events
        .filter(({ topic }) => topic === '/tasks/exit')
        .map(({ event }) => TaskExit.decode(event.value))
        .find((exit) => exit.containerId === containerId && exit.id === id),
    );
  }
}

export interface ShimOptions {
  readonly id?: string;
  readonly daemon?: Daemon;
  readonly environment?: Record<string, string>;
}

/** What a container's specification may differ in. */
export interface SpecOptions {
  readonly args?: readonly string[];
  readonly terminal?: boolean;
  /** Without a PID namespace of its own. */
  readonly hostPid?: boolean;
  readonly memoryLimit?: number;
}

export class Shim {
  readonly id: string;
  readonly bundle: string;
  readonly socket: string;
  readonly process: ChildProcess;
  task!: ServiceClient<typeof TaskDefinition>;
  taskV3!: ServiceClient<typeof TaskV3Definition>;
  moor!: ServiceClient<typeof ShimDefinition>;
  sandbox!: ServiceClient<typeof SandboxDefinition>;
  readonly #workshop: Workshop;
  #client: TtrpcClient | undefined;

  constructor(workshop: Workshop, { id, daemon, environment }: ShimOptions) {
    this.#workshop = workshop;
    this.id = id ?? `c${randomBytes(4).toString('hex')}`;
    this.bundle = join(workshop.folder, this.id);
    mkdirSync(this.bundle, { mode: 0o711 });
    this.socket = join(workshop.folder, `${this.id}.s`);
    const listening = listenUnix(this.socket, 16);
    const log = openSync(join(this.bundle, 'log'), 'a');
    const { namespace } = workshop;
    const args = ['serve', '-namespace', namespace, '-id', this.id, '-bundle', this.bundle, '-debug'];
    this.process = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], {
      cwd: this.bundle,
      detached: true,
      stdio: ['ignore', log, log, listening],
      env: {
        PATH: process.env['PATH'],
        TTRPC_ADDRESS: daemon?.path ?? '',
        MOOR_RUNC_ROOT: join(workshop.folder, 'runc'),
        ...environment,
      },
    });
    closeSync(listening);
    closeSync(log);
  }

  get pid(): number {
    return this.process.pid!;
  }

  get log(): string {
    return readFileSync(join(this.bundle, 'log'), 'utf8');
  }

  async connect(): Promise<void> {
    this.#client?.close();
    this.#client = await TtrpcClient.connect(this.socket);
    this.task = this.#client.service(TaskDefinition);
    this.taskV3 = this.#client.service(TaskV3Definition);
    this.moor = this.#client.service(ShimDefinition);
    this.sandbox = this.#client.service(SandboxDefinition);
  }

  writeSpec(options: SpecOptions = {}): void {
    writeFileSync(join(this.bundle, 'config.json'), JSON.stringify(this.spec(options)));
  }

  /** Writes a specification and creates the container from it. */
  create(options: SpecOptions & Partial<Stdio> & { options?: Any } = {}) {
    this.writeSpec(options);
    const { stdin, stdout, stderr, terminal, options: runtimeOptions } = options;
    return this.task.create({
      id: this.id,
      bundle: this.bundle,
      rootfs: [{ type: 'bind', source: this.#workshop.rootfs, options: ['rbind', 'rw'] }],
      stdin,
      stdout,
      stderr,
      terminal,
      options: runtimeOptions,
    });
  }

  start() {
    return this.task.start({ id: this.id });
  }

  async run(options: Parameters<Shim['create']>[0]): Promise<number> {
    await this.create(options);
    return (await this.start()).pid;
  }

  async exec(execId: string, args: readonly string[], stdio: Partial<Stdio> = {}): Promise<number> {
    const { terminal = false } = stdio;
    const spec = {
      typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process',
      value: processSpec(args, terminal),
    };
    await this.task.exec({ id: this.id, execId, ...stdio, spec });
    return (await this.task.start({ id: this.id, execId })).pid;
  }

  wait(execId = '') {
    return this.task.wait({ id: this.id, execId });
  }

  delete(execId = '') {
    return this.task.delete({ id: this.id, execId });
  }

  state(execId = '') {
    return this.task.state({ id: this.id, execId });
  }

  kill(signal: number, execId = '', all = false) {
    return this.task.kill({ id: this.id, execId, signal, all });
  }

  /** Ends the container and the shim, by force if they do not. */
  async destroy(): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const gone = new Promise((resolve) => this.process.once('exit', resolve));
      process.kill(this.pid, 'SIGKILL');
      await gone;
    }
    this.#client?.close();
    this.command('delete');
  }

  /** Runs a command of the shim binary contract. */
  command(action: string): Buffer {
    const { namespace, folder } = this.#workshop;
    const args = ['-namespace', namespace, '-id', this.id, '-bundle', this.bundle, action];
    return execFileSync(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], {
      cwd: existsSync(this.bundle) ? this.bundle : folder,
      env: { PATH: process.env['PATH'], MOOR_RUNC_ROOT: join(folder, 'runc') },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  spec({ args = ['sleep', '1000'], terminal = false, hostPid = false, memoryLimit }: SpecOptions): object {
    const namespaces = ['ipc', 'uts', 'mount', ...(hostPid ? [] : ['pid'])].map((type) => ({ type }));
    return {
      ociVersion: '1.0.2',
      process: JSON.parse(processSpec(args, terminal).toString()) as object,
      root: { path: 'rootfs' },
      hostname: 'test',
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        {
          destination: '/dev',
          type: 'tmpfs',
          source: 'tmpfs',
          options: ['nosuid', 'mode=755', 'size=65536k'],
        },
        {
          destination: '/dev/pts',
          type: 'devpts',
          source: 'devpts',
          options: ['newinstance', 'ptmxmode=0666'],
        },
      ],
      linux: {
        cgroupsPath: `/${this.#workshop.namespace}/${this.id}`,
        namespaces,
        ...(memoryLimit === undefined
          ? {}
          : { resources: { memory: { limit: memoryLimit, swap: memoryLimit } } }),
      },
    };
  }
}

/** The `process` object of a specification. */
export function processSpec(args: readonly string[], terminal = false): Buffer {
  const all = ['CAP_KILL', 'CAP_SYS_ADMIN', 'CAP_SETUID', 'CAP_SETGID'];
  return Buffer.from(
    JSON.stringify({
      terminal,
      user: { uid: 0, gid: 0 },
      args,
      env: ['PATH=/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: { bounding: all, effective: all, permitted: all },
    }),
  );
}

export interface Stdio {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

/** A client's end of one output FIFO. */
export class Reader {
  readonly path: string;
  #chunks: Buffer[] = [];
  #length = 0;
  #ended = false;
  #socket: Socket | undefined;

  constructor(folder: string, name: string) {
    this.path = join(folder, `${name}-${randomBytes(4).toString('hex')}`);
    mkfifo(this.path, 0o600);
  }

  /** Begins to read, as a client does before it asks for the process. */
  open(): this {
    const fd = openSync(this.path, constants.O_RDONLY | constants.O_NONBLOCK);
    this.#ended = false;
    this.#socket = new Socket({ fd, readable: true, writable: false });
    this.#socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#length += chunk.length;
    });
    this.#socket.on('end', () => (this.#ended = true));
    return this;
  }

  /** Leaves, as a client does that is killed. */
  leave(): void {
    this.#socket?.destroy();
  }

  /** Whether its end is closed. */
  get closed(): boolean {
    return this.#socket?.closed === true;
  }

  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  get length(): number {
    return this.#length;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get text(): string {
    return this.bytes.toString();
  }

  get ended(): boolean {
    return this.#ended;
  }

  async end(): Promise<string> {
    await eventually(`the end of ${this.path}`, () => this.#ended);
    return this.text;
  }

  says(text: string): Promise<true> {
    return eventually(`"${text}" in ${this.path}, which has ${JSON.stringify(this.text.slice(-200))}`, () =>
      this.text.includes(text) ? true : undefined,
    );
  }
}
