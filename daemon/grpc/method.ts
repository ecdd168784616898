/** Turns the function that implements a method into what grpc-js calls: one function for each of the four kinds. */
import {
  Metadata,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type handleBidiStreamingCall,
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { setImmediate } from 'node:timers/promises';
import type { Logger } from 'pino';
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import type { CallContext, MethodDefinition } from '../../ttrpc/service.ts';
import type { OpenCall, OpenCalls } from './call.ts';
import { statusOf } from './status.ts';

/** A method with the function that serves it. The kinds of the two streams are in the definition. */
export interface ServedMethod {
  readonly definition: MethodDefinition;
  /** `/package.Service/Method`. */
  readonly path: string;
  /** See `OpenCall.waits`; streams that the server sends always do. */
  readonly waits: boolean;
  readonly implementation: (request: unknown, context: CallContext) => unknown;
}

interface Serving {
  readonly method: ServedMethod;
  readonly calls: OpenCalls;
  readonly log: Logger;
}

/** Of grpc-js: a kind's name and its handler, on bytes. */
export type Handler =
  | { readonly kind: 'unary'; readonly handle: handleUnaryCall<Buffer, Buffer> }
  | { readonly kind: 'clientStream'; readonly handle: handleClientStreamingCall<Buffer, Buffer> }
  | { readonly kind: 'serverStream'; readonly handle: handleServerStreamingCall<Buffer, Buffer> }
  | { readonly kind: 'bidi'; readonly handle: handleBidiStreamingCall<Buffer, Buffer> };

export function handlerOf(method: ServedMethod, calls: OpenCalls, log: Logger): Handler {
  const serving = { method, calls, log };
  const { requestStream, responseStream } = method.definition;
  if (responseStream) {
    return requestStream
      ? { kind: 'bidi', handle: (call) => void answerStream(serving, call) }
      : { kind: 'serverStream', handle: (call) => void answerStream(serving, call) };
  }
  return requestStream
    ? { kind: 'clientStream', handle: (call, respond) => void answer(serving, call, respond) }
    : { kind: 'unary', handle: (call, respond) => void answer(serving, call, respond) };
}

function decode({ method }: Serving, bytes: Buffer): unknown {
  try {
    return method.definition.requestType.decode(bytes);
  } catch (error) {
    throw invalidArgument(
      `malformed ${method.definition.name} request: ${messageOf(error)}: invalid argument`,
      error,
    );
  }
}

function encode({ method }: Serving, response: unknown): Buffer {
  const { responseType } = method.definition;
  const bytes = responseType.encode(responseType.fromPartial(response)).finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The bytes of a client's stream as messages. Leaves the call open when the reader stops early: it has yet to be answered. */
async function* requestsOf(
  serving: Serving,
  call: ServerReadableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>,
  signal: AbortSignal,
): AsyncGenerator<unknown, void, undefined> {
  try {
    for await (const bytes of call.iterator({ destroyOnReturn: false }))
      yield decode(serving, bytes as Buffer);
  } catch (error) {
    // grpc-js destroys the stream of a cancelled call; why is known better here.
    throw signal.aborted ? signal.reason : error;
  }
  // Node lets a stream that was reset or lost end like one that was finished, and only then says that it was not.
  await setImmediate();
  signal.throwIfAborted();
}

/** One response. */
async function answer(
  serving: Serving,
  call: ServerUnaryCall<Buffer, Buffer> | ServerReadableStream<Buffer, Buffer>,
  respond: sendUnaryData<Buffer>,
): Promise<void> {
  const { method, calls, log } = serving;
  const open = calls.open(call, method.waits);
  try {
    const request =
      'request' in call ? decode(serving, call.request) : requestsOf(serving, call, open.signal);
    const response = encode(serving, await method.implementation(request, open));
    respond(null, response);
  } catch (error) {
    respond(statusOf(error, method.path, log));
  } finally {
    calls.finish(open);
  }
}

/** A stream of responses, as fast as the caller takes them. */
async function answerStream(
  serving: Serving,
  call: ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>,
): Promise<void> {
  const { method, calls, log } = serving;
  const open = calls.open(call, true);
  try {
    const request =
      'request' in call ? decode(serving, call.request) : requestsOf(serving, call, open.signal);
    const responses = method.implementation(request, open) as AsyncIterable<unknown>;
    await send(responses[Symbol.asyncIterator](), open, call, serving);
    call.end();
  } catch (error) {
    // The way grpc-js is told of a stream's failure. Nothing happens when the call has been cancelled.
    call.emit('error', statusOf(error, method.path, log));
  } finally {
    calls.finish(open);
  }
}

async function send(
  responses: AsyncIterator<unknown>,
  { signal }: OpenCall,
  call: ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>,
  serving: Serving,
): Promise<void> {
  const waiting = new Interruptible(signal);
  let done = false;
  try {
    signal.throwIfAborted();
    let next = responses.next();
    // Headers at once rather than with the first message: the caller then knows that its subscription stands.
    call.sendMetadata(new Metadata());
    for (;;) {
      const result = await waiting.wait(next);
      if (result.done === true) {
        done = true;
        return;
      }
      if (!call.write(encode(serving, result.value))) await waiting.wait(drained(call));
      next = responses.next();
    }
  } finally {
    waiting.close();
    // Lets the implementation clean up. Not awaited: it may be in the middle of a wait that the signal ends in its own time.
    if (!done) responses.return?.()?.then(undefined, () => undefined);
  }
}

/**
 * Waits for one promise after another, or for the signal. `Promise.race` would do, but it leaves something behind on the longest
 * lived of its promises each time, and a subscription waits millions of times.
 */
class Interruptible {
  readonly #signal: AbortSignal;
  #reject: ((reason: unknown) => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener('abort', this.#interrupt);
  }

  wait<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      promise.then(resolve, reject);
      if (this.#signal.aborted) this.#interrupt();
    });
  }

  close(): void {
    this.#signal.removeEventListener('abort', this.#interrupt);
  }

  readonly #interrupt = (): void => this.#reject?.(this.#signal.reason);
}

function drained(
  call: ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>,
): Promise<void> {
  return new Promise((resolve) => {
    call.once('drain', resolve);
  });
}
