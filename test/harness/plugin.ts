/** A plugin for daemons under test: a program of test/plugin in a process of its own, which can be killed and started again. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { soon } from './wait.ts';

const running = new Set<ChildProcess>();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

export class Plugin implements AsyncDisposable {
  /** Its socket. */
  readonly address: string;
  /** Where it keeps its files. */
  readonly folder: string;
  readonly #program: string;
  readonly #directory = mkdtempSync('/tmp/mp-');
  #child: ChildProcess | undefined;

  /** @param program of test/plugin */
  constructor(program: string) {
    this.#program = resolve(import.meta.dirname, '../plugin', program);
    this.address = join(this.#directory, 'p.sock');
    this.folder = join(this.#directory, 'files');
  }

  /**
   * Starts it (again) and returns when it serves.
   *
   * @param args after the socket and the folder
   */
  async start(...args: string[]): Promise<void> {
    const flags = ['--disable-warning=ExperimentalWarning', this.#program, this.address, this.folder];
    const child = spawn(process.execPath, [...flags, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    running.add(child);
    child.once('exit', () => running.delete(child));
    this.#child = child;
    await soon('the plugin is ready', once(child.stdout, 'data'), { within: 30_000 });
  }

  async kill9(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  /** Lets it do nothing any more, or go on. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child!.kill(signal);
  }

  /** Changes how it behaves; see the program. */
  set(behaviour: string, isOn: boolean): void {
    const file = join(this.folder, behaviour);
    if (isOn) writeFileSync(file, '');
    else rmSync(file, { force: true });
  }

  /** Loses everything it has, while it does not run. */
  forget(): void {
    rmSync(this.folder, { recursive: true });
  }

  /** The names of the snapshots it has. */
  get names(): string[] {
    const file = join(this.folder, 'snapshots.json');
    if (!existsSync(file)) return [];
    return (JSON.parse(readFileSync(file, 'utf8')) as [string, object][]).map(([name]) => name).sort();
  }

  /** The folders with files of snapshots. */
  get folders(): string[] {
    return readdirSync(this.folder).filter((name) => /^\d+$/.test(name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill9();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
