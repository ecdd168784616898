/** Running a CNI plugin (CNI specification 1.0, section 2). */
import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  type RpcError,
  deadlineExceeded,
  failedPrecondition,
  internal,
  invalidArgument,
  messageOf,
  notFound,
  unavailable,
  unknown,
} from '../../ttrpc/errors.ts';
import type { ProgramLock } from '../program-lock.ts';

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'VERSION';

/** To what a network is attached. */
export interface Attachment {
  readonly containerId: string;
  /** The path of the network namespace; empty when it is gone, which DEL alone can do with. */
  readonly netns: string;
  /** The interface's name in the network namespace. */
  readonly ifName: string;
  /** `CNI_ARGS`. */
  readonly args?: readonly (readonly [key: string, value: string])[];
  /** What plugins with that capability are told: `portMappings`, `bandwidth`, `dns`, … */
  readonly capabilities?: { readonly [name: string]: unknown };
}

/** What a plugin prints can be no longer. */
const MAX_ANSWER_BYTES = 1 << 20;

/** Milliseconds that a plugin is given, which may talk to other hosts; then it is killed. */
export const DEFAULT_TIMEOUT_MS = 120_000;

/** Variables that are meant for the daemon. */
const NOT_FOR_PLUGINS = ['NOTIFY_SOCKET', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES'];

/** Of well-known codes; 100 and above are the plugin's own. */
const KINDS: { readonly [code: number]: (message: string, cause?: unknown) => RpcError } = {
  1: failedPrecondition,
  2: invalidArgument,
  3: notFound,
  4: invalidArgument,
  5: internal,
  6: invalidArgument,
  7: invalidArgument,
  11: unavailable,
};

export class Plugins {
  readonly #directories: readonly string[];
  readonly #lock: ProgramLock;
  readonly #timeout: number;

  /**
   * @param directories where plugins are looked for, in this order
   * @param timeout milliseconds that each is given
   */
  constructor(directories: readonly string[], lock: ProgramLock, timeout = DEFAULT_TIMEOUT_MS) {
    this.#directories = directories;
    this.#lock = lock;
    this.#timeout = timeout;
  }

  /**
   * Runs a plugin to its end.
   *
   * @param config what it is told on its standard input
   * @returns what it printed, which is an object; `{}` for nothing
   * @throws RpcError NotFound for a plugin that is not there, and the plugin's own failure
   */
  async run(
    type: string,
    command: CniCommand,
    config: object,
    attachment?: Attachment,
  ): Promise<{ readonly [key: string]: unknown }> {
    // Not before it is needed: most daemons never get here.
    const { execa } = await import('execa');
    const result = await execa(this.find(type), [], {
      input: JSON.stringify(config),
      // execa hands on any descriptor; its types list only the first few.
      stdio: ['pipe', 'pipe', 'pipe', this.#lock.fd as 3],
      env: this.#environment(command, attachment),
      extendEnv: false,
      cwd: '/',
      reject: false,
      cleanup: false,
      maxBuffer: MAX_ANSWER_BYTES,
      timeout: this.#timeout,
      killSignal: 'SIGKILL',
    });
    const about = `CNI plugin ${type}: ${command}`;
    if (!result.failed) return answerOf(result.stdout ?? '', about);
    if (result.timedOut) throw deadlineExceeded(`${about} has not ended after ${this.#timeout / 1000} s`);
    throw failureOf(result.stdout ?? '', about, result.stderr?.trim() || (result.shortMessage ?? 'failed'));
  }

  /** The plugin's program. @throws RpcError NotFound */
  find(type: string): string {
    for (const directory of this.#directories) {
      const path = join(directory, type);
      try {
        accessSync(path, constants.X_OK);
        if (statSync(path).isFile()) return path;
      } catch {
        // Not in this one.
      }
    }
    throw notFound(`CNI plugin ${JSON.stringify(type)} is not in ${this.#directories.join(', ')}: not found`);
  }

  #environment(command: CniCommand, attachment: Attachment | undefined): Record<string, string> {
    const inherited = Object.entries(process.env).filter(
      ([key, value]) => value !== undefined && !key.startsWith('CNI_') && !NOT_FOR_PLUGINS.includes(key),
    ) as [string, string][];
    return {
      ...Object.fromEntries(inherited),
      // Plugins run iptables and ip, which are not on every daemon's path.
      PATH: [process.env.PATH, '/usr/sbin', '/sbin', '/usr/bin', '/bin'].filter(Boolean).join(':'),
      CNI_COMMAND: command,
      CNI_PATH: this.#directories.join(':'),
      ...(attachment === undefined ? {} : environmentOf(attachment)),
    };
  }
}

function environmentOf({ containerId, netns, ifName, args = [] }: Attachment): Record<string, string> {
  return {
    CNI_CONTAINERID: containerId,
    CNI_NETNS: netns,
    CNI_IFNAME: ifName,
    CNI_ARGS: args.map(([key, value]) => `${key}=${value}`).join(';'),
  };
}

function answerOf(text: string, about: string): { readonly [key: string]: unknown } {
  if (text.trim() === '') return {};
  try {
    const answer = JSON.parse(text) as unknown;
    if (typeof answer === 'object' && answer !== null) return answer as { readonly [key: string]: unknown };
  } catch (error) {
    throw internal(`${about} answered what is no JSON: ${messageOf(error)}`, error);
  }
  throw internal(`${about} answered no object`);
}

function failureOf(text: string, about: string, otherwise: string): RpcError {
  try {
    const { code, msg, details } = JSON.parse(text) as { code?: number; msg?: string; details?: string };
    if (typeof code === 'number') {
      const words = [msg, details].filter((part) => part !== undefined && part !== '').join('; ');
      return (KINDS[code] ?? unknown)(`${about}: ${words || `code ${code}`}`);
    }
  } catch {
    // Plugins that crash print something else.
  }
  return unknown(`${about}: ${otherwise}`);
}
