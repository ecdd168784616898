/**
 * Keeps containers in the state that their labels ask for (policy.ts). It looks after all of them at an interval, as containerd's
 * monitor does, and at once after an end, with a wait that grows while a container keeps ending.
 */
import type { Logger } from 'pino';
import { TaskExit } from '../../proto/gen/containerd/events/task.ts';
import { ContainerDelete, ContainerUpdate } from '../../proto/gen/containerd/events/container.ts';
import type { Container } from '../../proto/gen/containerd/services/containers.ts';
import type { Timestamp } from '../../proto/gen/google/protobuf/timestamp.ts';
import { Code, isCode, messageOf } from '../../ttrpc/errors.ts';
import { CONTAINER_DELETE_TOPIC, CONTAINER_UPDATE_TOPIC } from '../events/containers.ts';
import type { Envelope } from '../events/envelope.ts';
import type { Exchange } from '../events/exchange.ts';
import { type Namespace, parseNamespace } from '../identifiers.ts';
import type { ContainerStore } from '../metadata/containers.ts';
import type { NamespaceStore } from '../metadata/namespaces.ts';
import { EXIT_TOPIC } from '../runtime/notices.ts';
import { Turnstile } from '../runtime/turnstile.ts';
import { BackOff } from './back-off.ts';
import { KeptContainer, type RestartSurroundings } from './container.ts';
import { PENDING, POLICY, STATUS, decide, parsePolicy } from './policy.ts';

export interface RestartMonitorOptions extends RestartSurroundings {
  readonly containers: ContainerStore;
  readonly namespaces: Pick<NamespaceStore, 'list'>;
  readonly exchange: Exchange;
  readonly log: Logger;
  /** Milliseconds between two looks at everything. */
  readonly interval: number;
}

/** Each start takes a runtime or two. */
const STARTS_AT_ONCE = 8;

const DEFAULT_INTERVAL_MS = 10_000;
const MAX_INTERVAL_MS = 2 ** 31 - 1;

/** A container that has, or lately had, something to be done for. */
interface Watch {
  readonly container: KeptContainer;
  readonly backOff: BackOff;
  timer: NodeJS.Timeout | undefined;
  busy: Promise<void> | undefined;
  /** It has ended while it was being looked at. */
  ended: boolean;
}

/** Why a container is looked at: in the course of things, because it is its turn after a wait, or because its labels changed. */
type Occasion = 'interval' | 'turn' | 'labels';

export class RestartMonitor implements AsyncDisposable {
  readonly #options: RestartMonitorOptions;
  readonly #interval: number;
  readonly #closing = new AbortController();
  readonly #watches = new Map<string, Watch>();
  readonly #starts = new Turnstile(STARTS_AT_ONCE);
  #timer: NodeJS.Timeout | undefined;
  #listening: Promise<void> | undefined;

  constructor(options: RestartMonitorOptions) {
    this.#options = options;
    // As with containerd, none means the default one.
    this.#interval = Math.min(options.interval || DEFAULT_INTERVAL_MS, MAX_INTERVAL_MS);
  }

  /** Looks at all containers now, and from now on. */
  start(): void {
    this.#listening = this.#listen();
    this.#timer = setInterval(() => this.#reconcile(), this.#interval);
    this.#timer.unref();
    this.#reconcile();
  }

