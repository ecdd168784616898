/** Being attached to a container whose output Moor's own shim keeps. */
import type { AttachRequest, AttachResponse } from '../../proto/gen/moor/shim/v1.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import type { Shim } from './shim.ts';

/** What comes of a container: bytes of one output or the other. */
export type Output = AttachResponse;

/**
 * What the container writes from now on. Once this has resolved, nothing is missed.
 *
 * @param input what goes into the container's own; undefined for none
 * @throws RpcError FailedPrecondition for a container that was not made for it
 */
export async function attachTo(
  shim: Shim,
  id: string,
  input: AsyncIterable<Uint8Array> | undefined,
  signal: AbortSignal,
): Promise<AsyncIterable<Output>> {
  const output = shim.own.attach(requests(id, input), { signal })[Symbol.asyncIterator]();
  // The first answer says that it has begun.
  await output.next();
  return { [Symbol.asyncIterator]: () => output };
}

async function* requests(
  id: string,
  input: AsyncIterable<Uint8Array> | undefined,
): AsyncGenerator<PartialMessage<AttachRequest>> {
  yield { id, hasStdin: input !== undefined };
  if (input === undefined) return;
  for await (const stdin of input) yield { stdin: Buffer.from(stdin) };
  yield { closeStdin: true };
}
