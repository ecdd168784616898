/** Debian's ctr as the client: what it prints, how it exits, and how long it takes. */
import { AssertionError } from 'node:assert/strict';
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { spawn as spawnOnTerminal } from 'node-pty';
import { sharedRootfs } from './rootfs.ts';
import { Terminal } from './terminal.ts';

export interface Outcome {
  readonly args: readonly string[];
  /** Exit code; 128 + n when a signal ended ctr. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly milliseconds: number;
}

export interface CallOptions {
  /**
   * Written to ctr's stdin, which ends once something has come out: ctr 1.6 overlooks the end of an stdin that comes
   * before the task is created. Without input, stdin is empty.
   */
  readonly input?: string | Uint8Array;
  /** Milliseconds until ctr is killed and the call fails. */
  readonly timeout?: number;
}

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

  /** Runs ctr to its end, whatever its exit code. */
  async call(args: readonly string[], { input, timeout = 30_000 }: CallOptions = {}): Promise<Outcome> {
    const began = performance.now();
    const child = this.spawn(args, ['pipe', 'pipe', 'pipe']);
    const stdout = collect(child.stdout);
    const stderr = collect(child.stderr);
    child.stdin?.on('error', () => undefined); // ctr may end before it has read everything
    if (input === undefined) child.stdin?.end();
    else child.stdin?.write(input, () => child.stdout?.once('data', () => child.stdin?.end()));
    const timer = setTimeout(() => child.kill('SIGKILL'), timeout);
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    clearTimeout(timer);
    const milliseconds = performance.now() - began;
    const outcome = { args, stdout: stdout(), stderr: stderr(), milliseconds };
    if (signal === 'SIGKILL' && milliseconds >= timeout)
      throw new AssertionError({
        message: `hangs for ${timeout} ms: ${describe({ ...outcome, code: 137 })}`,
      });
    return { ...outcome, code: code ?? 128 + (signal === 'SIGKILL' ? 9 : 15) };
  }

  /** Runs ctr, which must succeed, and returns what it printed. */
  async ok(...args: string[]): Promise<string> {
    const outcome = await this.call(args);
    if (outcome.code !== 0) throw new AssertionError({ message: describe(outcome) });
    return outcome.stdout;
  }

  /** The arguments of `ctr run` for a container on the shared root file system. */
  runArgs(id: string, command: readonly string[], flags: readonly string[] = []): string[] {
    return ['run', ...flags, '--fifo-dir', this.fifos, '--rootfs', sharedRootfs(), id, ...command];
  }

  /** `ctr run` in the foreground, whatever its exit code. */
  run(id: string, command: readonly string[], flags: readonly string[] = [], options?: CallOptions) {
    return this.call(this.runArgs(id, command, flags), options);
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

/** The outcome in words, for failures. */
export function describe({ args, code, stdout, stderr, milliseconds }: Outcome): string {
  const said = [stderr.trim(), stdout.trim()].filter((text) => text !== '').join('\n');
  return `ctr ${args.join(' ')} → exit ${code} after ${milliseconds.toFixed(0)} ms\n${said.slice(0, 2000)}`;
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: Buffer[] = [];
  stream?.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString();
}
