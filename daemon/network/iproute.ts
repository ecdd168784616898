/** iproute2's ip(8), run inside network namespaces. */
import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { flock } from '../../native/native.ts';
import { deadlineExceeded, internal, unimplemented } from '../../ttrpc/errors.ts';
import { untilAborted } from '../distribution/turns.ts';

/** ip waits for nothing but the kernel's lock on the configuration of networks. */
const TIMEOUT_MS = 20_000;
/** How long a new daemon waits for the programs of the one before it. */
const PATIENCE_MS = 10_000;
const POLL_MS = 10;

const SEARCH_PATH = [
  ...(process.env.PATH ?? '').split(':').filter((directory) => directory !== ''),
  '/usr/sbin',
  '/sbin',
  '/usr/bin',
  '/bin',
];

/** What ip said when it failed, in its own words. */
export class IpFailure extends Error {
  override readonly name = 'IpFailure';
}

/** Throws unless the host has the programs. @throws RpcError Unimplemented */
export function checkPrograms(): void {
  for (const [program, source] of [
    ['ip', 'iproute2'],
    ['nsenter', 'util-linux'],
  ]) {
    if (!SEARCH_PATH.some((directory) => isExecutable(join(directory, program!))))
      throw unimplemented(
        `networks need ${program} of ${source}, which this host does not have: skip plugin`,
      );
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Runs ip(8). Every program it starts holds a lock, so that a daemon which comes after one that was killed can wait until nothing
 * that it had begun is at work any more.
 */
export class IpRoute {
  readonly #lock: number;

  private constructor(lock: number) {
    this.#lock = lock;
  }

  /**
   * Waits for the programs of the daemon before.
   *
   * @param path of the file that is locked
   * @throws RpcError Internal when one of them does not end
   */
  static async open(path: string): Promise<IpRoute> {
    const lock = openSync(path, 'w', 0o600);
    const deadline = performance.now() + PATIENCE_MS;
    while (!flock(lock, true)) {
      if (performance.now() > deadline) {
        closeSync(lock);
        throw internal(`a program that the last daemon started still holds ${path}`);
      }
      await delay(POLL_MS);
    }
    return new IpRoute(lock);
  }

  close(): void {
    closeSync(this.#lock);
  }

  /**
   * Changes something. Once begun it is not interrupted, since a killed program would leave it open whether it has.
   *
   * @param netns the namespace's file; undefined for the daemon's own
   * @throws IpFailure
   */
  async change(netns: string | undefined, args: readonly string[]): Promise<void> {
    await this.#run(netns, args);
  }

  /** The answer of a command that shows something, each entry of the list. @throws IpFailure */
  async show(
    netns: string | undefined,
    args: readonly string[],
    signal?: AbortSignal,
  ): Promise<readonly object[]> {
    const text = await untilAborted(this.#run(netns, ['-json', '-details', ...args]), signal);
    const entries = text.trim() === '' ? [] : (JSON.parse(text) as object[]);
    // It prints {} for what a selector leaves out.
    return entries.filter((entry) => Object.keys(entry).length > 0);
  }

  async #run(netns: string | undefined, args: readonly string[]): Promise<string> {
    // Not `ip -n`: that looks below /run/netns only, and makes a mount namespace with a sysfs of its own.
    const command = netns === undefined ? ['ip', ...args] : ['nsenter', `--net=${netns}`, 'ip', ...args];
    const [program, ...rest] = command;
    // Not before it is needed: most daemons never get here.
    const { execa } = await import('execa');
    const result = await execa(program!, rest, {
      // execa hands on any descriptor; its types list only the first few.
      stdio: ['ignore', 'pipe', 'pipe', this.#lock as 3],
      env: { PATH: SEARCH_PATH.join(':'), LC_ALL: 'C' },
      extendEnv: false,
      cwd: '/',
      reject: false,
      cleanup: false,
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    if (!result.failed) return result.stdout;
    if (result.timedOut) throw deadlineExceeded(`ip has not ended after ${TIMEOUT_MS / 1000} s`);
    if (result.code === 'ENOENT') throw unimplemented(`${program} is not on this host`);
    throw new IpFailure(result.stderr.trim() || `ip ended with ${result.exitCode ?? result.signal}`);
  }
}
