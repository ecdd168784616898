/** The command line as a process, for the tests that drive it. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { buildSync } from 'esbuild';
import { type IPty, spawn as spawnPty } from 'node-pty';
import { namespace, type Peer } from '../client/peer.test.ts';

const repository = resolve(import.meta.dirname, '..');

/** Bundled as it is shipped, as that starts in a fraction of the time; beside the other bundles, where it finds the addon. */
const bundle = join(repository, `dist/moor-test-${process.pid}.js`);
buildSync({
  entryPoints: [join(repository, 'cli/main.ts')],
  outfile: bundle,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node26',
  logLevel: 'error',
  banner: {
    js: "import { createRequire as r } from 'node:module'; const require = r(import.meta.url);",
  },
});
process.on('exit', () => rmSync(bundle, { force: true }));

const environment = { ...process.env, TERM: 'xterm' };

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const globals = (peer: Peer) => ['--address', peer.address, '--namespace', namespace];

function argumentsFor(peer: Peer, args: readonly string[]): string[] {
  return [bundle, ...globals(peer), ...args];
}

export function spawnMoor(peer: Peer, args: readonly string[]): ChildProcess {
  return spawn(process.execPath, argumentsFor(peer, args), { env: environment });
}

/** Runs it to its end. */
export async function moor(peer: Peer, args: readonly string[], input = ''): Promise<Outcome> {
  const child = spawnMoor(peer, args);
  child.stdin!.on('error', () => {}).end(input);
  return await outcomeOf(child);
}

export async function outcomeOf(child: ChildProcess): Promise<Outcome> {
  let stdout = '';
  let stderr = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const status = await new Promise<number | null>((done) => child.once('close', done));
  return { status, stdout, stderr };
}

/** The same with no daemon at all. */
export async function moorAlone(args: readonly string[]): Promise<Outcome> {
  return await outcomeOf(
    spawn(process.execPath, [bundle, ...args], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] }),
  );
}

export async function ctr(peer: Peer, args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('ctr', [...globals(peer), ...args]);
  return stdout;
}

/** It on a terminal, with what it has shown so far. */
export class Terminal {
  readonly #pty: IPty;
  readonly ended: Promise<number>;
  shown = '';

  constructor(peer: Peer, args: readonly string[]) {
    this.#pty = spawnPty(process.execPath, argumentsFor(peer, args), {
      cols: 80,
      rows: 24,
      env: environment,
    });
    this.#pty.onData((data) => (this.shown += data));
    this.ended = new Promise((done) => this.#pty.onExit(({ exitCode }) => done(exitCode)));
  }

  write(text: string): void {
    this.#pty.write(text);
  }

  /** As when its window is closed. */
  hangUp(): void {
    this.#pty.kill('SIGHUP');
  }

  resize(columns: number, rows: number): void {
    this.#pty.resize(columns, rows);
  }

  /** Resolves when the screen shows it. */
  async shows(pattern: RegExp): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => pattern.test(this.shown) && resolve();
    using _ = { [Symbol.dispose]: () => listener.dispose() };
    const listener = this.#pty.onData(look);
    look();
    await promise;
  }
}
