/** Debian's ctr as the client: what it prints, how it exits, and how long it takes. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { spawn as spawnOnTerminal } from 'node-pty';
import { type CallOptions, type Outcome, outcomeOf, succeeded } from './program.ts';
import { sharedRootfs } from './rootfs.ts';
import { Terminal } from './terminal.ts';

export interface TaskLine {
  readonly pid: number;
  readonly status: string;
}

let execs = 0;

/** ctr bound to one daemon and one namespace. Its FIFOs are kept below `fifos`. */
export class Ctr {
  readonly address: string;
  readonly namespace: string;
  readonly fifos: string;

  constructor(address: string, namespace: string, fifos: string) {
    this.address = address;
    this.namespace = namespace;
    this.fifos = fifos;
    mkdirSync(fifos, { recursive: true });
  }

  /** Runs ctr to its end, whatever its exit code. Input ends when ctr can see it. */
  call(args: readonly string[], options?: CallOptions): Promise<Outcome> {
    const child = this.spawn(args, ['pipe', 'pipe', 'pipe']);
    return outcomeOf(child, 'ctr', args, { patientInput: true, ...options });
  }

  /** Runs ctr, which must succeed, and returns what it printed. */
  async ok(...args: string[]): Promise<string> {
    return succeeded(await this.call(args));
  }

  /** Runs ctr, which must succeed, with its stdout to a file: what it prints may be no text. */
  async save(file: string, ...args: string[]): Promise<void> {
    const out = openSync(file, 'w');
    const child = this.spawn(args, ['pipe', out, 'pipe']);
    closeSync(out);
    succeeded(await outcomeOf(child, 'ctr', args));
  }

  /** The arguments of `ctr run` for a container on the shared root file system. */
  runArgs(id: string, command: readonly string[], flags: readonly string[] = []): string[] {
    return ['run', ...flags, '--fifo-dir', this.fifos, '--rootfs', sharedRootfs(), id, ...command];
  }

  /** `ctr run` in the foreground, whatever its exit code. */
  run(id: string, command: readonly string[], flags: readonly string[] = [], options?: CallOptions) {
    return this.call(this.runArgs(id, command, flags), options);
  }

  /** `ctr run --rm` of an image in the foreground, whatever its exit code. Without a command the image's own is run. */
  runImage(image: string, id: string, command: readonly string[] = [], flags: readonly string[] = []) {
    return this.call(['run', '--rm', '--fifo-dir', this.fifos, ...flags, image, id, ...command]);
  }

  /** `ctr run -d`, which must succeed. */
  async runDetached(id: string, command: readonly string[], flags: readonly string[] = []): Promise<void> {
    await this.ok(...this.runArgs(id, command, ['-d', '--null-io', ...flags]));
  }

  /**
   * `ctr container create` on the shared root file system. Unlike run and exec it takes flags anywhere, so the command
   * must not have any (`-c` is a flag of ctr's): see `script`.
   */
  async create(id: string, command: readonly string[], flags: readonly string[] = []): Promise<void> {
    await this.ok('containers', 'create', ...flags, '--rootfs', sharedRootfs(), id, ...command);
  }

  /** The arguments of `ctr task exec` under an exec id no other has. */
  execArgs(id: string, command: readonly string[], flags: readonly string[] = []): string[] {
    execs += 1;
    const named = flags.includes('--exec-id') ? [] : ['--exec-id', `exec-${execs}`];
    return ['tasks', 'exec', '--fifo-dir', this.fifos, ...named, ...flags, id, ...command];
  }

  /** `ctr task exec` in the foreground, whatever its exit code. */
  exec(id: string, command: readonly string[], flags: readonly string[] = [], options?: CallOptions) {
    return this.call(this.execArgs(id, command, flags), options);
  }

  /** What `ctr task ls` shows. */
  async tasks(): Promise<Map<string, TaskLine>> {
    const lines = (await this.ok('tasks', 'ls')).trimEnd().split('\n').slice(1);
    return new Map(
      lines.map((line) => {
        const [id = '', pid = '', status = ''] = line.trim().split(/\s+/);
        return [id, { pid: Number(pid), status }];
      }),
    );
  }

  /** The task's line, or undefined when there is none. */
  async task(id: string): Promise<TaskLine | undefined> {
    return (await this.tasks()).get(id);
  }

  /** The lines of what ctr prints, sorted; it must succeed. */
  async lines(...args: string[]): Promise<string[]> {
    return (await this.ok(...args)).split('\n').slice(0, -1).sort();
  }

  /** The names of the images that pass one of the filters, or of all. */
  images(...filters: string[]): Promise<string[]> {
    return this.lines('images', 'ls', '-q', ...filters);
  }

  /** The digests of the content of the namespace. */
  digests(): Promise<string[]> {
    return this.lines('content', 'ls', '-q');
  }

  /** How many snapshots the namespace has. */
  async snapshots(snapshotter = 'overlayfs'): Promise<number> {
    return (await this.lines('snapshots', '--snapshotter', snapshotter, 'ls')).length - 1;
  }

  /** Removes every image, and with them what nothing else refers to. */
  async removeImages(): Promise<void> {
    const names = await this.images();
    if (names.length > 0) await this.ok('images', 'rm', '--sync', ...names);
  }

  /** Kills and deletes the task if there is one, and the container. Succeeds when there is nothing. */
  async remove(id: string): Promise<void> {
    await this.call(['tasks', 'rm', '-f', id]);
    await this.call(['containers', 'rm', id]);
  }

  /** Starts ctr and leaves it running. */
  spawn(args: readonly string[], stdio: StdioOptions = ['ignore', 'pipe', 'pipe']): ChildProcess {
    return spawn('ctr', ['-a', this.address, '-n', this.namespace, ...args], { stdio });
  }

  /** Starts ctr on a terminal of its own. */
  terminal(args: readonly string[], size = { cols: 80, rows: 24 }): Terminal {
    const pty = spawnOnTerminal('ctr', ['-a', this.address, '-n', this.namespace, ...args], {
      ...size,
      env: { ...process.env, TERM: 'xterm' },
    });
    return new Terminal(pty);
  }
}
