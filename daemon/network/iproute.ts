/** iproute2's ip(8), run inside network namespaces. */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { deadlineExceeded, unimplemented } from '../../ttrpc/errors.ts';
import { untilAborted } from '../distribution/turns.ts';
import { ProgramLock } from '../program-lock.ts';

/** ip waits for nothing but the kernel's lock on the configuration of networks. */
const TIMEOUT_MS = 20_000;
/** How long a new daemon waits for the programs of the one before it. */
const PATIENCE_MS = 10_000;

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

export class IpRoute {
  readonly #lock: ProgramLock;

  private constructor(lock: ProgramLock) {
    this.#lock = lock;
  }

  /**
   * Waits for the programs of the daemon before.
   *
   * @param lock a file
   * @throws RpcError Internal when one of them does not end
   */
  static async open(lock: string): Promise<IpRoute> {
    return new IpRoute(await ProgramLock.take(lock, PATIENCE_MS));
  }

  close(): void {
    this.#lock.release();
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
      stdio: ['ignore', 'pipe', 'pipe', this.#lock.fd as 3],
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
