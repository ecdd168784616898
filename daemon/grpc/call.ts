/** One call in progress, seen from the server: when it must stop, and what its caller said. */
import { Code, type RpcError, cancelled } from '../../ttrpc/errors.ts';
import type { CallContext, Metadata } from '../../ttrpc/service.ts';
import type { Http2Stream } from '../http2/stream.ts';
import type { Answer } from './answer.ts';
import { pidBehind } from './peer.ts';
import { timeoutOf } from './timeout.ts';

export class OpenCall implements CallContext {
  /** Waits for something that may never happen (an exit, an event), so that a draining server ends it at once. */
  readonly waits: boolean;
  readonly stream: Http2Stream;
  readonly answer: Answer;
  readonly #deadline: NodeJS.Timeout | undefined;
  #abort: AbortController | undefined;
  #stopped: RpcError | undefined;
  #finished = false;
  #sent: (() => void) | undefined;
  #isLate = false;

  constructor(stream: Http2Stream, answer: Answer, waits: boolean) {
    this.stream = stream;
    this.answer = answer;
    this.waits = waits;
    const timeout = timeoutOf(stream.headers.one('grpc-timeout'));
    if (timeout !== undefined) this.#deadline = setTimeout(() => this.#late(), timeout);
  }

  /** Made when somebody wants it: most calls are answered before. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#stopped !== undefined) this.#abort.abort(this.#stopped);
    }
    return this.#abort.signal;
  }

  get metadata(): Metadata {
    return this.stream.headers.fields;
  }

  get peerPid(): number | undefined {
    return pidBehind(this.stream.socket);
  }

  onSent(sent: () => void): void {
    this.#sent = sent;
  }

  /** To be called when a message has been sent; undefined when nobody wants to know. */
  get sent(): (() => void) | undefined {
    return this.#sent;
  }

  /** Nobody is there any more to be answered. */
  gone(): void {
    this.stop(cancelled('the caller is gone'));
  }

  /** Tells the implementation to end, and why. */
  stop(reason: RpcError): void {
    if (this.#finished || this.#stopped !== undefined) return;
    this.#stopped = reason;
    this.#abort?.abort(reason);
  }

  /** Its caller has been told that it took too long. */
  get isLate(): boolean {
    return this.#isLate;
  }

  finish(): void {
    this.#finished = true;
    clearTimeout(this.#deadline);
  }

  #late(): void {
    this.#isLate = true;
    this.answer.fail({ code: Code.DeadlineExceeded, details: 'context deadline exceeded' });
    this.stop(cancelled('its deadline has passed'));
  }
}

/** Calls in progress. */
export class OpenCalls {
  readonly #calls = new Set<OpenCall>();
  #draining: RpcError | undefined;
  #idle: (() => void)[] = [];

  open(call: OpenCall): void {
    this.#calls.add(call);
    if (call.waits && this.#draining !== undefined) call.stop(this.#draining);
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
