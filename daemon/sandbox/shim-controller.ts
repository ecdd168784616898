/** The controller `shim`: each sandbox has a shim, which serves `containerd.runtime.sandbox.v1.Sandbox`. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { Code, alreadyExists, failedPrecondition, isCode, notFound } from '../../ttrpc/errors.ts';
import { Turns, untilAborted } from '../distribution/turns.ts';
import type { Exchange } from '../events/exchange.ts';
import { announceSandbox, announceSandboxExit, announceSandboxStart } from '../events/sandboxes.ts';
import { reached } from '../failpoint.ts';
import { parseId } from '../identifiers.ts';
import type { SandboxStore } from '../metadata/sandboxes.ts';
import { listBundles } from '../runtime/bundle.ts';
import type { ExitRecord } from '../runtime/exit.ts';
import type { Launchers } from '../runtime/launchers.ts';
import type { SandboxShim } from '../runtime/sandboxed-shim.ts';
import type { Shim } from '../runtime/shim.ts';
import { timestampNow } from '../timestamp.ts';
import { NOT_READY, type NewSandbox, type SandboxController, type SandboxKey } from './controller.ts';
import { createSandbox } from './creation.ts';
import { removeBundle, seeOff } from './ending.ts';
import { recoverSandboxes } from './recovery.ts';
import type { ShimSandbox } from './shim-sandbox.ts';

export interface ShimControllerOptions {
  /** Sandboxes live in `<state>/sandboxes`. */
  readonly state: string;
  readonly launchers: Launchers;
  readonly store: SandboxStore;
  readonly exchange: Exchange;
  readonly log: Logger;
  /** Kills what runs in a sandbox beside its shim. */
  readonly killMembers: (key: SandboxKey) => Promise<void>;
}

/** Milliseconds for what a runtime does once, such as to boot a machine. */
const START_TIMEOUT_MS = 5 * 60_000;
/** Of a stop, beyond the time that the sandbox has to end by itself. */
const STOP_TIMEOUT_MS = 60_000;
/** What timers can count (Node's documentation of setTimeout). */
const MAX_TIMER_MS = 2 ** 31 - 1;
const SHUTDOWN_TIMEOUT_MS = 30_000;
/** For an answer that a shim has at hand. */
const ANSWER_TIMEOUT_MS = 10_000;

export class ShimController implements SandboxController {
  readonly #options: ShimControllerOptions;
  readonly #directory: string;
  readonly #sandboxes = new Map<string, ShimSandbox>();
  readonly #turns = new Turns();

  constructor(options: ShimControllerOptions) {
    this.#options = options;
    this.#directory = join(options.state, 'sandboxes');
  }

