import { failedPrecondition } from '../ttrpc/errors.ts';
import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';
import { now } from './timestamp.ts';

/** What a sandbox is at a time. */
export type SandboxState =
  | { readonly kind: 'created' }
  | { readonly kind: 'ready' }
  | { readonly kind: 'stopped'; readonly exitedAt: Timestamp };

/**
 * A sandbox without a process of its own, as containerd's shim for runc has them: it lives as long as its shim does, or until it is
 * stopped, and what runs in it ends with it.
 */
export class Sandbox {
  readonly id: string;
  readonly createdAt: Timestamp = now();
  /** Resolves with the time of its end. */
  readonly ended: Promise<Timestamp>;
  readonly #end: (at: Timestamp) => void;
  #state: SandboxState = { kind: 'created' };

  constructor(id: string) {
    this.id = id;
    const { promise, resolve } = Promise.withResolvers<Timestamp>();
    this.ended = promise;
    this.#end = resolve;
  }

  get state(): SandboxState {
    return this.#state;
  }

  /** Can be repeated, for a daemon that was not told. @throws RpcError FailedPrecondition for one that has been stopped */
  start(): void {
    if (this.#state.kind === 'stopped')
      throw failedPrecondition(`sandbox ${this.id} has been stopped: failed precondition`);
    this.#state = { kind: 'ready' };
  }

  stop(): void {
    if (this.#state.kind === 'stopped') return;
    const exitedAt = now();
    this.#state = { kind: 'stopped', exitedAt };
    this.#end(exitedAt);
  }
}
