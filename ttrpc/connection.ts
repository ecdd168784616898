/** One connection from the serving side: its streams, and the calls that are served on them. */
import type { Socket } from 'node:net';
import { Channel } from './channel.ts';
import {
  cancelled,
  deadlineExceeded,
  invalidArgument,
  messageOf,
  resourceExhausted,
  type RpcError,
  unavailable,
  unimplemented,
} from './errors.ts';
import { FrameError, FrameType } from './frame.ts';
import { decodeRequest, errorFrame, type Request } from './message.ts';
import { metadataOf } from './metadata.ts';
import { type Link, ServedCall, type ServedMethod } from './served-call.ts';

/** By the full name of the service, then by the name of the method. */
export type ServedMethods = ReadonlyMap<string, ReadonlyMap<string, ServedMethod>>;

/** Calls that one connection may have in flight. */
const MAX_CALLS = 1 << 14;

/** A client that leaves this many bytes of answers unread is not read from until it has taken them. */
const MAX_BACKLOG_BYTES = 4 << 20;

export class Connection implements Link {
  /** Resolves when the connection is gone. Never rejects. */
  readonly closed: Promise<void>;
  readonly #methods: ServedMethods;
  readonly #onError: (error: Error) => void;
  readonly #channel: Channel;
  readonly #calls = new Map<number, ServedCall>();
  #lastStream = 0;
  #draining = false;
  #backedUp = false;

  constructor(socket: Socket, methods: ServedMethods, onError: (error: Error) => void) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#methods = methods;
    this.#onError = onError;
    this.#channel = new Channel(socket, {
      frame: (stream, type, flags, payload) => this.#frame(stream, type, flags, payload),
      violated: (error) => this.#violated(error),
      closed: (error) => {
        const reason = cancelled('the connection of the caller is lost', error);
        for (const call of this.#calls.values()) call.abort(reason);
        // A peer that dies resets its connections: that is no error of ours.
        if (error instanceof FrameError) onError(error);
        resolve();
      },
    });
  }

  send(frame: Uint8Array): boolean {
    const flowing = this.#channel.send(frame);
    if (!flowing && !this.#backedUp && this.#channel.backlog > MAX_BACKLOG_BYTES) {
      this.#backedUp = true;
      this.#channel.hold();
      void this.#channel.drained().then(() => {
        this.#backedUp = false;
        this.#channel.release();
      });
    }
    return flowing;
  }

  drained(): Promise<void> {
    return this.#channel.drained();
  }

  hold(): void {
    this.#channel.hold();
  }

  release(): void {
    this.#channel.release();
  }

  /** Takes no more calls, and closes when those in flight are answered. */
  drain(): void {
    this.#draining = true;
    if (this.#calls.size === 0) this.#channel.end();
  }

  destroy(): void {
    this.#channel.destroy();
  }

  #frame(stream: number, type: number, flags: number, payload: Uint8Array): void {
    if (type === FrameType.Request) this.#request(stream, flags, payload);
    else if (type === FrameType.Data) this.#data(stream, flags, payload);
    // Other types are for later versions of the protocol; Go's server passes over them too.
  }

  #request(stream: number, flags: number, payload: Uint8Array): void {
    if (stream % 2 === 0) {
      this.#refuse(stream, invalidArgument('a stream that a client opens has an odd number'));
      return;
    }
    if (stream <= this.#lastStream) {
      this.#refuse(stream, invalidArgument('a stream cannot be used again: numbers must increase'));
      return;
    }
    this.#lastStream = stream;
    let request;
    try {
      request = decodeRequest(payload);
    } catch (error) {
      this.#refuse(stream, invalidArgument(`request cannot be decoded: ${messageOf(error)}`, error));
      return;
    }
    const method = this.#admit(request);
    if ('code' in method) this.#refuse(stream, method);
    else this.#start(stream, flags, request, method);
  }

  #start(stream: number, flags: number, request: Request, method: ServedMethod): void {
    const call = new ServedCall({
      link: this,
      stream,
      method,
      metadata: metadataOf(request.metadata),
      timeoutNano: request.timeoutNano,
      forget: () => this.#forget(stream),
      onError: this.#onError,
    });
    this.#calls.set(stream, call);
    call.start(flags, request.payload);
  }

  /** The method that serves a request, or why it is not served. */
  #admit(request: Request): ServedMethod | RpcError {
    if (this.#draining) return unavailable('the server is closing');
    const service = this.#methods.get(request.service);
    if (service === undefined) return unimplemented(`unknown service ${request.service}`);
    const method = service.get(request.method);
    if (method === undefined) return unimplemented(`unknown method ${request.service}/${request.method}`);
    if (request.timeoutNano < 0) return deadlineExceeded('the deadline had passed when the request was sent');
    if (this.#calls.size >= MAX_CALLS)
      return resourceExhausted(`${MAX_CALLS} calls are in flight on this connection`);
    return method;
  }

  #data(stream: number, flags: number, payload: Uint8Array): void {
    const call = this.#calls.get(stream);
    if (call !== undefined) call.data(flags, payload);
    else if (stream > this.#lastStream)
      this.#refuse(stream, invalidArgument('data on a stream that was not opened'));
    // Else the call is over: data may have crossed with our last word.
  }

  #refuse(stream: number, error: RpcError): void {
    this.send(errorFrame(stream, error));
  }

  #violated(error: FrameError): void {
    if (error.stream !== undefined) this.#refuse(error.stream, error);
  }

  #forget(stream: number): void {
    this.#calls.delete(stream);
    if (this.#draining && this.#calls.size === 0) this.#channel.end();
  }
}
