/** How soon news and how fast bytes get through. */
import { TaskExit, TaskStart } from '../proto/gen/containerd/events/task.ts';
import { EventsDefinition } from '../proto/gen/containerd/services/events.ts';
import { single, type Measure } from './measure.ts';
import { idleCommand, type Side } from './side.ts';

/** When a subscriber of the daemon has heard of what happened to a container. */
class Listener {
  readonly #stop = new AbortController();
  readonly #heard = new Map<string, number>();
  #wake: () => void = () => undefined;
  readonly #ended: Promise<void>;

  constructor(side: Side) {
    this.#ended = this.#listen(side).catch((error: unknown) => {
      if (!this.#stop.signal.aborted) throw error;
    });
  }

  async #listen({ daemon, ctr }: Side): Promise<void> {
    using connection = daemon.connect();
    const events = connection.service(EventsDefinition, ctr.namespace);
    const { signal } = this.#stop;
    for await (const { topic, event } of events.subscribe(
      { filters: ['topic~="/tasks/(start|exit)"'] },
      { signal },
    )) {
      const type = topic === '/tasks/exit' ? TaskExit : TaskStart;
      this.#heard.set(`${topic} ${type.decode(event!.value).containerId}`, performance.now());
      this.#wake();
    }
  }

  /** The moment it was heard, on the clock of `performance.now`. */
  async hears(topic: string, id: string): Promise<number> {
    for (;;) {
      const at = this.#heard.get(`${topic} ${id}`);
      if (at !== undefined) return at;
      await Promise.race([this.#ended, new Promise<void>((resolve) => (this.#wake = resolve))]);
    }
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }
}

const listeners = new Map<Side, Listener>();

const exit: Measure = single(
  { name: 'exit-event', what: 'kill of a container’s process to its exit event at a subscriber', unit: 'ms' },
  {
    topic: 'Events and output',
    rounds: { full: 25, quick: 5 },
    prepare: (side) => Promise.resolve(void listeners.set(side, new Listener(side))),
    sample: async (side, round) => {
      const id = `exit-${round}`;
      const listener = listeners.get(side)!;
      await side.ctr.runDetached(id, idleCommand);
      await listener.hears('/tasks/start', id);
      const { pid } = (await side.ctr.task(id))!;
      const began = performance.now();
      process.kill(pid, 'SIGKILL');
      const heard = await listener.hears('/tasks/exit', id);
      await side.ctr.remove(id);
      return heard - began;
    },
    tidy: (side) => listeners.get(side)!.close(),
  },
);

const output: Measure = single(
  { name: 'stdout', what: 'ctr run --rm … dd of 1 GiB to stdout', unit: 'ms' },
  {
    topic: 'Events and output',
    rounds: { full: 8, quick: 2 },
    sample: async (side, round) => {
      const command = ['/bin/dd', 'if=/dev/zero', 'bs=65536', 'count=16384'];
      const began = performance.now();
      await side.counted(side.ctr.runArgs(`flow-${round}`, command, ['--rm']));
      return performance.now() - began;
    },
  },
);

export const streams: readonly Measure[] = [exit, output];
