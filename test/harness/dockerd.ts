/**
 * A private dockerd over a daemon under test. It lives in its own network namespace, so that its bridge, its addresses, its
 * packet filter rules and the ports it publishes are nobody else's; all its containers are below one cgroup.
 */
import { type ChildProcess, execFileSync, spawn, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { spawn as spawnOnTerminal } from 'node-pty';
import { cgroupsOf, pidsIn, removeCgroups, thaw } from './cgroups.ts';
import { type Daemon, mountsBelow } from './daemon.ts';
import { killProcess, processes } from './processes.ts';
import { type CallOptions, type Outcome, outcomeOf, succeeded } from './program.ts';
import { makeRootfs } from './rootfs.ts';
import { Terminal } from './terminal.ts';
import { eventually, soon } from './wait.ts';

export interface DockerdOptions {
  /** Containers live on without dockerd. */
  readonly liveRestore?: boolean;
  /** Added to dockerd's flags. */
  readonly flags?: readonly string[];
}

/** `docker inspect -f '{{json .State}}'`, as far as tests look at it. */
export interface ContainerState {
  readonly Status: 'created' | 'running' | 'paused' | 'restarting' | 'exited' | 'dead';
  readonly OOMKilled: boolean;
  readonly Pid: number;
  readonly ExitCode: number;
  readonly Error: string;
  readonly Health?: { readonly Status: string };
}

/** The image all containers are made of: a static busybox. */
export const IMAGE = 'bb';

/** Debian's client. Another one may come first on the PATH. */
const docker = '/usr/bin/docker';

/** dockerd looks for iptables, runc, docker-proxy and docker-init there. */
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

const running = new Set<ChildProcess>();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

/** dockerd with its own directory. It can be killed and started again over the same state as often as one likes. */
export class Dockerd implements AsyncDisposable {
  readonly directory: string;
  readonly socket: string;
  /** Its containers' cgroups are `/<cgroup>/<container>`. */
  readonly cgroup: string;
  /** A directory of the host for containers to mount: see `waitFor` and `open`. */
  readonly shared: string;
  readonly log: string;
  readonly #network: string;
  readonly #daemon: Daemon;
  readonly #options: DockerdOptions;
  #child: ChildProcess | undefined;

  private constructor(daemon: Daemon, options: DockerdOptions) {
    this.#daemon = daemon;
    this.#options = options;
    this.directory = mkdtempSync('/tmp/k-');
    this.cgroup = this.directory.slice('/tmp/'.length);
    this.socket = join(this.directory, 'docker.sock');
    this.log = join(this.directory, 'log');
    this.shared = join(this.directory, 'shared');
    this.#network = join(this.directory, 'network');
    mkdirSync(this.shared);
    const key = { 'deprecated-key-path': join(this.directory, 'key.json') };
    writeFileSync(join(this.directory, 'config.json'), JSON.stringify(key));
  }

  /** Starts dockerd, imports the image, and returns when both are there. */
  static async start(daemon: Daemon, options: DockerdOptions = {}): Promise<Dockerd> {
    const dockerd = new Dockerd(daemon, options);
    try {
      writeFileSync(dockerd.#network, '');
      execFileSync('unshare', [`--net=${dockerd.#network}`, 'ip', 'link', 'set', 'lo', 'up']);
      await dockerd.start();
      await dockerd.#import();
    } catch (error) {
      await dockerd.stop();
      throw error;
    }
    return dockerd;
  }

  /** dockerd's process. */
  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('dockerd is not running');
    return pid;
  }

  /** Starts dockerd (again) and returns when it answers. */
  async start(): Promise<void> {
    this.launch();
    await this.ready();
  }

  /** Starts dockerd without waiting for anything. */
  launch(): void {
    const log = openSync(this.log, 'a');
    try {
      const child = spawn('nsenter', [`--net=${this.#network}`, 'dockerd', ...this.#flags()], {
        stdio: ['ignore', log, log],
        env: { PATH, TMPDIR: this.directory, HOME: this.directory },
      });
      running.add(child);
      child.once('exit', () => running.delete(child));
      this.#child = child;
    } finally {
      closeSync(log);
    }
  }

  /** Waits until dockerd answers. Fails with its log when it ends instead, or takes longer than 60 s. */
  async ready(): Promise<void> {
    const child = this.#child;
    const deadline = performance.now() + 60_000;
    while (!(await this.#answers())) {
      if (child === undefined || child.exitCode !== null || child.signalCode !== null)
        throw new Error(`dockerd ended at start:\n${this.tail()}`);
      if (performance.now() > deadline) throw new Error(`dockerd does not answer:\n${this.tail()}`);
      await delay(20);
    }
  }

  /** kill -9; returns when the process is gone. */
  async kill9(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** SIGTERM: without live-restore dockerd stops its containers first. */
  async terminate(): Promise<void> {
    await this.#end('SIGTERM');
  }

  /** Runs the docker client to its end, whatever its exit code. */
  call(args: readonly string[], { timeout = 60_000, env, ...options }: CallOptions = {}): Promise<Outcome> {
    const child = this.spawn(args, ['pipe', 'pipe', 'pipe'], env);
    return outcomeOf(child, 'docker', args, { timeout, ...options });
  }

  /** Runs the docker client, which must succeed, and returns what it printed, without the last line's end. */
  async ok(...args: string[]): Promise<string> {
    return succeeded(await this.call(args)).trimEnd();
  }

  /** `docker run -d` of a shell script, which must succeed; its id. `/shared` is this host's directory. */
  async run(name: string, script: string, ...flags: string[]): Promise<string> {
    const shared = ['-v', `${this.shared}:/shared`];
    return this.ok('run', '-d', '--name', name, ...shared, ...flags, IMAGE, 'sh', '-c', script);
  }

  /** `docker rm -f`, with the volumes that are the container's own. */
  async remove(...names: string[]): Promise<void> {
    await this.ok('rm', '-f', '-v', ...names);
  }

  /** A shell command for containers with `/shared`: it returns when the gate of that name has been opened. */
  waitFor(gate: string): string {
    return `while [ ! -e /shared/${gate} ]; do sleep 0.02; done`;
  }

  /** Opens a gate that containers wait for. */
  open(gate: string): void {
    writeFileSync(join(this.shared, gate), '');
  }

  /** Part of what `docker inspect` tells of a container, an image or a network. */
  async inspect<T>(name: string, path: string): Promise<T> {
    return JSON.parse(await this.ok('inspect', '-f', `{{json ${path}}}`, name)) as T;
  }

  state(name: string): Promise<ContainerState> {
    return this.inspect(name, '.State');
  }

  /** Waits until the container is in that state, and returns it. */
  reaches(name: string, status: ContainerState['Status']): Promise<ContainerState> {
    return eventually(`${name} is ${status}`, async () => {
      const state = await this.state(name);
      if (state.Status === status) return state;
      throw new Error(state.Status);
    });
  }

  /** Starts the docker client and leaves it running. */
  spawn(
    args: readonly string[],
    stdio: StdioOptions = ['ignore', 'pipe', 'pipe'],
    env: Readonly<Record<string, string>> = {},
  ): ChildProcess {
    const environment = { ...this.#environment(), ...env };
    return spawn(docker, ['-H', `unix://${this.socket}`, ...args], { stdio, env: environment });
  }

  /** Starts the docker client on a terminal of its own. */
  terminal(args: readonly string[], size = { cols: 80, rows: 24 }): Terminal {
    const env = { ...this.#environment(), TERM: 'xterm' };
    return new Terminal(spawnOnTerminal(docker, ['-H', `unix://${this.socket}`, ...args], { ...size, env }));
  }

  /** Runs a program in dockerd's network namespace to its end, whatever its exit code. */
  inNetwork(program: string, ...args: string[]): Promise<Outcome> {
    const child = spawn('nsenter', [`--net=${this.#network}`, program, ...args], { stdio: 'pipe' });
    return outcomeOf(child, program, args);
  }

  /** The last lines of dockerd's log. */
  tail(lines = 40): string {
    const log = existsSync(this.log) ? readFileSync(this.log, 'utf8').trimEnd() : '';
    const telling = (line: string) => !/module=grpc/.test(line);
    return log.split('\n').filter(telling).slice(-lines).join('\n');
  }

  /** Ends dockerd and its containers, and removes everything it made. */
  async stop(): Promise<void> {
    await this.#end('SIGKILL');
    thaw(this.cgroup);
    for (const pid of [...pidsIn(this.cgroup), ...this.#inhabitants()]) await killProcess(pid);
    await eventually('the cgroups of its containers can be removed', () => {
      removeCgroups(this.cgroup);
      return cgroupsOf(this.cgroup).length === 0;
    });
    for (const mount of mountsBelow(this.directory).reverse()) execFileSync('umount', ['-l', mount]);
    rmSync(this.directory, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #flags(): string[] {
    const below = (name: string) => join(this.directory, name);
    const settings = {
      containerd: this.#daemon.address,
      host: `unix://${this.socket}`,
      'data-root': below('data'),
      'exec-root': below('exec'),
      pidfile: below('pid'),
      'config-file': below('config.json'),
      'storage-driver': 'overlay2',
      'cgroup-parent': `/${this.cgroup}`,
      'live-restore': this.#options.liveRestore === true,
    };
    const flags = Object.entries(settings).map(([name, value]) => `--${name}=${value}`);
    return [...flags, ...(this.#options.flags ?? [])];
  }

  /** The client must not find the configuration and credentials of whoever runs the tests. */
  #environment(): Record<string, string> {
    return { PATH, HOME: this.directory, DOCKER_CONFIG: join(this.directory, 'client') };
  }

  async #import(): Promise<void> {
    const root = makeRootfs(join(this.directory, 'image'));
    const archive = join(this.directory, 'image.tar');
    execFileSync('tar', ['-C', root, '-cf', archive, '.']);
    await this.ok('import', archive, IMAGE);
    rmSync(archive);
    rmSync(root, { recursive: true });
  }

  #answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const call = get({ socketPath: this.socket, path: '/_ping' }, (answer) => {
        answer.resume();
        resolve(answer.statusCode === 200);
      });
      call.once('error', () => resolve(false));
    });
  }

  /** The processes in its network namespace, such as the proxies of published ports. */
  #inhabitants(): number[] {
    const name = `net:[${statSync(this.#network).ino}]`;
    return processes()
      .map(({ pid }) => pid)
      .filter((pid) => pid !== this.#child?.pid && networkNamespace(pid) === name);
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await soon(`dockerd ends on ${signal}`, exited, { within: 30_000 }).catch(async () => {
      child.kill('SIGKILL');
      await exited;
    });
  }
}

function networkNamespace(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return ''; // gone
  }
}