  /** Resolves when nothing is under way any more; what is, is cut off. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#closing.abort();
    for (const { timer } of this.#watches.values()) clearTimeout(timer);
    await this.#listening;
    for (const { busy } of this.#watches.values()) await busy;
  }

  async #listen(): Promise<void> {
    const { signal } = this.#closing;
    const { exchange, log } = this.#options;
    const filters = [EXIT_TOPIC, CONTAINER_UPDATE_TOPIC, CONTAINER_DELETE_TOPIC].map(
      (topic) => `topic=="${topic}"`,
    );
    while (!signal.aborted) {
      try {
        for await (const envelope of exchange.subscribe(filters, signal)) this.#hear(envelope);
        return;
      } catch (error) {
        log.warn({ error: messageOf(error) }, 'the restart monitor has missed events');
        this.#reconcile();
      }
    }
  }

  #hear(envelope: Envelope): void {
    try {
      this.#read(envelope);
    } catch (error) {
      // Clients can publish what they like under any topic.
      this.#options.log.debug({ error: messageOf(error), topic: envelope.topic }, 'an event cannot be read');
    }
  }

  #read({ namespace: name, topic, event }: Envelope): void {
    if (event === undefined) return;
    const namespace = parseNamespace(name);
    if (topic === EXIT_TOPIC) {
      const { containerId, id } = TaskExit.decode(event.value);
      if (id === containerId) this.#ended(namespace, containerId);
    } else if (topic === CONTAINER_UPDATE_TOPIC) {
      const { id, labels } = ContainerUpdate.decode(event.value);
      if (labels[STATUS] === 'stopped') this.#look(namespace, id, 'labels');
    } else {
      const { id } = ContainerDelete.decode(event.value);
      this.#forget(keyOf(namespace, id));
    }
  }

  #reconcile(): void {
    const { namespaces, containers, log } = this.#options;
    try {
      for (const { name } of namespaces.list()) {
        const namespace = parseNamespace(name);
        for (const { id, labels } of containers.list(namespace, [`labels."${STATUS}"`])) {
          const isMistaken = parsePolicy(labels[POLICY] ?? '') === undefined;
          if (isMistaken)
            log.warn({ namespace, id, policy: labels[POLICY] }, 'there is no such restart policy');
          this.#look(namespace, id, 'interval');
        }
      }
    } catch (error) {
      log.error({ err: error }, 'the restart monitor cannot look at the containers');
    }
  }

  /** The container's first process has ended. */
  #ended(namespace: Namespace, id: string): void {
    const watch = this.#watch(namespace, id);
    if (watch === undefined || watch.timer !== undefined) return;
    if (watch.busy !== undefined) watch.ended = true;
    else this.#wait(watch, watch.backOff.next(performance.now()));
  }

  #wait(watch: Watch, delay: number): void {
    if (this.#closing.signal.aborted) return;
    watch.timer = setTimeout(() => {
      watch.timer = undefined;
      this.#attend(watch, 'turn');
    }, delay);
    watch.timer.unref();
  }

  #look(namespace: Namespace, id: string, occasion: Occasion): void {
    const watch = this.#watch(namespace, id);
    if (watch === undefined || watch.busy !== undefined) return;
    if (occasion === 'labels') {
      clearTimeout(watch.timer);
      watch.timer = undefined;
    } else if (watch.timer !== undefined) {
      return;
    }
    this.#attend(watch, occasion);
  }

  #attend(watch: Watch, occasion: Occasion): void {
    const { container } = watch;
    const act = async () => {
      try {
        await this.#act(watch, occasion);
      } catch (error) {
        this.#failed(watch, error);
      }
      watch.busy = undefined;
      const { namespace, id } = container;
      if (container.record === undefined) this.#forget(keyOf(namespace, id));
      else if (watch.ended) this.#ended(namespace, id);
      watch.ended = false;
    };
    watch.busy = act();
  }

  #failed(watch: Watch, error: unknown): void {
    // A client has made a task at the same time, or the daemon stops.
    if (this.#closing.signal.aborted || isCode(error, Code.AlreadyExists)) return;
    const { namespace, id } = watch.container;
    const delay = watch.backOff.failed();
    this.#options.log.error({ err: error, namespace, id, delay }, 'a container cannot be kept in its state');
    this.#wait(watch, delay);
  }

  async #act(watch: Watch, occasion: Occasion): Promise<void> {
    const { container, backOff } = watch;
    const { signal } = this.#closing;
    const observed = await container.observe(signal);
    const { record } = container;
    const decision = record === undefined ? 'leave' : decide(record.labels, observed);
    if (record === undefined || decision === 'leave') return;
    const { namespace, id } = container;
    const { log } = this.#options;
    if (decision === 'stop') {
      await container.stop(signal);
      log.info({ namespace, id }, 'container stopped, as its labels ask for');
      return;
    }
    if (occasion === 'interval') {
      // Whoever has made it may be about to make its task.
      const since = age(record.createdAt);
      // Made in the future: the clock has been set back, and says nothing.
      const isNew = since >= 0 && since < this.#interval && !(PENDING in record.labels);
      if (observed.kind === 'absent' && isNew) return;
      if (backOff.hasStarted) return this.#wait(watch, backOff.next(performance.now()));
    }
    await this.#starts.pass(() => container.start(observed, backOff.delay, signal), signal);
    backOff.started(performance.now());
    log.info({ namespace, id, delay: backOff.delay, found: observed.kind }, 'container started again');
  }

  /** Undefined when the container is none of the monitor's business. */
  #watch(namespace: Namespace, id: string): Watch | undefined {
    const key = keyOf(namespace, id);
    const known = this.#watches.get(key);
    const container = known?.container ?? new KeptContainer(namespace, id, this.#options);
    const { record } = container;
    if (record === undefined || !(STATUS in record.labels)) return this.#forget(key);
    const watch = known ?? {
      container,
      backOff: new BackOff(),
      timer: undefined,
      busy: undefined,
      ended: false,
    };
    this.#watches.set(key, watch);
    return watch;
  }

  #forget(key: string): undefined {
    const watch = this.#watches.get(key);
    clearTimeout(watch?.timer);
    // What is under way must be waited for at the end.
    if (watch?.busy === undefined) this.#watches.delete(key);
  }
}

const keyOf = (namespace: string, id: string): string => `${namespace}/${id}`;

/** Milliseconds since then. */
function age(then: Container['createdAt'] | Timestamp): number {
  return then === undefined ? Infinity : Date.now() - Number(then.seconds) * 1000 - then.nanos / 1e6;
}
