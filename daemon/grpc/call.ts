/** One call in progress, seen from the server: when it must stop, and what its caller said. */
import type { Metadata as GrpcMetadata } from '@grpc/grpc-js';
import { type RpcError, cancelled } from '../../ttrpc/errors.ts';
import type { CallContext, Metadata } from '../../ttrpc/service.ts';

/** The part of grpc-js's four kinds of server calls that they have in common. */
export interface WireCall {
  readonly metadata: GrpcMetadata;
  on(event: 'cancelled', listener: () => void): unknown;
}

export class OpenCall implements CallContext {
  /** Waits for something that may never happen (an exit, an event), so that a draining server ends it at once. */
  readonly waits: boolean;
  readonly #abort = new AbortController();
  readonly #call: WireCall;
  #metadata: Metadata | undefined;
  #finished = false;

  constructor(call: WireCall, waits: boolean) {
    this.#call = call;
    this.waits = waits;
    // Also emitted by grpc-js when the stream of an answered call is closed in good order.
    call.on('cancelled', () => {
      // The caller of one that ran into its deadline has been told so by grpc-js, or has given up by itself.
      if (!this.#finished) this.stop(cancelled('the caller is gone, or its deadline has passed'));
    });
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get metadata(): Metadata {
    this.#metadata ??= new Map(
      Object.entries(this.#call.metadata.toJSON()).map(([key, values]) => [
        key,
        values.map((value) => (typeof value === 'string' ? value : value.toString('base64'))),
      ]),
    );
    return this.#metadata;
  }

  /** Tells the implementation to end, and why. */
  stop(reason: RpcError): void {
    this.#abort.abort(reason);
  }

  finish(): void {
    this.#finished = true;
  }
}

/** Calls in progress. */
export class OpenCalls {
  readonly #calls = new Set<OpenCall>();
  #draining: RpcError | undefined;
  #idle: (() => void)[] = [];

  open(call: WireCall, waits: boolean): OpenCall {
    const opened = new OpenCall(call, waits);
    this.#calls.add(opened);
    if (waits && this.#draining !== undefined) opened.stop(this.#draining);
    return opened;
  }

  finish(call: OpenCall): void {
    call.finish();
    this.#calls.delete(call);
    if (this.#calls.size > 0) return;
    for (const resolve of this.#idle) resolve();
    this.#idle = [];
  }

  /** Ends the calls that wait, now and from now on. Resolves when no call is left. */
  drain(reason: RpcError): Promise<void> {
    this.#draining = reason;
    for (const call of this.#calls) if (call.waits) call.stop(reason);
    if (this.#calls.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle.push(resolve);
    });
  }

  stopAll(reason: RpcError): void {
    for (const call of this.#calls) call.stop(reason);
  }
}
