/** The way from a task to its shim, over lost connections and the shim's death. */
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { Code, isCode, notFound, unavailable } from '../../ttrpc/errors.ts';
import { whenPossible } from '../shortage.ts';
import type { ContainerId } from '../identifiers.ts';
import type { Bootstrap } from './bootstrap.ts';
import type { Exit } from './exit.ts';
import type { KnownState } from './known-state.ts';
import { unlessAborted } from './patience.ts';
import { Shim, type TaskClient } from './shim.ts';

/** A former daemon's shim, which has not been talked to. */
export interface Unmet {
  /** How its container is now, when that can be known without the shim. */
  readonly known: () => KnownState | undefined;
  /**
   * Talks to it, and calls `attach` or `dead`, or neither when there turns out to be no container.
   * @throws RpcError when it cannot be talked to for now
   */
  readonly meet: () => Promise<void>;
}

export type Life =
  /** Nobody but its creator may see the task. */
  | { readonly kind: 'creating' }
  | { readonly kind: 'live'; readonly shim: Shim }
  | ({ readonly kind: 'unmet' } & Unmet)
  /** The connection is lost, or yet to be made; `outcome` resolves when it is known what that means, and rejects when that has to wait. */
  | { readonly kind: 'losing'; readonly outcome: Promise<void> }
  /** The shim is gone and cleaned up after; this is how the first process ended. */
  | { readonly kind: 'dead'; readonly exit: Exit }
  | { readonly kind: 'deleted'; readonly exit: Exit }
  /** The daemon is stopping; shim and container are left alone. */
  | { readonly kind: 'left' };

/** A call to the shim, and what the task answers once there is no shim. */
export interface Question<T> {
  /** For the error text: "the connection was lost while …". */
  readonly action: string;
  readonly call: (task: TaskClient, shim: Shim) => Promise<T>;
  readonly whenDead: (exit: Exit) => T;
  readonly signal?: AbortSignal;
  /** The call is made again when the connection was lost under it and the shim turns out to live. */
  readonly repeat: boolean;
}

/** Milliseconds for an answer that a shim has at hand. */
export const PROBE_TIMEOUT_MS = 2000;
const RECONNECTIONS = 3;
const RECONNECTION_PAUSE_MS = 50;

export class ShimLink {
  readonly #id: ContainerId;
  readonly #log: Logger;
  readonly #bury: (bootstrap: Bootstrap) => Promise<void>;
  #life: Life = { kind: 'creating' };

  /** @param bury cleans up after the shim once it is dead and then calls `dead`; it must not reject */
  constructor(id: ContainerId, log: Logger, bury: (bootstrap: Bootstrap) => Promise<void>) {
    this.#id = id;
    this.#log = log;
    this.#bury = bury;
  }

  get life(): Life {
    return this.#life;
  }

  /** Of the shim that is connected to. */
  get address(): string | undefined {
    return this.#life.kind === 'live' ? this.#life.shim.bootstrap.address : undefined;
  }

  /** The shim is there, and will be connected to when it is needed. */
  unmet(shim: Unmet): void {
    this.#life = { kind: 'unmet', ...shim };
  }

  /** How the container is, as far as that is known without a shim that has not been talked to. */
  known(): KnownState | undefined {
    return this.#life.kind === 'unmet' ? this.#life.known() : undefined;
  }

  /**
   * Connects to a shim that is known by its record only.
   * @throws RpcError ResourceExhausted when that is not possible now; it is still to be met then
   */
  async meet(): Promise<void> {
    const life = this.#life;
    if (life.kind !== 'unmet') return this.settled();
    const become = (then: () => void) => {
      if (this.#life.kind === 'losing' && this.#life.outcome === outcome) then();
    };
    const outcome = life.meet().then(
      () => become(() => this.forget()),
      (error: unknown) => {
        become(() => this.unmet(life));
        throw error;
      },
    );
    this.#life = { kind: 'losing', outcome };
    await outcome;
  }

  attach(shim: Shim): void {
    if (this.#life.kind === 'left') {
      shim.close();
      return;
    }
    this.#life = { kind: 'live', shim };
    void shim.closed.then(() => {
      if (this.#life.kind !== 'live' || this.#life.shim !== shim) return;
      this.#life = { kind: 'losing', outcome: this.#lose(shim.bootstrap) };
    });
  }

  dead(exit: Exit): void {
    const { kind } = this.#life;
    if (kind !== 'deleted' && kind !== 'left') this.#life = { kind: 'dead', exit };
  }

  /** There is nothing to be reached any more. */
  forget(): void {
    this.#life = { kind: 'creating' };
  }

  /** From now on a closed connection is no surprise. */
  deleted(exit: Exit): void {
    this.#life = { kind: 'deleted', exit };
  }

  /**
   * Resolves when it is known whether a lost shim lives.
   * @throws RpcError ResourceExhausted when that cannot be found out now
   */
  async settled(): Promise<void> {
    while (this.#life.kind === 'losing') await this.#life.outcome;
  }

  leave(): void {
    const life = this.#life;
    this.#life = { kind: 'left' };
    if (life.kind === 'live') life.shim.close();
  }

  /**
   * Asks the shim, or answers in its place once it is gone.
   * @throws RpcError NotFound while the task is being created, Unavailable when the connection was lost and the call must not be
   *         repeated, ResourceExhausted when the shim cannot be connected to now; whatever the shim or `whenDead` throws
   */
  async ask<T>({ action, call, whenDead, signal, repeat }: Question<T>): Promise<T> {
    let asked = false;
    for (;;) {
      const life = this.#life;
      switch (life.kind) {
        case 'creating':
          throw notFound(`task ${this.#id}: not found`);
        case 'left':
          throw unavailable('the daemon is stopping');
        case 'unmet':
          await unlessAborted(this.meet(), signal);
          break;
        case 'losing':
          await unlessAborted(life.outcome, signal);
          break;
        case 'dead':
        case 'deleted':
          return whenDead(life.exit);
        case 'live':
          if (asked && !repeat) {
            throw unavailable(`task ${this.#id}: the connection to its shim was lost while ${action}`);
          }
          try {
            return await call(life.shim.task, life.shim);
          } catch (error) {
            if (!isCode(error, Code.Unavailable)) throw error;
            // A call fails a moment before its connection is known to be lost.
            await turn();
            if (!life.shim.lost) throw error;
            asked = true;
          }
      }
    }
  }

  async #lose(bootstrap: Bootstrap): Promise<void> {
    const again = await this.#reconnect(bootstrap);
    if (this.#life.kind !== 'losing') {
      again?.close();
    } else if (again !== undefined) {
      this.#log.info('the connection to the shim was lost, and is back');
      this.attach(again);
    } else {
      await this.#bury(bootstrap);
    }
  }

  /** A lost connection is not yet a dead shim. */
  async #reconnect(bootstrap: Bootstrap): Promise<Shim | undefined> {
    for (let attempt = 0; attempt < RECONNECTIONS; attempt += 1) {
      if (attempt > 0) await sleep(RECONNECTION_PAUSE_MS);
      let shim: Shim | undefined;
      try {
        shim = await whenPossible('the connection to a shim', () => Shim.connect(bootstrap), {
          log: this.#log,
          goOn: () => this.#life.kind === 'losing',
        });
        await shim.task.connect({ id: this.#id }, { timeout: PROBE_TIMEOUT_MS });
        return shim;
      } catch (error) {
        // Stuck is not dead: its container may be running well.
        if (shim !== undefined && isCode(error, Code.DeadlineExceeded)) return shim;
        shim?.close();
        if (shim === undefined) return undefined;
      }
    }
    return undefined;
  }
}