  /** Where the shims of sandboxes listen, before `recover`. */
  addresses(): string[] {
    return listBundles(this.#directory).bundles.flatMap((bundle) => {
      try {
        return bundle.readBootstrap()?.address ?? [];
      } catch {
        return [];
      }
    });
  }

  /** Finds the sandboxes of a former daemon. Tasks are known by then. */
  async recover(): Promise<void> {
    const { launchers, log, exchange } = this.#options;
    const found = await recoverSandboxes(this.#directory, launchers, log, {
      onStart: (sandbox) => announceSandboxStart(exchange, sandbox),
      onEnd: this.#onEnd.bind(this),
    });
    for (const sandbox of found) this.#sandboxes.set(keyOf(sandbox), sandbox);
  }

  /** Lets go of all shims; sandboxes run on. */
  close(): void {
    for (const sandbox of this.#sandboxes.values()) sandbox.leave();
  }

  /**
   * The shim in which tasks of a sandbox are to be made; undefined where each has its own, as with Moor's.
   * @throws RpcError FailedPrecondition for a sandbox that has ended
   */
  shimOf(key: SandboxKey): SandboxShim | undefined {
    const { id, exit, bootstrap, launcher } = this.#demand(key);
    if (exit !== undefined) throw failedPrecondition(`sandbox ${id} has ended: failed precondition`);
    return launcher.own ? undefined : { ...bootstrap, sandbox: id };
  }

  has(key: SandboxKey): boolean {
    return this.#sandboxes.has(keyOf(key));
  }

  async create(key: SandboxKey, request: NewSandbox, signal: AbortSignal): Promise<void> {
    await this.#turns.take(keyOf(key), signal, () => this.#create(key, request, signal));
  }

  async start(key: SandboxKey, signal: AbortSignal) {
    return this.#turns.take(keyOf(key), signal, async () => {
      // Clients that store a sandbox and start it leave it to the daemon to create it.
      if (!this.has(key)) await this.#create(key, noMore(), signal);
      const sandbox = this.#demand(key);
      const { id, record, exit } = sandbox;
      if (exit !== undefined) throw failedPrecondition(`sandbox ${id} has ended: failed precondition`);
      if (record.step !== 'created')
        throw failedPrecondition(`sandbox ${id} has been started: failed precondition`);
      const call = { signal, timeout: START_TIMEOUT_MS };
      const { pid, createdAt } = await sandbox.client.startSandbox({ sandboxId: id }, call);
      reached('sandbox-started');
      sandbox.started(pid);
      announceSandboxStart(this.#options.exchange, sandbox);
      return { pid, createdAt: createdAt ?? record.createdAt, ...endpointOf(sandbox) };
    });
  }

  async platform(key: SandboxKey, signal: AbortSignal) {
    const { client, id } = this.#demand(key);
    return (await client.platform({ sandboxId: id }, { signal, timeout: ANSWER_TIMEOUT_MS })).platform;
  }

  async stop(key: SandboxKey, seconds: number, signal: AbortSignal): Promise<void> {
    await this.#turns.take(keyOf(key), signal, async () => {
      const sandbox = this.#sandboxes.get(keyOf(key));
      if (sandbox?.shim === undefined || sandbox.exit !== undefined) return;
      const timeout = Math.min(seconds * 1000 + STOP_TIMEOUT_MS, MAX_TIMER_MS);
      const { id, client } = sandbox;
      try {
        await client.stopSandbox({ sandboxId: id, timeoutSecs: seconds }, { signal, timeout });
      } catch (error) {
        if (!isCode(error, Code.NotFound) && !isCode(error, Code.Unavailable)) throw error;
      }
      reached('sandbox-stopped');
    });
  }

  async wait(key: SandboxKey, signal: AbortSignal) {
    const { status: exitStatus, exitedAt } = await untilAborted(this.#demand(key).ended, signal);
    return { exitStatus, exitedAt };
  }

  async status(key: SandboxKey, verbose: boolean, signal: AbortSignal) {
    const sandbox = this.#sandboxes.get(keyOf(key));
    if (sandbox === undefined) return { exitedAt: timestampNow() };
    const { id, record, exit, shim } = sandbox;
    if (shim === undefined)
      return { state: NOT_READY, createdAt: record.createdAt, exitedAt: exit?.exitedAt };
    const call = { signal, timeout: ANSWER_TIMEOUT_MS };
    const { pid, state, info, createdAt, exitedAt, extra } = await shim.sandbox.sandboxStatus(
      { sandboxId: id, verbose },
      call,
    );
    const times = { createdAt: createdAt ?? record.createdAt, exitedAt: exitedAt ?? exit?.exitedAt };
    return { pid, state, info, extra, ...times, ...endpointOf(sandbox) };
  }

  async shutdown(key: SandboxKey, signal: AbortSignal): Promise<void> {
    await this.#turns.take(keyOf(key), signal, async () => {
      const sandbox = this.#demand(key);
      const { shim } = sandbox;
      sandbox.doom();
      reached('sandbox-doomed');
      const leaving = shim && (await this.#tellToGo(sandbox, shim));
      reached('sandbox-shut-down');
      await seeOff(sandbox, leaving);
      reached('sandbox-shim-gone');
      await sandbox.endKilled();
      await this.#options.killMembers(key);
      this.#sandboxes.delete(keyOf(key));
      sandbox.leave();
      await removeBundle(sandbox);
      reached('sandbox-removed');
    });
  }

  async metrics(key: SandboxKey, signal: AbortSignal) {
    const { client, id } = this.#demand(key);
    return (await client.sandboxMetrics({ sandboxId: id }, { signal, timeout: ANSWER_TIMEOUT_MS })).metrics;
  }

  /** The record is the store's alone: no shim has a call for it. */
  async update(key: SandboxKey): Promise<void> {
    this.#demand(key);
  }

  async #create(key: SandboxKey, request: NewSandbox, signal: AbortSignal): Promise<void> {
    const { id, namespace } = key;
    const { store, launchers, log, exchange } = this.#options;
    parseId(id);
    if (this.has(key)) throw alreadyExists(`sandbox ${id}: already exists`);
    const record = request.sandbox ?? store.get(namespace, id);
    const parts = { directory: this.#directory, launchers, log, onEnd: this.#onEnd.bind(this) };
    mkdirSync(this.#directory, { recursive: true, mode: 0o711 });
    const sandbox = await createSandbox({ ...parts, key, record, request }, signal);
    this.#sandboxes.set(keyOf(key), sandbox);
    announceSandbox(exchange, key);
  }

  /** @returns the shim if it goes; undefined for one that is gone, or knows of no sandbox @throws RpcError when it refuses to go */
  async #tellToGo(sandbox: ShimSandbox, shim: Shim): Promise<Shim | undefined> {
    const { id, log } = sandbox;
    try {
      await shim.sandbox.shutdownSandbox({ sandboxId: id }, { timeout: SHUTDOWN_TIMEOUT_MS });
      return shim;
    } catch (error) {
      if (!isCode(error, Code.Unavailable) && !isCode(error, Code.NotFound)) {
        sandbox.spare();
        throw error;
      }
      shim.close();
      log.debug({ err: error }, 'the shim of a sandbox was gone before it was shut down');
      return undefined;
    }
  }

  /** What runs in it ends with it: a shim of Moor's own has none of it, so that each is killed. */
  async #onEnd(sandbox: ShimSandbox, exit: ExitRecord): Promise<void> {
    const { exchange, killMembers } = this.#options;
    if (sandbox.launcher.own) await killMembers(sandbox);
    if (!exit.published) announceSandboxExit(exchange, sandbox, exit);
  }

  #demand(key: SandboxKey): ShimSandbox {
    const sandbox = this.#sandboxes.get(keyOf(key));
    if (sandbox === undefined) throw notFound(`sandbox ${JSON.stringify(key.id.slice(0, 160))}: not found`);
    return sandbox;
  }
}

/** Where tasks in the sandbox can be made, as clients write it. */
function endpointOf({ bootstrap }: ShimSandbox): { address: string; version: number } {
  const { address, apiVersion } = bootstrap;
  return { address: `ttrpc+unix://${address}`, version: apiVersion };
}

function noMore(): NewSandbox {
  return { rootfs: [], options: undefined, netnsPath: '', annotations: {}, sandbox: undefined };
}

function keyOf({ namespace, id }: SandboxKey): string {
  return `${namespace}/${id}`;
}
