/** Starting Moor's own shim. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { appendFileSync, closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Logger } from 'pino';
import { listenUnix } from '../../native/native.ts';
import { DeleteResponse } from '../../proto/gen/containerd/task/v2.ts';
import { TtrpcClient } from '../../ttrpc/client.ts';
import { Code, internal, isCode, messageOf } from '../../ttrpc/errors.ts';
import { started, stuck, unstartable } from '../shortage.ts';
import type { Bundle } from './bundle.ts';
import { invoke } from './invocation.ts';
import { type DaemonAddresses, DELETE_TIMEOUT_MS, type Launcher, type StartedShim } from './launcher.ts';
import { endIfStuck } from './stuck-start.ts';
import { ShimTemplate } from './template.ts';

export interface OwnShimOptions {
  readonly addresses: DaemonAddresses;
  /** The state directory; shims listen in `<state>/s`. */
  readonly state: string;
  /** Program and first arguments that run the shim; `shimCommand()` unless configured. */
  readonly command: readonly string[];
  /** Shims log details. */
  readonly debug: boolean;
  /** Whether shims are forked from a template, or started afresh each. */
  readonly spawn: ShimSpawn;
  readonly log: Logger;
}

export type ShimSpawn = 'fork' | 'exec';

/** What clients ask for when they ask for nothing in particular. */
export const OWN_RUNTIME = 'io.containerd.runc.v2';

/** How many connections may wait for a shim that is busy; one daemon makes one. */
const BACKLOG = 16;

/**
 * The shim beside this program, on the Node that runs this program: the bundle beside the daemon's bundle, the source where
 * the daemon runs from sources.
 */
export function shimCommand(): string[] {
  const here = import.meta.url;
  if (here.endsWith('.ts')) {
    const source = fileURLToPath(new URL('../../shim/main.ts', here));
    return [process.execPath, '--disable-warning=ExperimentalWarning', source];
  }
  return [process.execPath, fileURLToPath(new URL('./shim.js', here))];
}

/** The files that `shimCommand()` runs; of the sources, the first. */
function shimCode(): string[] {
  const here = import.meta.url;
  const names = here.endsWith('.ts')
    ? ['../../shim/main.ts', '../../native/build/moor.node']
    : ['./shim.js', './shim.main.js', '../native/build/moor.node'];
  return names.map((name) => fileURLToPath(new URL(name, here)));
}

/** A runc container's state must be found again by every later daemon on the same state directory. */
export function runcRoot(state: string): string {
  return join(state, 'runc');
}

export class OwnShim implements Launcher {
  readonly own = true;
  readonly runtime = OWN_RUNTIME;
  /** How many were started, in which way. */
  readonly started = { fork: 0, exec: 0 };
  readonly #options: OwnShimOptions;
  readonly #template: ShimTemplate | undefined;

  constructor(options: OwnShimOptions) {
    this.#options = options;
    mkdirSync(join(options.state, 's'), { recursive: true, mode: 0o711 });
    if (options.spawn === 'fork') {
      const { command, log, state } = options;
      const scratch = join(state, 'warm-up');
      const env = this.#environment();
      this.#template = new ShimTemplate({ command, env, log, scratch, code: shimCode() });
    }
  }

  /** Gets ready for the first shim. Work for the other processors: not while the daemon itself is in a hurry. */
  prepare(): void {
    this.#template?.start();
  }

  /** Starts no more shims. Those that run are left alone. */
  close(): void {
    this.#template?.close();
  }

  /**
   * The socket listens before the shim has it, made by the template or by the daemon: the daemon can connect at once and its first
   * call waits in the kernel until the shim serves, and a shim that dies takes the last copy of the socket with it.
   */
  async start(bundle: Bundle): Promise<StartedShim> {
    const address = this.#socketPath();
    const bootstrap = { runtime: OWN_RUNTIME, binary: '', apiVersion: 3, address } as const;
    bundle.writeBootstrap(bootstrap, 'first');
    const forked = await this.#fork(bundle, address);
    if (forked !== undefined) {
      this.started.fork += 1;
      return { bootstrap, pid: forked.pid };
    }
    const socket = listenUnix(address, BACKLOG);
    try {
      const pid = await this.#spawn(bundle, socket);
      this.started.exec += 1;
      return { bootstrap, pid };
    } catch (error) {
      // Nobody has been started who would take it away.
      rmSync(address, { force: true });
      throw error;
    } finally {
      closeSync(socket);
    }
  }

