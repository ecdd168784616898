/** Calls from the caller's side, between their request and their last response. */
import type { Channel } from './channel.ts';
import { watch } from './deadline.ts';
import { Code, internal, messageOf, RpcError, toRpcError } from './errors.ts';
import { Flag, FrameType } from './frame.ts';
import { Inbox } from './inbox.ts';
import { dataFrame, decodeResponse, lastDataFrame } from './message.ts';
import type { CallOptions, MessageType } from './service.ts';
import { closeLocal, closeRemote, isReceivable, isSendable, type StreamState } from './stream.ts';

/** What the connection does to a call. */
export interface PendingCall {
  frame(type: number, flags: number, payload: Uint8Array): void;
  /** The connection cannot bring more. */
  lose(error: RpcError): void;
}

function decode<T>(type: MessageType<T>, payload: Uint8Array): T {
  try {
    return type.decode(payload);
  } catch (error) {
    throw internal(`response cannot be decoded: ${messageOf(error)}`, error);
  }
}

/** The payload of a response. @throws RpcError with the peer's code when the call failed there. */
function payloadOf(frame: Uint8Array): Uint8Array | undefined {
  let response;
  try {
    response = decodeResponse(frame);
  } catch (error) {
    throw internal(`response cannot be decoded: ${messageOf(error)}`, error);
  }
  if (response.code !== Code.Ok) throw new RpcError(response.code, response.message);
  return response.payload;
}

const noPayload = new Uint8Array();

/** One request, one response. `forget` takes it off the connection. */
export class UnaryCall<T> implements PendingCall {
  readonly #type: MessageType<T>;
  readonly #resolve: (response: T) => void;
  readonly #reject: (error: RpcError) => void;
  readonly #forget: () => void;
  readonly #unwatch: () => void;

  constructor(
    type: MessageType<T>,
    options: CallOptions | undefined,
    resolve: (response: T) => void,
    reject: (error: RpcError) => void,
    forget: () => void,
  ) {
    this.#type = type;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#forget = forget;
    this.#unwatch = watch(options, (error) => this.lose(error));
  }

  frame(type: number, _flags: number, payload: Uint8Array): void {
    try {
      if (type !== FrameType.Response) throw internal(`frame of type ${type} on a unary call`);
      const response = decode(this.#type, payloadOf(payload) ?? noPayload);
      this.#finish();
      this.#resolve(response);
    } catch (error) {
      this.lose(toRpcError(error));
    }
  }

  lose(error: RpcError): void {
    this.#finish();
    this.#reject(error);
  }

  #finish(): void {
    this.#unwatch();
    this.#forget();
  }
}

export interface StreamCallParts<Request, Response> {
  readonly channel: Channel;
  readonly stream: number;
  readonly requestType: MessageType<Request>;
  readonly responseType: MessageType<Response>;
  readonly responseStream: boolean;
  readonly options: CallOptions | undefined;
  readonly forget: () => void;
}

/** A call in which at least one side sends any number of messages. Its responses are read from `responses`. */
export class StreamCall<Request, Response> implements PendingCall {
  readonly responses: Inbox<Response>;
  readonly #parts: StreamCallParts<Request, Response>;
  readonly #unwatch: () => void;
  #state: StreamState;
  #requests: AsyncIterator<unknown> | undefined;

  /** The request frame has been sent; it left this side open or closed. */
  constructor(parts: StreamCallParts<Request, Response>, state: 'open' | 'local-closed') {
    this.#parts = parts;
    this.#state = state;
    this.responses = new Inbox<Response>(
      parts.channel,
      (error) => this.#giveUp(error),
      () => this.#finish(),
    );
    this.#unwatch = watch(parts.options, (error) => this.#giveUp(error));
  }

  frame(type: number, flags: number, payload: Uint8Array): void {
    try {
      if (type === FrameType.Response) this.#response(payload);
      else if (type === FrameType.Data) this.#data(flags, payload);
      // Other types are for later versions of the protocol.
    } catch (error) {
      this.lose(toRpcError(error));
    }
  }

  lose(error: RpcError): void {
    this.#finish();
    this.responses.fail(error);
  }

  /** Sends the requests as fast as the connection takes them, then closes this side. Never rejects. */
  async pump(requests: AsyncIterable<Parameters<MessageType<Request>['fromPartial']>[0]>): Promise<void> {
    const { channel, stream, requestType } = this.#parts;
    try {
      const iterator = requests[Symbol.asyncIterator]();
      this.#requests = iterator;
      for (;;) {
        const next = await iterator.next();
        // Once the server has finished the stream, Go's server takes any further frame on it for an error.
        if (!isSendable(this.#state)) break;
        if (next.done === true) {
          this.#requests = undefined;
          channel.send(lastDataFrame(stream));
          this.#state = closeLocal(this.#state);
          return;
        }
        const message = requestType.fromPartial(next.value);
        if (!channel.send(dataFrame(stream, { type: requestType, message }))) await channel.drained();
      }
    } catch (error) {
      this.#giveUp(toRpcError(error));
    }
  }

  /** The only response of a call whose server does not stream. */
  async single(): Promise<Response> {
    const { value, done } = await this.responses.next();
    if (done === true) throw internal('the call ended without a response');
    return value;
  }

  #response(frame: Uint8Array): void {
    const payload = payloadOf(frame);
    // A response ends the stream. Without a payload it does only that, unless it is the one that is waited for.
    if (payload !== undefined || !this.#parts.responseStream) this.#receive(payload ?? noPayload);
    this.#finish();
    this.responses.end();
  }

  #data(flags: number, payload: Uint8Array): void {
    if (!this.#parts.responseStream) throw internal('data from a server that does not stream');
    if ((flags & Flag.NoData) === 0) this.#receive(payload);
    if ((flags & Flag.RemoteClosed) !== 0) {
      this.#finish();
      this.responses.end();
    }
  }

  #receive(payload: Uint8Array): void {
    if (isReceivable(this.#state))
      this.responses.push(decode(this.#parts.responseType, payload), payload.length);
  }

  /** This side wants no more of it. */
  #giveUp(error: RpcError): void {
    this.#finish();
    this.responses.abort(error);
  }

  /** A server's last word ends both directions: in ttrpc nothing may follow it from either side. */
  #finish(): void {
    if (isReceivable(this.#state)) this.#state = closeRemote(this.#state);
    if (isSendable(this.#state)) this.#state = closeLocal(this.#state);
    this.#unwatch();
    this.#parts.forget();
    const requests = this.#requests;
    this.#requests = undefined;
    if (requests !== undefined) void stop(requests);
  }
}

/** Lets a source clean up. It may be in the middle of producing, and what it then fails with has nobody to go to. */
async function stop(source: AsyncIterator<unknown>): Promise<void> {
  try {
    await source.return?.();
  } catch {
    // The call has its outcome already.
  }
}
