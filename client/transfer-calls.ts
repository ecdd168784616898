/** Calls of the transfer service, with the streams beside them. */
import { StreamingDefinition } from '../proto/gen/containerd/services/streaming.ts';
import { TransferDefinition } from '../proto/gen/containerd/services/transfer.ts';
import { Progress as WireProgress } from '../proto/gen/containerd/types/transfer.ts';
import { internal, messageOf, toRpcError } from '../ttrpc/errors.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import { type Any, typeNameOf } from './any.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import { Stream } from './stream.ts';
import type { Progress, TransferOptions } from './transfer-options.ts';

const PROGRESS = 'containerd.types.transfer.Progress';

/** Opens a stream for something to be done with it. An endless one is left by the daemon without an end. */
export type Open = (
  use: (stream: Stream) => Promise<void>,
  options?: { readonly isEndless?: boolean },
) => Promise<string>;

export class TransferCalls {
  readonly #transfer: ServiceClient<typeof TransferDefinition>;
  readonly #streaming: ServiceClient<typeof StreamingDefinition>;

  constructor(connection: Connection, headers: Headers) {
    this.#transfer = connection.service(TransferDefinition, headers);
    this.#streaming = connection.service(StreamingDefinition, headers);
  }

  /**
   * Runs a transfer with the streams that its ends need. When it fails, what was done with them has stopped when this
   * rejects.
   */
  async run(
    options: TransferOptions,
    prepare: (open: Open) => Promise<{ source: Any; destination: Any }>,
  ): Promise<void> {
    const { onProgress, ...rest } = options;
    const call = callOf(rest);
    const stop = new AbortController();
    const signal = call.signal === undefined ? stop.signal : AbortSignal.any([call.signal, stop.signal]);
    const begun: Promise<void>[] = [];
    const toFinish: Promise<void>[] = [];
    let failure: Error | undefined;
    let broken: Error | undefined;
    const open: Open = async (use, { isEndless = false } = {}) => {
      const stream = await Stream.open(this.#streaming, signal);
      const used = unlessAborted(use(stream), signal).catch((error: unknown) => {
        if (signal.aborted) return;
        const cause = error instanceof Error ? error : internal(messageOf(error));
        if (stream.hasFailedWith(error)) {
          broken ??= cause;
          return;
        }
        failure ??= cause;
        stop.abort(cause);
      });
      begun.push(used);
      if (!isEndless) toFinish.push(used);
      return stream.id;
    };
    try {
      const ends = await prepare(open);
      const progressStream =
        onProgress === undefined ? '' : await open((stream) => tellProgress(stream, onProgress));
      await this.#transfer.transfer({ ...ends, options: { progressStream } }, { ...call, signal });
      await Promise.all(toFinish);
      failure ??= broken;
    } catch (error) {
      failure ??= toRpcError(error);
    } finally {
      stop.abort(new Error('the transfer is over'));
      await Promise.all(begun);
    }
    if (failure !== undefined) throw failure;
  }
}

async function tellProgress(stream: Stream, tell: (progress: Progress) => void): Promise<void> {
  for (let message = await stream.receive(); message !== undefined; message = await stream.receive()) {
    if (typeNameOf(message) !== PROGRESS) continue;
    const { event, name, parents, progress, total, desc } = WireProgress.decode(message.value);
    tell({ event, name, parents, progress: Number(progress), total: Number(total), descriptor: desc });
  }
}

/** The work may wait for something that never comes, such as the end of a terminal's input. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    signal.throwIfAborted();
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** Of options that say more, what is said to every call. */
export function callOf({ signal, metadata, timeout }: CallOptions): CallOptions {
  return {
    ...(signal !== undefined && { signal }),
    ...(metadata !== undefined && { metadata }),
    ...(timeout !== undefined && { timeout }),
  };
}

/** The progress of a transfer as it comes, and in the end what the transfer returns or fails with. */
export type ProgressSteps<T> = AsyncGenerator<Progress, T, undefined>;

/**
 * Follows a transfer with a loop; leaving the loop cancels it.
 *
 *     for await (const { event, name } of stepsOf((options) => client.transfers.pull(reference, options))) …
 */
export async function* stepsOf<T>(
  transfer: (options: { onProgress: (progress: Progress) => void; signal: AbortSignal }) => Promise<T>,
): ProgressSteps<T> {
  const stop = new AbortController();
  const waiting: Progress[] = [];
  let wake = Promise.withResolvers<void>();
  let isOver = false;
  const onProgress = (progress: Progress): void => {
    waiting.push(progress);
    wake.resolve();
  };
  const running = transfer({ onProgress, signal: stop.signal }).finally(() => {
    isOver = true;
    wake.resolve();
  });
  // Its failure is told at the end of the loop.
  running.catch(() => {});
  try {
    for (;;) {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) yield next;
      if (isOver) break;
      await wake.promise;
      wake = Promise.withResolvers();
    }
    return await running;
  } finally {
    stop.abort();
    await running.catch(() => {});
  }
}
