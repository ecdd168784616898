/** Hears of the ends of pods' and containers' processes and writes them down. */
import { TaskExit, TaskOOM } from '../../proto/gen/containerd/events/task.ts';
import { Status } from '../../proto/gen/containerd/types/task.ts';
import { messageOf } from '../../ttrpc/errors.ts';
import type { Envelope } from '../events/envelope.ts';
import type { Exit } from '../runtime/exit.ts';
import { EXIT_TOPIC } from '../runtime/notices.ts';
import { timestampNow } from '../timestamp.ts';
import { UNKNOWN_EXIT, recordExit } from './container-end.ts';
import type { Cri } from './cri.ts';
import { now } from './pod-life.ts';
import { KUBERNETES } from './registry.ts';
import { taskOf } from './remains.ts';

const OOM_TOPIC = '/tasks/oom';
/** Milliseconds that a shim has to say how its container is. */
const STATE_TIMEOUT_MS = 10_000;

export class Exits {
  readonly #cri: Cri;
  /** What is being written down. */
  readonly #busy = new Set<Promise<void>>();
  #listening: Promise<void> | undefined;

  constructor(cri: Cri) {
    this.#cri = cri;
  }

  /** Listens from now on, and finds out what has ended before. */
  async start(): Promise<void> {
    this.#listening = this.#listen();
    await this.reconcile();
  }

  /** Resolves when nothing is being written any more. The daemon is closing. */
  async settled(): Promise<void> {
    await this.#listening;
    await Promise.all(this.#busy);
  }

  /** Compares every pod and container that should have a process with what its task says. */
  async reconcile(): Promise<void> {
    const { pods, containers } = this.#cri;
    const alive = [...pods.list(), ...containers.list()].filter(({ state }) =>
      ['ready', 'running'].includes(state?.$case ?? ''),
    );
    await Promise.all(alive.map(({ id }) => this.check(id)));
  }

  async #listen(): Promise<void> {
    const { exchange, closing, log } = this.#cri;
    const filters = [EXIT_TOPIC, OOM_TOPIC].map((topic) => `namespace==${KUBERNETES},topic=="${topic}"`);
    while (!closing.aborted) {
      try {
        for await (const envelope of exchange.subscribe(filters, closing)) this.#hear(envelope);
        return;
      } catch (error) {
        log.warn({ error: messageOf(error) }, 'events of pods have been missed');
        void this.#track(this.reconcile());
      }
    }
  }

  #hear({ topic, event }: Envelope): void {
    if (event === undefined) return;
    try {
      if (topic === OOM_TOPIC) {
        const { containerId } = TaskOOM.decode(event.value);
        void this.#track(this.#outOfMemory(containerId));
        return;
      }
      const { containerId, id, pid, exitStatus, exitedAt = timestampNow() } = TaskExit.decode(event.value);
      const exit = { pid, status: exitStatus, exitedAt };
      if (id === containerId) void this.#track(this.#ended(id, exit));
    } catch (error) {
      // Clients can publish what they like under any topic.
      this.#cri.log.debug({ error: messageOf(error), topic }, 'an event cannot be read');
    }
  }

  async #outOfMemory(id: string): Promise<void> {
    await this.#cri.containers.changeIfThere(id, (container) => ({ ...container, oomKilled: true }));
  }

  async #ended(id: string, exit: Exit): Promise<void> {
    const cri = this.#cri;
    const pod = await cri.pods.changeIfThere(id, (pod) =>
      pod.state?.$case === 'ready' ? { ...pod, state: { $case: 'ended', value: { at: now() } } } : pod,
    );
    if (pod === undefined) await recordExit(cri, id, exit);
  }

  /**
   * Compares one that should have a process with what its task says. A shim of Moor's own is not woken for it: it writes down an
   * end before it tells of it.
   */
  async check(id: string): Promise<void> {
    const task = taskOf(this.#cri, id);
    const lost = { pid: 0, status: UNKNOWN_EXIT, exitedAt: timestampNow() };
    if (task === undefined) return this.#ended(id, lost);
    const signal = AbortSignal.any([this.#cri.closing, AbortSignal.timeout(STATE_TIMEOUT_MS)]);
    try {
      const exit = task.bundle.readDead() ?? task.bundle.readExit();
      if (exit !== undefined) return await this.#ended(id, exit);
      if (task.launcher.own && task.listed) return undefined;
      const { status, exitStatus = 0, exitedAt } = await task.state('', signal);
      if (status === Status.STOPPED)
        await this.#ended(id, { ...lost, status: exitStatus, exitedAt: { ...lost.exitedAt, ...exitedAt } });
    } catch (error) {
      this.#cri.log.warn({ id, error: messageOf(error) }, 'a container of a pod does not say how it is');
    }
    return undefined;
  }

  async #track(work: Promise<void>): Promise<void> {
    const noted = work.catch((error: unknown) => {
      if (!this.#cri.closing.aborted)
        this.#cri.log.error({ err: error }, 'the end of a container cannot be written down');
    });
    this.#busy.add(noted);
    await noted;
    this.#busy.delete(noted);
  }
}
