/** A subscription that outlives its daemons: no event is missed, and none comes twice. */
import { setTimeout as delay } from 'node:timers/promises';
import { Envelope, EventsDefinition } from '../proto/gen/containerd/services/events.ts';
import type { Headers } from '../grpc/channel.ts';
import { Code, isCode } from '../ttrpc/errors.ts';
import type { Connection } from './connection.ts';

export interface FollowOptions {
  /** Ends it. Without one it ends with its reader. */
  readonly signal?: AbortSignal;
  /** Milliseconds from the loss of the daemon to the first attempt to reach it again, and between attempts. */
  readonly pause?: number;
}

const PAUSE = 20;

/** Events that one write to a socket carries at most, and some more: that many may be told again. */
const REMEMBERED = 1024;

/**
 * Subscribes, and again whenever the daemon was away. Moor's daemon tells a process that is back within 30 s what it missed, in order;
 * it repeats what the kernel took in the instant of its death (docs/decisions/0011-events-exactly-once.md), and that is left out
 * here. Of other daemons, what happens while they are away is not told.
 *
 * @param filters no other subscription of this process has the same
 * @throws RpcError what a daemon refuses the subscription with
 */
export async function* follow(
  connection: Connection,
  headers: Headers,
  filters: readonly string[],
  { signal, pause = PAUSE }: FollowOptions = {},
): AsyncGenerator<Envelope, void, undefined> {
  const { subscribe } = connection.service(EventsDefinition, headers);
  const latest = new Latest();
  const isOver = () => signal?.aborted === true;
  while (!isOver()) {
    try {
      latest.lost();
      for await (const envelope of subscribe({ filters: [...filters] }, signal && { signal }))
        if (latest.isNews(envelope)) yield envelope;
    } catch (error) {
      if (isOver()) return;
      if (!isCode(error, Code.Unavailable)) throw error;
    }
    await delay(pause, undefined, signal && { signal }).catch(() => undefined);
  }
}

/** The latest events, to tell those that come again from those that are new. */
class Latest {
  readonly #seen = new Set<string>();
  #mayRepeat = false;

  /** The daemon is another from now on. */
  lost(): void {
    this.#mayRepeat = true;
  }

  isNews(envelope: Envelope): boolean {
    const identity = Buffer.from(Envelope.encode(envelope).finish()).toString('latin1');
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
