/**
 * The floor: what runc takes alone, with the specification that a daemon has made, for what a daemon has it do. As the file on disk, as
 * containerd starts it; and as a sealed copy in memory after a move that was announced, as Moor's shims do.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { announceMove, sealedCopy } from '../native/native.ts';
import { eventually } from '../test/harness/wait.ts';

/** Milliseconds by call. */
export type Calls = Map<string, number[]>;

/** Milliseconds between two lives, so that the kernel's readiness for moves has passed when the next begins. */
const PAUSE_MS = 150;
/** How long a runtime's program loads before it moves its first process, and so how far ahead a daemon can announce it. */
const AHEAD_MS = 5;

export class Floor implements Disposable {
  readonly file: Calls = new Map();
  readonly memory: Calls = new Map();
  readonly #directory: string;
  readonly #copy: number;
  readonly #procs: string;

  /** @param config the specification of a container that does nothing for long */
  constructor(directory: string, config: string) {
    this.#directory = directory;
    const spec = JSON.parse(readFileSync(config, 'utf8')) as { linux: { cgroupsPath: string } };
    spec.linux.cgroupsPath += '-floor';
    mkdirSync(directory);
    writeFileSync(join(directory, 'config.json'), JSON.stringify(spec));
    writeFileSync(
      join(directory, 'process.json'),
      JSON.stringify({ args: ['/bin/true'], cwd: '/', env: [], user: { uid: 0, gid: 0 } }),
    );
    const file = openSync(runc(), 'r');
    this.#copy = sealedCopy(file, 'runc');
    closeSync(file);
    const tree = '/sys/fs/cgroup';
    const folders = [tree, ...readdirSync(tree).map((name) => join(tree, name))];
    this.#procs = folders.map((folder) => join(folder, 'cgroup.procs')).find(isFile) ?? '';
  }

  /** One life in each way. */
  async live(): Promise<void> {
    for (const calls of [this.file, this.memory]) {
      await delay(PAUSE_MS);
      const call = (verb: string, ...args: string[]) => this.#call(calls, verb, args);
      await this.#announce(calls);
      await call('create', '--bundle', this.#directory, '--pid-file', join(this.#directory, 'pid'), 'floor');
      await call('start', 'floor');
      await delay(PAUSE_MS);
      await this.#announce(calls);
      await call('exec', '--detach', '--process', join(this.#directory, 'process.json'), 'floor');
      await call('kill', 'floor', '9');
      const pid = readFileSync(join(this.#directory, 'pid'), 'utf8');
      await eventually('the container is over', () => isOver(pid));
      await call('delete', 'floor');
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#copy);
    rmSync(this.#directory, { recursive: true });
  }

  async #announce(calls: Calls): Promise<void> {
    if (calls !== this.memory) return;
    announceMove(this.#procs);
    await delay(AHEAD_MS);
  }

  async #call(calls: Calls, verb: string, args: readonly string[]): Promise<void> {
    const program = calls === this.memory ? '/proc/self/fd/3' : runc();
    const began = performance.now();
    const child = spawn(program, ['--root', join(this.#directory, 'state'), verb, ...args], {
      argv0: 'runc',
      stdio: ['ignore', 'ignore', 'inherit', this.#copy],
    });
    const [code] = (await once(child, 'exit')) as [number | null];
    if (code !== 0) throw new Error(`runc ${verb}: exit ${code}`);
    calls.set(verb, [...(calls.get(verb) ?? []), performance.now() - began]);
  }
}

function runc(): string {
  const folders = (process.env['PATH'] ?? '').split(':');
  const found = folders.map((folder) => join(folder, 'runc')).find(isFile);
  if (found === undefined) throw new Error('no runc in PATH');
  return found;
}

function isFile(path: string): boolean {
  try {
    closeSync(openSync(path, 'r'));
    return true;
  } catch {
    return false;
  }
}

/** Nobody reaps it but the first process of the machine, so that it may stay a zombie for a moment. */
function isOver(pid: string): boolean {
  try {
    return /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return true;
  }
}
