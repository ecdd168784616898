/** A subscription that outlives its daemons: no event is missed, and none comes twice. */
import { setTimeout as delay } from 'node:timers/promises';
import { Envelope, EventsDefinition } from '../proto/gen/containerd/services/events.ts';
import type { Headers } from '../grpc/channel.ts';
import { AFTER, fingerprintOf } from '../grpc/resume.ts';
import { Code, isCode } from '../ttrpc/errors.ts';
import type { Connection } from './connection.ts';

export interface FollowOptions {
  /** Ends it. Without one it ends with its reader. */
  readonly signal?: AbortSignal;
  /** Milliseconds from the loss of the daemon to the first attempt to reach it again, and between attempts. */
  readonly pause?: number;
  /** The last event that has been seen, for one who goes on where another process ended. */
  readonly after?: Envelope;
}

const PAUSE = 20;

/** Events that one write to a socket carries at most, and some more: that many may be told again. */
const REMEMBERED = 1024;

/**
 * Subscribes, and again whenever the daemon was away. It says then which event it has seen last, and Moor's daemon tells what it missed, in
 * order. Before it has seen any it is known by its process, for 30 s; what a daemon repeats in that case
 * (docs/decisions/0011-events-exactly-once.md) is left out here. Of other daemons, what happens while they are away is not told.
 *
 * @param filters no other subscription of this process has the same
 * @throws RpcError what a daemon refuses the subscription with
 */
export async function* follow(
  connection: Connection,
  headers: Headers,
  filters: readonly string[],
  { signal, pause = PAUSE, after }: FollowOptions = {},
): AsyncGenerator<Envelope, void, undefined> {
  const { subscribe } = connection.service(EventsDefinition, headers);
  const latest = new Latest();
  let last = after && fingerprint(after);
  const isOver = () => signal?.aborted === true;
  while (!isOver()) {
    try {
      latest.lost();
      const options = {
        ...(signal && { signal }),
        ...(last !== undefined && { metadata: [[AFTER, last]] as const }),
      };
      for await (const envelope of subscribe({ filters: [...filters] }, options)) {
        last = fingerprint(envelope);
        if (latest.isNews(last)) yield envelope;
      }
    } catch (error) {
      if (isOver()) return;
      if (!isCode(error, Code.Unavailable)) throw error;
    }
    await delay(pause, undefined, signal && { signal }).catch(() => undefined);
  }
}

function fingerprint(envelope: Envelope): string {
  return fingerprintOf(Envelope.encode(envelope).finish());
}

/** The latest events, to tell those that come again from those that are new. */
class Latest {
  readonly #seen = new Set<string>();
  #mayRepeat = false;

  /** The daemon is another from now on. */
  lost(): void {
    this.#mayRepeat = true;
  }

  isNews(identity: string): boolean {
    // What is told again comes first, and is the same to the last byte.
    if (this.#mayRepeat && this.#seen.has(identity)) return false;
    this.#mayRepeat = false;
    this.#seen.add(identity);
    if (this.#seen.size > REMEMBERED) {
      const [oldest] = this.#seen;
      this.#seen.delete(oldest!);
    }
    return true;
  }
}
