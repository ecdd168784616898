/** Kills with SIGKILL what a storm is told to: each kind of process as it is found on the host. */
import { execFileSync } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import type { Daemon } from '../harness/daemon.ts';
import { alive, commandLine, processes } from '../harness/processes.ts';
import type { Seed } from '../harness/seed.ts';

export const TARGETS = ['daemon', 'shim', 'template', 'runtime', 'client'] as const;
export type Target = (typeof TARGETS)[number];

/** How often each is to be killed. */
export type Kills = Readonly<Partial<Record<Target, number>>>;

/** A process that is not there is looked for this long, in milliseconds. */
const PATIENCE = 10_000;

/** Milliseconds that a call takes, roughly. */
const MOMENT = 20;

export interface KillerOptions {
  readonly daemon: Daemon;
  readonly seed: Seed;
  /** Answers to clients between two kills at most: by these time is measured here, so that a slow machine sees the same storm. */
  readonly pause: number;
  /** Is told of a container whose shim, or whose runtime at work, is about to be killed. */
  readonly struck: (container: string, target: Target) => void;
  /** Calls of clients that have been answered so far. */
  readonly answers: () => number;
  /** Is told of each kill. */
  readonly progress?: ((what: string) => void) | undefined;
}

export class Killer {
  /** Kills that were done. */
  readonly done: Record<Target, number> = { daemon: 0, shim: 0, template: 0, runtime: 0, client: 0 };
  /** Milliseconds from each kill of the daemon to the next one's first answer. */
  readonly returns: number[] = [];
  readonly #options: KillerOptions;

  constructor(options: KillerOptions) {
    this.#options = options;
  }

  /** Does all of the kills in an order that the seed chooses. */
  async run(kills: Kills): Promise<void> {
    const { seed, pause, progress } = this.#options;
    const left = TARGETS.flatMap((target) => Array.from({ length: kills[target] ?? 0 }, () => target));
    while (left.length > 0) {
      const [target] = left.splice(Math.floor(seed.next(left.length)), 1) as [Target];
      await this.#pause(seed.next(pause));
      const done = await this.#kill(target);
      if (done) this.done[target] += 1;
      progress?.(`${left.length} left: ${target}${done ? '' : ', not found'}`);
    }
  }

  /** Lets clients work; then some of a moment, so that a kill does not always follow an answer. */
  async #pause(answers: number): Promise<void> {
    const { seed, answers: count } = this.#options;
    const enough = count() + answers;
    const end = performance.now() + PATIENCE;
    while (count() < enough && performance.now() < end) await delay(2);
    await delay(seed.next(MOMENT));
  }

  async #kill(target: Target): Promise<boolean> {
    const { daemon } = this.#options;
    if (target === 'daemon') {
      await daemon.kill9();
      this.returns.push(await daemon.start());
      return true;
    }
    const end = performance.now() + PATIENCE;
    while (performance.now() < end) {
      if (this.#strike(target)) return true;
      await delay(target === 'runtime' ? 1 : 20);
    }
    return false;
  }

  #strike(target: Exclude<Target, 'daemon'>): boolean {
    const { daemon, seed, struck } = this.#options;
    const found = victims(daemon, target);
    if (found.length === 0) return false;
    const { pid, container } = seed.pick(found);
    if (!alive(pid)) return false;
    if (container !== undefined) struck(container, target);
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      return false; // It has ended meanwhile.
    }
    return true;
  }
}

interface Victim {
  readonly pid: number;
  /** Of a shim or a runtime, whose it is. */
  readonly container?: string | undefined;
}

function victims(daemon: Daemon, target: Exclude<Target, 'daemon'>): Victim[] {
  if (target === 'runtime') return runtimesOf(daemon);
  if (target === 'client') return commandsOf(daemon);
  return target === 'shim' ? shimsOf(daemon) : templatesOf(daemon);
}

/** Commands of ctr on their way. */
function commandsOf({ address }: Daemon): Victim[] {
  return processes().filter(({ pid, name }) => name === 'ctr' && commandLine(pid).includes(address));
}

/** By their title. */
function shimsOf(daemon: Daemon): Victim[] {
  return processes()
    .filter(({ name }) => name.startsWith('moor-shim') || name.startsWith('node') || name === 'MainThread')
    .map(({ pid }) => ({ pid, line: commandLine(pid) }))
    .filter(({ line }) => line.includes(`${daemon.directory}/`))
    .flatMap(({ pid, line }) => {
      const container = / -id (\S+) /.exec(line)?.[1];
      return container === undefined ? [] : [{ pid, container }];
    });
}

/** A shim that has just been forked is still called as the template is, and is not the daemon's child. */
function templatesOf(daemon: Daemon): Victim[] {
  return processes().filter(
    ({ pid, parent }) => parent === daemon.pid && commandLine(pid).endsWith(' template'),
  );
}

/** Runs of runc, its stages that become the container left out. */
function runtimesOf(daemon: Daemon): Victim[] {
  let pids: string;
  try {
    pids = execFileSync('pgrep', ['-f', `^runc --root ${daemon.state}/`], { encoding: 'utf8' });
  } catch {
    return [];
  }
  return pids
    .trim()
    .split('\n')
    .map((pid) => ({ pid: Number(pid), container: containerOf(commandLine(Number(pid))) }));
}

/** A runtime writes its log into the bundle, which has the container's name. */
function containerOf(command: string): string | undefined {
  return / --log \S+\/([^/ ]+)\/[^/ ]+ /.exec(command)?.[1];
}
