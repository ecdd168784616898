import type { AttachRequest, ShimDefinition } from '../proto/gen/moor/shim/v1.ts';
import { failedPrecondition, invalidArgument } from '../ttrpc/errors.ts';
import type { ServiceImplementation } from '../ttrpc/service.ts';
import type { Berth } from './berth.ts';
import type { Journal } from './journal.ts';
import type { Publisher } from './publisher.ts';

/** What Moor's daemon asks of a shim beyond containerd's task service. */
export function moorService({
  publisher,
  berth,
}: {
  readonly publisher: Publisher;
  readonly berth: Berth;
}): ServiceImplementation<typeof ShimDefinition> {
  const journalOf = (id: string): Journal => {
    const { journal } = berth.demand(id).init;
    if (journal === undefined) throw failedPrecondition(`the output of container ${id} is not kept here`);
    return journal;
  };

  return {
    flush: async (_request, { signal }) => {
      const flushed = publisher.pending;
      await publisher.flush(signal);
      return { flushed };
    },

    reopenLog: async ({ id }) => {
      journalOf(id).reopen();
      return {};
    },

    attach: async function* (requests, { signal }) {
      const calls = requests[Symbol.asyncIterator]();
      const first = await calls.next();
      if (first.done === true) throw invalidArgument('which container to attach to is not said');
      const journal = journalOf(first.value.id);
      if (first.value.hasStdin) journal.demandInput();
      const output = journal.listen(signal);
      if (first.value.hasStdin) void feed(journal, first.value, calls, signal).catch(() => {});
      yield {};
      for await (const { stream, bytes } of output) yield { [stream]: bytes };
    },
  };
}

/** Hands over what the caller sends, until it leaves: which is an end of its input, too. */
async function feed(
  journal: Journal,
  first: AttachRequest,
  others: AsyncIterator<AttachRequest>,
  signal: AbortSignal,
): Promise<void> {
  try {
    for (let request: AttachRequest | undefined = first; request !== undefined;) {
      await journal.writeInput(request.stdin, signal);
      if (request.closeStdin) return;
      const next = await others.next();
      request = next.done === true ? undefined : next.value;
    }
  } finally {
    journal.endInput();
  }
}
