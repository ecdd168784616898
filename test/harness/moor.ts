/** Moor's own command line as the client. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Daemon } from './daemon.ts';
import { type CallOptions, type Outcome, outcomeOf, succeeded } from './program.ts';

const repository = resolve(import.meta.dirname, '../..');
const binary = join(repository, 'bin/moor');

/** Where nothing is built, the launcher runs the sources. */
const sources = existsSync(join(repository, 'dist/moor.js')) ? {} : { MOOR_SOURCES: '1' };

/** moor bound to one daemon and one namespace. */
export class Moor {
  readonly address: string;
  readonly namespace: string;

  constructor({ address }: Pick<Daemon, 'address'>, namespace: string) {
    this.address = address;
    this.namespace = namespace;
  }

  /** Runs it to its end, whatever its exit code. */
  call(args: readonly string[], options?: CallOptions): Promise<Outcome> {
    return outcomeOf(this.spawn(args, ['pipe', 'pipe', 'pipe']), 'moor', args, options);
  }

  /** Runs it, which must succeed, and returns what it printed. */
  async ok(...args: string[]): Promise<string> {
    return succeeded(await this.call(args));
  }

  /** Starts it and leaves it running. */
  spawn(args: readonly string[], stdio: StdioOptions = ['ignore', 'pipe', 'pipe']): ChildProcess {
    const globals = ['--address', this.address, '--namespace', this.namespace];
    return spawn(binary, [...globals, ...args], { stdio, env: { ...process.env, ...sources } });
  }
}
