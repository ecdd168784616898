/** What a subscriber sees, through `ctr events`. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Ctr } from './ctr.ts';
import { eventually, type Bound } from './wait.ts';

export interface SeenEvent {
  readonly namespace: string;
  readonly topic: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** A running `ctr events`. It sees the events of every namespace; `of` picks those of one container. */
export class EventStream implements Disposable {
  readonly seen: SeenEvent[] = [];
  readonly #child: ChildProcess;
  readonly #ctr: Ctr;

  private constructor(ctr: Ctr) {
    this.#ctr = ctr;
    this.#child = ctr.spawn(['events']);
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      // <date> <time> <zone> <zone> <namespace> <topic> <json>
      const [, namespace, topic, body] = /^\S+ \S+ \S+ \S+ (\S+) (\S+) (.*)$/.exec(line) ?? [];
      if (namespace === undefined || topic === undefined || body === undefined) return;
      this.seen.push({ namespace, topic, body: JSON.parse(body) as SeenEvent['body'] });
    });
  }

  /** Subscribes without waiting until the subscription stands. */
  static connect(ctr: Ctr): EventStream {
    return new EventStream(ctr);
  }

  /** Subscribes, and returns when events arrive: ctr does not say when, so labels are set until one is seen. */
  static async open(ctr: Ctr): Promise<EventStream> {
    const stream = new EventStream(ctr);
    await ctr.ok('namespaces', 'create', 'event-probe').catch(() => undefined);
    let count = 0;
    await eventually('the event subscription stands', async () => {
      count += 1;
      await ctr.ok('namespaces', 'label', 'event-probe', `probe=${count}`);
      return stream.seen.length > 0;
    });
    return stream;
  }

  /** The events so far about one container of the ctr's namespace, of one topic or all. */
  of(id: string, topic?: string): SeenEvent[] {
    return this.seen.filter(
      (event) =>
        event.namespace === this.#ctr.namespace &&
        (event.body['container_id'] ?? event.body['id']) === id &&
        (topic === undefined || event.topic === topic),
    );
  }

  /** Waits for an event about the container. */
  async sees(id: string, topic: string, bound?: Bound): Promise<SeenEvent> {
    return eventually(`an event ${topic} about ${id}`, () => this.of(id, topic)[0], bound);
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }
}
