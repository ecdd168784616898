/** One sandbox that has a shim. The shim is the truth about it as long as it lives; how it has ended is on record. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { internal, messageOf, unavailable } from '../../ttrpc/errors.ts';
import { reached } from '../failpoint.ts';
import type { ContainerId, Namespace } from '../identifiers.ts';
import type { Bootstrap } from '../runtime/bootstrap.ts';
import type { Bundle } from '../runtime/bundle.ts';
import { type Exit, type ExitRecord, KILLED } from '../runtime/exit.ts';
import type { Launcher } from '../runtime/launcher.ts';
import { Shim, type SandboxClient } from '../runtime/shim.ts';
import { timestampNow } from '../timestamp.ts';
import { seeOff } from './ending.ts';
import { type SandboxRecord, writeRecord } from './record.ts';

const RECONNECTIONS = 3;
const RECONNECTION_PAUSE_MS = 50;
const PING_TIMEOUT_MS = 2000;

export interface ShimSandboxParts {
  readonly bundle: Bundle;
  readonly launcher: Launcher;
  readonly bootstrap: Bootstrap;
  readonly record: SandboxRecord;
  readonly log: Logger;
  /** Tells subscribers how it has ended, and ends what runs in it. */
  readonly onEnd: (sandbox: ShimSandbox, exit: ExitRecord) => Promise<void>;
  /** Ends the reading of its shim's log. */
  readonly stopLog: () => void;
}

export class ShimSandbox {
  readonly namespace: Namespace;
  readonly id: ContainerId;
  readonly bundle: Bundle;
  readonly launcher: Launcher;
  readonly bootstrap: Bootstrap;
  readonly log: Logger;
  /** Resolves when it has ended and that is on record. */
  readonly ended: Promise<Exit>;
  readonly #resolveEnd: (exit: Exit) => void;
  readonly #onEnd: ShimSandboxParts['onEnd'];
  readonly #stopLog: () => void;
  readonly #leaving = new AbortController();
  #record: SandboxRecord;
  #shim: Shim | undefined;
  #exit: ExitRecord | undefined;
  #ending: Promise<void> | undefined;
  /** How far it was when its removal began: a connection that ends is no surprise then. */
  #before: SandboxRecord | undefined;

  constructor({ bundle, launcher, bootstrap, record, log, onEnd, stopLog }: ShimSandboxParts) {
    this.namespace = bundle.namespace;
    this.id = bundle.id;
    this.bundle = bundle;
    this.launcher = launcher;
    this.bootstrap = bootstrap;
    this.log = log;
    this.#record = record;
    this.#onEnd = onEnd;
    this.#stopLog = stopLog;
    const { promise, resolve } = Promise.withResolvers<Exit>();
    this.ended = promise;
    this.#resolveEnd = resolve;
  }

  get record(): SandboxRecord {
    return this.#record;
  }

  /** How it has ended; undefined as long as it has not. */
  get exit(): Exit | undefined {
    return this.#exit;
  }

  /** The connection with its shim, as long as there is one. */
  get shim(): Shim | undefined {
    return this.#shim?.lost === true ? undefined : this.#shim;
  }

  /** @throws RpcError Unavailable when its shim is gone */
  get client(): SandboxClient {
    const { shim } = this;
    if (shim === undefined) throw unavailable(`the shim of sandbox ${this.id} is gone`);
    return shim.sandbox;
  }

  /** The shim is there. */
  attach(shim: Shim): void {
    this.#shim = shim;
    void shim.closed.then(() => {
      if (this.#shim === shim && this.#before === undefined && !this.#leaving.signal.aborted)
        void this.#lost();
    });
    if (this.#record.step !== 'created') void this.#watch(shim);
  }

  /** It runs from now on. */
  started(pid: number): void {
    this.#write({ ...this.#record, step: 'started', pid });
    if (this.#shim !== undefined) void this.#watch(this.#shim);
  }

  /** It is about to be removed. */
  doom(): void {
    this.#before ??= this.#record;
    this.#write({ ...this.#record, step: 'doomed' });
  }

  /** It was not removed after all: its shim refuses to go. */
  spare(): void {
    if (this.#before !== undefined) this.#write(this.#before);
    this.#before = undefined;
  }

  /** It had ended, as its bundle says, before this daemon began. */
  recall(exit: ExitRecord): Promise<void> {
    return this.#end(exit);
  }

  /** It has ended without a word: its shim is gone. */
  endKilled(): Promise<void> {
    const { pid } = this.#record;
    return this.#end({ pid, status: KILLED, exitedAt: timestampNow(), published: false });
  }

  /** The daemon stops, or has removed it: nothing more is asked of the shim. */
  leave(): void {
    this.#leaving.abort(unavailable('the daemon is stopping'));
    this.#shim?.close();
    this.#stopLog();
  }

  async #watch(shim: Shim): Promise<void> {
    const { signal } = this.#leaving;
    try {
      const { exitStatus, exitedAt } = await shim.sandbox.waitSandbox({ sandboxId: this.id }, { signal });
      const { pid } = this.#record;
      await this.#end({ pid, status: exitStatus, exitedAt: exitedAt ?? timestampNow(), published: false });
    } catch (error) {
      // The end of the connection is its end then.
      if (!signal.aborted)
        this.log.debug({ error: messageOf(error) }, 'the shim does not wait for its sandbox');
    }
  }

  /** A lost connection is not yet a dead shim. */
  async #lost(): Promise<void> {
    for (let attempt = 0; attempt < RECONNECTIONS && this.#exit === undefined; attempt += 1) {
      if (attempt > 0) await sleep(RECONNECTION_PAUSE_MS);
      let shim: Shim | undefined;
      try {
        shim = await Shim.connect(this.bootstrap);
        await shim.sandbox.pingSandbox({ sandboxId: this.id }, { timeout: PING_TIMEOUT_MS });
        return this.attach(shim);
      } catch (error) {
        this.log.debug({ error: messageOf(error) }, 'the shim of a sandbox cannot be reached');
        shim?.close();
        if (shim === undefined) break;
      }
    }
    if (this.#leaving.signal.aborted || this.#before !== undefined) return;
    this.log.warn('the shim of a sandbox is gone');
    await seeOff(this, undefined);
    await this.endKilled();
  }

  /** Once, whoever is the first to say it. Never rejects. */
  #end(exit: ExitRecord): Promise<void> {
    this.#ending ??= this.#ended(exit);
    return this.#ending;
  }

  async #ended(exit: ExitRecord): Promise<void> {
    this.#exit = exit;
    try {
      if (!exit.published) this.bundle.writeExit(exit);
      reached('sandbox-ended');
      await this.#onEnd(this, exit);
      if (!exit.published) this.bundle.writeExit({ ...exit, published: true });
    } catch (error) {
      this.log.error({ err: internal(messageOf(error), error) }, 'the end of a sandbox is not put in order');
    }
    this.#resolveEnd(exit);
  }

  #write(record: SandboxRecord): void {
    writeRecord(this.bundle.path, record);
    this.#record = record;
  }
}
