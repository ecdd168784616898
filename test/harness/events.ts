/** What a subscriber sees: a `ctr events`, or a client that has been there for longer than the daemon. */
import { createInterface } from 'node:readline';
import { Connection } from '../../client/connection.ts';
import { follow } from '../../client/follow.ts';
import * as containers from '../../proto/gen/containerd/events/container.ts';
import * as sandboxes from '../../proto/gen/containerd/events/sandbox.ts';
import * as tasks from '../../proto/gen/containerd/events/task.ts';
import type { Envelope } from '../../proto/gen/containerd/services/events.ts';
import type { Ctr } from './ctr.ts';
import { eventually, type Bound } from './wait.ts';

export interface SeenEvent {
  readonly namespace: string;
  readonly topic: string;
  /** The event's fields, named as in its contract. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** A running subscription. It sees the events of every namespace; `of` picks those of one container. */
export class EventStream implements Disposable {
  readonly seen: SeenEvent[] = [];
  readonly #namespace: string;
  #stop = (): void => undefined;

  private constructor(namespace: string) {
    this.#namespace = namespace;
  }

  /**
   * Subscribes from this process without waiting until the subscription stands, and anew whenever the daemon is back, which then tells what
   * was missed. Only events about containers, sandboxes and tasks have a body.
   */
  static follow({ address }: { readonly address: string }, namespace: string): EventStream {
    const stream = new EventStream(namespace);
    const over = new AbortController();
    stream.#stop = () => over.abort();
    void stream.#follow(address, over.signal);
    return stream;
  }

  /**
   * Starts a `ctr events`, and returns when it prints what happens: it does not say when, so labels are set until one is seen.
   */
  static async open(ctr: Ctr): Promise<EventStream> {
    const stream = new EventStream(ctr.namespace);
    const child = ctr.spawn(['events']);
    stream.#stop = () => void child.kill('SIGKILL');
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      // <date> <time> <zone> <zone> <namespace> <topic> <json>
      const [, namespace, topic, body] = /^\S+ \S+ \S+ \S+ (\S+) (\S+) (.*)$/.exec(line) ?? [];
      if (namespace === undefined || topic === undefined || body === undefined) return;
      stream.seen.push({ namespace, topic, body: JSON.parse(body) as SeenEvent['body'] });
    });
    await ctr.ok('namespaces', 'create', 'event-probe').catch(() => undefined);
    let count = 0;
    await eventually('the event subscription stands', async () => {
      count += 1;
      await ctr.ok('namespaces', 'label', 'event-probe', `probe=${count}`);
      return stream.seen.length > 0;
    });
    return stream;
  }

  /** The events so far about one container or sandbox of the namespace, of one topic or all. */
  of(id: string, topic?: string): SeenEvent[] {
    return this.seen.filter(
      (event) =>
        event.namespace === this.#namespace &&
        (event.body['container_id'] ?? event.body['sandbox_id'] ?? event.body['id']) === id &&
        (topic === undefined || event.topic === topic),
    );
  }

  /** Waits for an event about the container. */
  async sees(id: string, topic: string, bound?: Bound): Promise<SeenEvent> {
    return eventually(`an event ${topic} about ${id}`, () => this.of(id, topic)[0], bound);
  }

  [Symbol.dispose](): void {
    this.#stop();
  }

  async #follow(address: string, signal: AbortSignal): Promise<void> {
    using connection = new Connection(address);
    for await (const envelope of follow(connection, [], [], { signal })) this.seen.push(seen(envelope));
  }
}

const types: ReadonlyMap<string, unknown> = new Map(
  Object.entries({ ...containers, ...sandboxes, ...tasks }),
);

function seen({ namespace, topic, event }: Envelope): SeenEvent {
  const [, name = ''] = /^containerd\.events\.(\w+)$/.exec(event?.typeUrl ?? '') ?? [];
  const type = types.get(name) as { decode(bytes: Uint8Array): object } | undefined;
  const fields = Object.entries(type?.decode(event!.value) ?? {});
  const snake = (key: string) => key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return { namespace, topic, body: Object.fromEntries(fields.map(([key, value]) => [snake(key), value])) };
}