  async deleteDead(bundle: Bundle): Promise<DeleteResponse> {
    const { command, addresses } = this.#options;
    const flags = ['-namespace', bundle.namespace, '-id', bundle.id, '-address', addresses.grpc];
    const outcome = await invoke({
      command: [...command, ...flags, '-bundle', bundle.path, 'delete'],
      cwd: bundle.path,
      env: { ...this.#environment(), NAMESPACE: bundle.namespace },
      timeout: DELETE_TIMEOUT_MS,
      onNode: true,
    });
    return DeleteResponse.decode(outcome.stdout);
  }

  /** The log is a regular file in the bundle, and the shim writes it alone. */
  followLog(): () => void {
    return () => {};
  }

  /** @returns undefined when no shim was forked; the socket's path is free then */
  async #fork(
    { namespace, id, path }: Bundle,
    socket: string,
  ): Promise<{ pid: number | undefined } | undefined> {
    if (this.#template === undefined) return undefined;
    const { addresses, debug, log } = this.#options;
    try {
      const request = { namespace, id, address: addresses.grpc, bundle: path, socket, debug };
      const pid = await this.#template.fork(request);
      return pid === undefined ? undefined : { pid };
    } catch (error) {
      log.warn({ id, namespace, err: error }, 'the shim is started afresh');
    }
    // The template may have died between the fork and its answer. Only a shim that lives keeps the socket open.
    try {
      (await TtrpcClient.connect(socket)).close();
      return { pid: undefined };
    } catch (error) {
      // Whether one does cannot be told without a descriptor; what follows meets it, or ends it.
      if (!isCode(error, Code.Unavailable)) return { pid: undefined };
      rmSync(socket, { force: true });
      return undefined;
    }
  }

  async #spawn(bundle: Bundle, socket: number): Promise<number> {
    const [program = '', ...args] = this.#options.command;
    const { namespace, id, path } = bundle;
    args.push('serve', '-namespace', namespace, '-id', id, '-address', this.#options.addresses.grpc);
    args.push('-bundle', path, ...(this.#options.debug ? ['-debug'] : []));
    const log = openSync(bundle.log, 'a', 0o600);
    try {
      const child = spawn(program, args, {
        cwd: path,
        env: { ...this.#environment(), NAMESPACE: namespace },
        detached: true,
        stdio: ['ignore', log, log, socket],
      });
      started(child, program);
      child.unref();
      endIfStuck(child, () => this.#noteStuck(bundle));
      if (child.pid !== undefined) return child.pid;
      const { promise, resolve } = Promise.withResolvers<Error>();
      child.once('error', resolve);
      const error = await promise;
      throw unstartable(program, error) ?? internal(`cannot start ${program}: ${messageOf(error)}`, error);
    } finally {
      closeSync(log);
    }
  }

  /** With the shim its connection ends, and what its log says then is told. */
  #noteStuck({ log: path, id, namespace }: Bundle): void {
    const { command, log } = this.#options;
    const why = stuck(command[0] ?? '');
    log.warn({ id, namespace, err: why }, 'a shim is stuck in its start, and is killed');
    try {
      appendFileSync(path, `${why.message}\n`);
    } catch (error) {
      log.warn({ id, namespace, err: error }, 'why a shim is killed cannot be written down');
    }
  }

  /** Short, since a socket's path holds 107 bytes; random, since a former shim of the same task may not be gone yet. */
  #socketPath(): string {
    return join(this.#options.state, 's', randomBytes(8).toString('hex'));
  }

  #environment(): Record<string, string> {
    const { grpc, ttrpc } = this.#options.addresses;
    return {
      PATH: process.env.PATH ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      TTRPC_ADDRESS: ttrpc,
      GRPC_ADDRESS: grpc,
      MAX_SHIM_VERSION: '3',
      MOOR_RUNC_ROOT: runcRoot(this.#options.state),
      ...testing(),
    };
  }
}

/** A test's fail points (`shim/failpoint.ts`); nothing otherwise. */
function testing(): Record<string, string> {
  const { MOOR_FAILPOINTS: points = '' } = process.env;
  return points.startsWith('/') ? { MOOR_FAILPOINTS: points } : {};
}
