/** One call from the serving side, between its request and its last response. */
import { startDeadline } from './deadline.ts';
import { deadlineExceeded, invalidArgument, messageOf, RpcError, toRpcError } from './errors.ts';
import { Flag } from './frame.ts';
import { Inbox, type Tap } from './inbox.ts';
import { dataFrame, errorFrame, lastDataFrame, responseFrame } from './message.ts';
import type { CallContext, MessageType, Metadata, MethodDefinition } from './service.ts';
import {
  closeLocal,
  closeRemote,
  isReceivable,
  isSendable,
  type Sendable,
  type StreamState,
} from './stream.ts';

/** A method and the function that serves it. */
export interface ServedMethod {
  /** `containerd.task.v2.Task/State`. */
  readonly fullName: string;
  readonly definition: MethodDefinition;
  readonly serve: (request: unknown, context: CallContext) => unknown;
}

/** What a call needs of its connection. */
export interface Link extends Tap {
  send(frame: Uint8Array): boolean;
  drained(): Promise<void>;
}

export interface ServedCallParts {
  readonly link: Link;
  readonly stream: number;
  readonly method: ServedMethod;
  readonly metadata: Metadata;
  /** 0 for none. */
  readonly timeoutNano: number;
  /** Takes the call off its connection. */
  readonly forget: () => void;
  /** Told of what an implementation throws without a kind: a defect, most likely. */
  readonly onError: (error: Error) => void;
}

export class ServedCall implements CallContext {
  readonly metadata: Metadata;
  readonly #parts: ServedCallParts;
  #state: StreamState = 'open';
  #requests: Inbox<unknown> | undefined;
  #controller: AbortController | undefined;
  #reason: RpcError | undefined;
  #stopDeadline: (() => void) | undefined;

  constructor(parts: ServedCallParts) {
    this.#parts = parts;
    this.metadata = parts.metadata;
  }

  /** Made when first asked for: most calls are over before anyone would listen. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** Begins to serve. The flags and the payload are those of the request. */
  start(flags: number, payload: Uint8Array | undefined): void {
    const { definition } = this.#parts.method;
    const { timeoutNano } = this.#parts;
    if (timeoutNano > 0) {
      const milliseconds = timeoutNano / 1e6;
      this.#stopDeadline = startDeadline(milliseconds, () => {
        this.abort(deadlineExceeded(`not served within ${milliseconds} ms`));
      });
    }
    if (!definition.requestStream) {
      this.#state = 'remote-closed';
      try {
        void this.#serve(this.#decode(payload ?? noPayload));
      } catch (error) {
        this.#refuse(toRpcError(error));
      }
      return;
    }
    const requests = new Inbox<unknown>(
      this.#parts.link,
      (error) => this.abort(error),
      () => {},
    );
    this.#requests = requests;
    // Go's client puts no first message into the request of a stream, but its server takes one.
    const first = payload === undefined ? Flag.NoData : Flag.None;
    const last = (flags & Flag.RemoteOpen) === 0 ? Flag.RemoteClosed : Flag.None;
    this.data(first | last, payload ?? noPayload);
    if (isSendable(this.#state)) void this.#serve(requests);
  }

  /** A data frame, or what counts as one. */
  data(flags: number, payload: Uint8Array): void {
    if (!isReceivable(this.#state)) {
      this.#refuse(invalidArgument('data on a stream that its sender has closed'));
      return;
    }
    try {
      if ((flags & Flag.NoData) === 0) this.#requests?.push(this.#decode(payload), payload.length);
    } catch (error) {
      this.#refuse(toRpcError(error));
      return;
    }
    if ((flags & Flag.RemoteClosed) !== 0) {
      this.#state = closeRemote(this.#state);
      this.#requests?.end();
    }
  }

  /** Tells the implementation that nobody waits any more. What it answers is still sent, if it can be. */
  abort(reason: RpcError): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#requests?.abort(reason);
    this.#controller?.abort(reason);
  }

  #decode(payload: Uint8Array): unknown {
    const type: MessageType<unknown> = this.#parts.method.definition.requestType;
    try {
      return type.decode(payload);
    } catch (error) {
      throw invalidArgument(`request cannot be decoded: ${messageOf(error)}`, error);
    }
  }

  /** Ends the call over something its peer did; an implementation that is at work is told through its signal. */
  #refuse(error: RpcError): void {
    if (isSendable(this.#state)) this.#finish(this.#state, errorFrame(this.#parts.stream, error));
    this.abort(error);
  }

  async #serve(request: unknown): Promise<void> {
    let last: Uint8Array;
    try {
      const { definition, serve } = this.#parts.method;
      const answer = serve(request, this);
      last = definition.responseStream
        ? await this.#sendAll(answer as AsyncIterable<unknown>)
        : await this.#response(answer);
    } catch (error) {
      last = errorFrame(this.#parts.stream, this.#status(error));
    }
    // Not so when the call was refused while it was served.
    if (isSendable(this.#state)) this.#finish(this.#state, last);
  }

  async #response(answer: unknown): Promise<Uint8Array> {
    const type: MessageType<unknown> = this.#parts.method.definition.responseType;
    return responseFrame(this.#parts.stream, { type, message: type.fromPartial((await answer) as object) });
  }

  async #sendAll(answers: AsyncIterable<unknown>): Promise<Uint8Array> {
    const { link, stream } = this.#parts;
    const type: MessageType<unknown> = this.#parts.method.definition.responseType;
    for await (const answer of answers) {
      if (this.#reason !== undefined) throw this.#reason;
      const message = type.fromPartial(answer);
      if (!link.send(dataFrame(stream, { type, message }))) await link.drained();
    }
    return lastDataFrame(stream);
  }

  #status(error: unknown): RpcError {
    if (error instanceof RpcError) return error;
    // What listens to the signal throws an AbortError: that says less than the reason does.
    if (this.#reason !== undefined) return this.#reason;
    this.#parts.onError(new Error(`${this.#parts.method.fullName}: ${messageOf(error)}`, { cause: error }));
    return toRpcError(error);
  }

  /** The server's last word finishes a stream, whether or not the client has said its own. */
  #finish(state: Sendable, last: Uint8Array): void {
    const closed = closeLocal(state);
    this.#state = closed === 'finished' ? closed : closeRemote(closed);
    this.#stopDeadline?.();
    this.#requests?.fail(invalidArgument('the call is over'));
    this.#parts.link.send(last);
    this.#parts.forget();
  }
}

const noPayload = new Uint8Array();
