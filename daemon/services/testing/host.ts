/** A private place with a root file system, where a task daemon is started and killed, and what it leaves behind is seen. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Container } from '../../../proto/gen/containerd/services/containers.ts';
import { TasksDefinition } from '../../../proto/gen/containerd/services/tasks.ts';
import { Options } from '../../../proto/gen/containerd/runtime/runc.ts';
import { TtrpcClient } from '../../../ttrpc/client.ts';
import type { CallOptions, ServiceClient } from '../../../ttrpc/service.ts';

export type Tasks = ServiceClient<typeof TasksDefinition>;

export interface PublishedEvent {
  readonly namespace: string;
  readonly topic: string;
  readonly container?: string;
  readonly id?: string;
  readonly status?: number;
}

const program = fileURLToPath(new URL('daemon.ts', import.meta.url));

export class Host {
  readonly directory = mkdtempSync('/tmp/mt-');
  readonly namespace = `mt${process.pid}`;
  readonly rootfs = join(this.directory, 'fs');
  readonly as: CallOptions = { metadata: [['containerd-namespace', this.namespace]] };
  #daemon: ChildProcess | undefined;
  #client: TtrpcClient | undefined;
  tasks!: Tasks;

  constructor() {
    for (const name of ['bin', 'proc', 'dev', 'sys', 'tmp'])
      mkdirSync(join(this.rootfs, name), { recursive: true });
    copyFileSync('/bin/busybox', join(this.rootfs, 'bin/busybox'));
    for (const name of ['sh', 'sleep', 'cat', 'echo', 'true'])
      symlinkSync('busybox', join(this.rootfs, 'bin', name));
  }

  /** Starts the daemon. @returns what its recovery found */
  async start(environment: Record<string, string> = {}): Promise<Record<string, number>> {
    // The socket of a killed daemon is still there.
    for (const name of ['api', 'moor.sock.ttrpc']) rmSync(join(this.directory, name), { force: true });
    const log = openSync(join(this.directory, 'daemon.log'), 'a');
    const daemon = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', program, this.directory],
      {
        stdio: ['ignore', 'pipe', log],
        env: { ...process.env, ...environment },
      },
    );
    closeSync(log);
    this.#daemon = daemon;
    const [line] = (await Promise.race([
      once(createInterface({ input: daemon.stdout! }), 'line'),
      once(daemon, 'exit').then(() => [undefined]),
    ])) as [string | undefined];
    if (line === undefined) throw new Error(`the daemon did not start: ${this.log()}`);
    this.#client = await TtrpcClient.connect(join(this.directory, 'api'));
    this.tasks = this.#client.service(TasksDefinition);
    return JSON.parse(line) as Record<string, number>;
  }

  log(): string {
    return readFileSync(join(this.directory, 'daemon.log'), 'utf8');
  }

  /** kill -9. */
  async kill(): Promise<void> {
    this.#daemon?.kill('SIGKILL');
    await this.died();
  }

  async stop(): Promise<void> {
    this.#daemon?.kill('SIGTERM');
    await this.died();
  }

  /** Resolves when the daemon has ended, by whatever. */
  async died(): Promise<void> {
    const daemon = this.#daemon;
    if (daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null) {
      await once(daemon, 'exit', { signal: AbortSignal.timeout(30_000) });
    }
    this.#client?.close();
  }

  bundle(id: string): string {
    return join(this.directory, 'tasks', this.namespace, id);
  }

  /**
   * Makes a container that runs `command`.
   *
   * @param more of its spec
   * @param slow the command of runc that takes one and a half seconds longer than it would; see `delayed`
   */
  container(id: string, command: string[], runtime: string, slow = 'none', more: object = {}): void {
    const runc = join(this.directory, `runc-${slow}`);
    const script = `#!/bin/sh\ncase " $* " in *" ${slow} "*) : >"$0.delays"; sleep 1.5;; esac\nexec runc "$@"\n`;
    writeFileSync(runc, script, { mode: 0o755 });
    const path = join(this.directory, 'containers', this.namespace);
    mkdirSync(path, { recursive: true });
    const spec = Buffer.from(JSON.stringify({ ...this.spec(id, command), ...more }));
    const options = Options.encode(
      Options.fromPartial({ root: join(this.directory, 'runc'), binaryName: slow === 'none' ? '' : runc }),
    ).finish();
    const container = Container.fromPartial({
      id,
      spec: { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Spec', value: spec },
      runtime: {
        name: runtime,
        options: { typeUrl: 'containerd.runc.v1.Options', value: Buffer.from(options) },
      },
    });
    writeFileSync(join(path, id), Container.encode(container).finish());
  }

  /** Returns when the slow command of runc has been called. */
  async delayed(slow: string): Promise<void> {
    await this.until(`runc ${slow} is called`, () => existsSync(join(this.directory, `runc-${slow}.delays`)));
  }

  async create(id: string, options: CallOptions = {}): Promise<number> {
    const rootfs = [{ type: 'bind', source: this.rootfs, options: ['rbind', 'ro'] }];
    return (await this.tasks.create({ containerId: id, rootfs }, { ...this.as, ...options })).pid;
  }

  async startTask(id: string): Promise<number> {
    return (await this.tasks.start({ containerId: id }, this.as)).pid;
  }

  /** Creates and starts. @returns the pid */
  async run(id: string, command: string[], runtime: string): Promise<number> {
    this.container(id, command, runtime);
    await this.create(id);
    return this.startTask(id);
  }

  events(): PublishedEvent[] {
    const path = join(this.directory, 'events');
    if (!existsSync(path)) return [];
    return readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as PublishedEvent);
  }

  exitsOf(id: string): (number | undefined)[] {
    return this.events()
      .filter(
        ({ topic, container, id: process }) => topic === '/tasks/exit' && container === id && process === id,
      )
      .map(({ status }) => status);
  }

  /** Pids of the shims that work for this host's tasks. */
  shims(): number[] {
    return pids(
      (pid) =>
        commandLine(pid).includes(`-namespace ${this.namespace} `) && !commandLine(pid).includes('delete'),
    );
  }

  shimOf(id: string): number {
    const [pid] = pids((pid) =>
      new RegExp(`-namespace ${this.namespace} .*-id ${id} `).test(`${commandLine(pid)} `),
    );
    if (pid === undefined) throw new Error(`no shim for ${id}`);
    return pid;
  }

  /** Everything there is of tasks: bundles, sockets, mounts, cgroups, shims. */
  traces(): string[] {
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(this.directory));
    const found = ['tasks', 's', 'runc'].flatMap((name) => {
      const path = join(this.directory, name);
      if (!existsSync(path)) return [];
      const args = [path, '-ignore_readdir_race', '-mindepth', name === 's' ? '1' : '2'];
      // Files may go while they are being listed. find fails all the same when a directory does that it is about to enter.
      return spawnSync('find', args, { encoding: 'utf8' }).stdout.split('\n');
    });
    const cgroups = readdirSync('/sys/fs/cgroup').flatMap((controller) => {
      const path = join('/sys/fs/cgroup', controller, this.namespace);
      return existsSync(path)
        ? readdirSync(path, { withFileTypes: true })
            .filter((entry) => entry.isDirectory())
            .map(({ name }) => join(path, name))
        : [];
    });
    const shims = this.shims().map((pid) => `shim ${pid}: ${commandLine(pid)}`);
    return [...found.filter((line) => line !== ''), ...mounts, ...cgroups, ...shims];
  }

  /** Waits until nothing is left of any task. */
  async nothingLeft(): Promise<void> {
    await this.until(
      'nothing is left',
      () => this.traces().length === 0,
      () => this.traces().join('\n'),
    );
  }

  async until(what: string, condition: () => boolean, seen: () => string = () => ''): Promise<void> {
    const end = Date.now() + 30_000;
    while (!condition()) {
      if (Date.now() > end) throw new Error(`never: ${what}: ${seen()}\n${this.log().slice(-4000)}`);
      await sleep(10);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    for (const pid of this.shims()) process.kill(pid, 'SIGKILL');
    for (const controller of readdirSync('/sys/fs/cgroup'))
      removeGroups(join('/sys/fs/cgroup', controller, this.namespace));
    for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n').reverse()) {
      const target = line.split(' ')[4];
      if (target?.startsWith(this.directory) === true) execFileSync('umount', ['-l', target]);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  spec(id: string, args: string[]): object {
    const types = ['mount', 'pid', 'ipc', 'uts', 'network'].map((type) => ({ type }));
    return {
      ociVersion: '1.0.2',
      root: { path: 'rootfs', readonly: true },
      process: { args, cwd: '/', env: ['PATH=/bin'], user: { uid: 0, gid: 0 } },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs' },
      ],
      linux: { namespaces: types, cgroupsPath: `/${this.namespace}/${id}` },
    };
  }
}

export function alive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

function pids(matching: (pid: number) => boolean): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && matching(pid));
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

/** Kills what is in the cgroups of a test that failed, and removes them. */
function removeGroups(path: string): void {
  if (!existsSync(path)) return;
  for (const directory of execFileSync('find', [path, '-depth', '-type', 'd'], { encoding: 'utf8' })
    .trim()
    .split('\n')) {
    for (const pid of readFileSync(join(directory, 'cgroup.procs'), 'utf8').split('\n')) {
      if (pid !== '') process.kill(Number(pid), 'SIGKILL');
    }
    execFileSync('sh', [
      '-c',
      `for i in 1 2 3 4 5; do rmdir ${directory} 2>/dev/null && exit; sleep 0.1; done; true`,
    ]);
  }
}
