/** Serves one call of a method: requests from the stream, the implementation, responses to the stream. */
import type { Logger } from 'pino';
import { Code, invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import type { CallContext, MethodDefinition } from '../../ttrpc/service.ts';
import type { Http2Stream } from '../http2/stream.ts';
import { Answer } from './answer.ts';
import { OpenCall, type OpenCalls } from './call.ts';
import { Interruptible } from './interruptible.ts';
import type { CallObserver, ObservedCall } from './observer.ts';
import { onlyMessage, Requests } from './requests.ts';
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

/** What all calls of a server have in common. */
export interface Serving {
  readonly calls: OpenCalls;
  readonly log: Logger;
  readonly observer?: CallObserver | undefined;
  /** Bytes of one message at most. */
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
}

/** Serves a call to its end. Never rejects. */
export async function serve(
  method: ServedMethod,
  stream: Http2Stream,
  { calls, log, observer, maxReceiveBytes, maxSendBytes }: Serving,
): Promise<void> {
  const { definition, implementation } = method;
  const answer = new Answer(stream, maxSendBytes);
  const call = new OpenCall(stream, answer, method.waits || definition.responseStream);
  const { path } = method;
  const { requestStream, responseStream } = definition;
  const observed = observer?.started({ path, requestStream, responseStream });
  let code: Code = Code.Ok;
  calls.open(call);
  try {
    const request = definition.requestStream
      ? requestsOf(definition, new Requests(call, maxReceiveBytes), observed)
      : decode(definition, await onlyMessage(call, maxReceiveBytes));
    if (!requestStream) observed?.received();
    if (definition.responseStream) {
      const responses = implementation(request, call) as AsyncIterable<unknown>;
      await send(responses[Symbol.asyncIterator](), call, definition, observed);
    } else {
      answer.write(encode(definition, await implementation(request, call)));
      observed?.sent();
    }
    answer.end();
  } catch (error) {
    // Nothing happens when the caller is gone.
    const status = statusOf(error, path, log);
    code = call.isLate ? Code.DeadlineExceeded : status.code;
    answer.fail(status);
  } finally {
    observed?.handled(code);
    calls.finish(call);
  }
}

function decode({ name, requestType }: MethodDefinition, bytes: Buffer): unknown {
  try {
    return requestType.decode(bytes);
  } catch (error) {
    throw invalidArgument(`malformed ${name} request: ${messageOf(error)}: invalid argument`, error);
  }
}

function encode({ responseType }: MethodDefinition, response: unknown): Uint8Array {
  return responseType.encode(responseType.fromPartial(response)).finish();
}

/** The caller's messages. Leaves the stream open when the reader stops early: it has yet to be answered. */
async function* requestsOf(
  definition: MethodDefinition,
  requests: Requests,
  observed: ObservedCall | undefined,
): AsyncGenerator<unknown, void, undefined> {
  for (;;) {
    const message = await requests.next();
    if (message === undefined) return;
    observed?.received();
    yield decode(definition, message);
  }
}

/** A stream of responses, as fast as the caller takes them. */
async function send(
  responses: AsyncIterator<unknown>,
  call: OpenCall,
  definition: MethodDefinition,
  observed: ObservedCall | undefined,
): Promise<void> {
  const { signal, stream, answer } = call;
  const waiting = new Interruptible(signal);
  let done = false;
  try {
    signal.throwIfAborted();
    let next = responses.next();
    // Headers at once rather than with the first message: the caller then knows that its subscription stands.
    answer.open();
    for (;;) {
      const result = await waiting.wait(next);
      if (result.done === true) {
        done = true;
        return;
      }
      if (!answer.write(encode(definition, result.value), call.sent)) await waiting.wait(stream.drained());
      observed?.sent();
      next = responses.next();
    }
  } finally {
    waiting.close();
    // Lets the implementation clean up. Not awaited: it may be in the middle of a wait that the signal ends in its own time.
    if (!done) responses.return?.()?.then(undefined, () => undefined);
  }
}
