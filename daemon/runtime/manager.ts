/** All tasks of this daemon. */
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Envelope } from '../../proto/gen/containerd/types/event.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Code, type RpcError, isCode, messageOf, notFound, toRpcError } from '../../ttrpc/errors.ts';
import type { ContainerId, Namespace } from '../identifiers.ts';
import { isForWant, whenPossible } from '../shortage.ts';
import { type Bootstrap, mayListen } from './bootstrap.ts';
import { Bundle, type Remains, exitOfRemains, listBundles, removeEmpty, removeRemains } from './bundle.ts';
import { removeSocket } from './cleanup.ts';
import { type ContainerRequest, createContainer, taskExists } from './creation.ts';
import { Departures } from './departures.ts';
import { Launchers, type LaunchersOptions, type Wanted } from './launchers.ts';
import { findLostShims } from './lost-shims.ts';
import { expectMoves } from './moves.ts';
import { type News, readNews } from './news.ts';
import type { EventPublisher } from './notices.ts';
import { restorePath } from './options.ts';
import { unlessAborted } from './patience.ts';
import { endStray, type Found, type Recovered, recoverTask } from './recovery.ts';
import { specBytes } from './spec.ts';
import { Task, type TaskSurroundings } from './task.ts';
import { TaskFiles } from './task-files.ts';
import { Turnstile } from './turnstile.ts';

/** Tasks live in `<state>/tasks`. */
export interface TaskManagerOptions extends LaunchersOptions {
  readonly events: EventPublisher;
}

/** What a client wants created. */
export interface TaskRequest extends Omit<ContainerRequest, 'spec' | 'options'>, Wanted {
  readonly spec: Any | undefined;
}

export interface RecoverySummary extends Record<Found, number> {
  milliseconds: number;
  /** How many of the live ones have not been talked to. */
  unmet: number;
}

/** Clean-ups start a program or two each. */
const CLEAN_UPS_AT_ONCE = 8;

/** A shim that is woken takes some milliseconds; clients that come right after a start want the processors as well. */
const MEETINGS_AT_ONCE = 4;
/** Milliseconds after which shims that are slow to answer hold up nothing else. */
const MEETINGS_MS = 1000;

/** Milliseconds until a removed bundle's files go. The client has its answer by then, so that it does not wait for them. */
const REMOVAL_DELAY_MS = 20;

export class TaskManager {
  readonly launchers: Launchers;
  readonly files: TaskFiles;
  readonly #options: TaskManagerOptions;
  readonly #directory: string;
  readonly #surroundings: TaskSurroundings;
  readonly #tasks = new Map<string, Task>();
  readonly #departed = new Map<string, Task>();
  readonly #departures: Departures;
  /** Bundles in a format that is not known here, with what is said of them. */
  readonly #newer = new Map<string, RpcError>();
  /** Creations under way; each resolves when it is done or undone. */
  readonly #creations = new Map<string, Promise<void>>();
  readonly #removals = new Set<Promise<void>>();
  /** Resolves when those are found again, or ended, that lost their files while there was no daemon. */
  #lostShims: Promise<Bundle[]> | undefined;
  #recalled: Promise<void> | undefined;
  #foreignTasks = 0;
  #closed = false;

  constructor(options: TaskManagerOptions) {
    const { state, events, log } = options;
    this.#options = options;
    this.#directory = join(state, 'tasks');
    this.files = new TaskFiles(this.#directory, () => this.#tasks.values(), log);
    this.#departures = new Departures(join(state, 'departed'), log);
    this.launchers = new Launchers(options);
    this.#surroundings = {
      events,
      log,
      cleanUps: new Turnstile(CLEAN_UPS_AT_ONCE),
      gone: (task, remains) => this.#gone(task, remains),
    };
  }

  /**
   * Creates a task: its container exists and waits to be started.
   * @throws RpcError AlreadyExists when the container has a task; InvalidArgument for a spec or options that cannot be; what the
   *         shim says
   */
  async create(
    namespace: Namespace,
    id: ContainerId,
    request: TaskRequest,
    signal: AbortSignal,
  ): Promise<Task> {
    const key = keyOf(namespace, id);
    // One of those may have a container of that name.
    await this.#recallLost();
    // Whether the task exists is not known before: a client that gave up and tries again meets its own first attempt.
    while (this.#creations.has(key)) await unlessAborted(this.#creations.get(key), signal);
    if (this.#tasks.has(key)) throw taskExists(id);
    this.#refuseNewer(key);
    expectMoves();
    const spec = specBytes(id, request.spec);
    const { launcher, options } = this.launchers.choose(request);
    const task = new Task(new Bundle(this.#directory, namespace, id), launcher, this.#surroundings);
    const { promise: settled, resolve } = Promise.withResolvers<void>();
    this.#tasks.set(key, task);
    this.#creations.set(key, settled);
    let undoing: Promise<void> | undefined;
    try {
      const checkpoint = request.checkpoint || restorePath(options);
      await createContainer(task, { ...request, spec, options, checkpoint }, signal, {
        discard: (bundle) => this.#discard(bundle, task.log),
        goesOn: (promise) => {
          undoing = promise;
        },
      });
    } catch (error) {
      this.#tasks.delete(key);
      throw error;
    } finally {
      const over = () => {
        this.#creations.delete(key);
        resolve();
      };
      if (undoing === undefined) over();
      else void undoing.then(over);
    }
    if (!launcher.own) this.#foreignTasks += 1;
    this.#departed.delete(key);
    this.#departures.forget(namespace, id);
    return task;
  }

  /** @throws RpcError NotFound */
  get(namespace: Namespace, id: ContainerId): Task {
    const key = keyOf(namespace, id);
    const task = this.#tasks.get(key) ?? this.#departed.get(key);
    this.#refuseNewer(key);
    if (task?.visible !== true) throw notFound(`task ${id} not found: not found`);
    return task;
  }

  /** All tasks of a namespace. */
  list(namespace: Namespace): Task[] {
    return [...this.#tasks.values()].filter((task) => task.namespace === namespace && task.visible);
  }

  /** All tasks of all namespaces. */
  all(): Task[] {
    return [...this.#tasks.values()].filter((task) => task.visible);
  }

  /** Shims started so far: forked or executed, of Moor's own; and such as other people have made. */
  get started(): { fork: number; exec: number; foreign: number } {
    return { ...this.launchers.own.started, foreign: this.#foreignTasks };
  }

  /** What a shim's event says of one of the tasks; undefined when there is nothing to be remembered of it. */
  readNews(envelope: Envelope): News | undefined {
    return readNews(envelope, (id) => this.#tasks.get(keyOf(envelope.namespace, id)));
  }

  /**
   * Finds the tasks of a former daemon: those whose shims live go on, those whose shims are gone are cleaned up after, what was
   * half-done is finished or undone, and exits that nobody was told of are published. Shims can already send their events.
   *
   * @param others sockets of shims that have no task and are wanted all the same
   */
  async recover(others: Iterable<string> = []): Promise<RecoverySummary> {
    const begin = performance.now();
    // Without it, this may be the first daemon since the boot, or the state have been wiped under containers that run.
    const isNew = mkdirSync(this.#directory, { recursive: true, mode: 0o711 }) !== undefined;
    removeEmpty(this.#directory);
    if (isNew) await this.#findLostShims();
    let found = this.#list();
    if (!isNew && !found.known.every(({ bootstrap }) => isReachable(bootstrap))) {
      await this.#findLostShims();
      found = this.#list();
    }
    const { known, remains, strangers } = found;
    for (const path of strangers) this.#options.log.warn({ path }, 'not a task; left alone');
    const claimed = new Set([...others, ...known.map(({ bootstrap }) => bootstrap?.address)]);
    const strays = this.#straySockets(claimed);
    const summary: RecoverySummary = { live: 0, unmet: 0, dead: 0, departed: 0, undone: 0, milliseconds: 0 };
    await Promise.all([
      ...known.map(async ({ bundle, bootstrap }) => {
        const recovered = await this.#recoverOrSay(bundle, bootstrap, strays);
        if (recovered === undefined) return;
        summary[recovered.found] += 1;
        if (recovered.unmet === true) summary.unmet += 1;
      }),
      ...remains.map(async (hidden) => {
        try {
          await this.#recoverRemains(hidden);
        } catch (error) {
          this.#options.log.error(
            { err: error, path: hidden.path },
            'what is left of a task cannot be removed',
          );
        }
      }),
    ]);
    this.#recallDeparted();
    // Where the shims of what a newer daemon has made listen is not known.
    if (this.#newer.size === 0) await this.#sweep(strays);
    summary.milliseconds = Math.round(performance.now() - begin);
    return summary;
  }

  /**
   * Does what was not needed to serve: looks for shims that have lost their files, connects to the others, and gets ready for the first task.
   */
  async prepare(): Promise<void> {
    await this.#recallLost();
    const turns = new Turnstile(MEETINGS_AT_ONCE);
    const goOn = () => !this.#closed;
    const meet = (task: Task) =>
      whenPossible('the connection to a shim', () => turns.pass(() => task.meet()), { log: task.log, goOn });
    const meetings = Promise.all([...this.#tasks.values()].map(meet));
    await Promise.race([meetings, sleep(MEETINGS_MS, undefined, { ref: false })]);
    if (!this.#closed) this.launchers.own.prepare();
  }

  /** Lets go of all shims; containers run on. Files of deleted tasks are gone when it resolves. */
  async close(): Promise<void> {
    this.#closed = true;
    this.launchers.own.close();
    for (const task of this.#tasks.values()) task.leave();
    await Promise.all(this.#removals);
  }

  /** Looks through all processes, so not before somebody needs it; once. Never rejects. */
  #findLostShims(): Promise<Bundle[]> {
    this.#lostShims ??= findLostShims(this.#directory, this.#options.log, true);
    return this.#lostShims;
  }

  /** Goes on with the tasks of shims that were not known to have been lost when the others were recovered. */
  #recallLost(): Promise<void> {
    this.#recalled ??= (async () => {
      for (const bundle of await this.#findLostShims())
        if (!this.#tasks.has(keyOf(bundle.namespace, bundle.id)))
          await this.#recoverOrSay(bundle, bundle.readBootstrap(), new Set());
    })();
    return this.#recalled;
  }

  async #recoverOrSay(
    bundle: Bundle,
    bootstrap: Bootstrap | undefined,
    strays: Set<string>,
  ): Promise<Recovered | undefined> {
    try {
      return await this.#recover(bundle, bootstrap, strays);
    } catch (error) {
      // Not known to clients, and not free to be made again: an operator has to look at it.
      this.#options.log.error({ err: error, path: bundle.path }, 'a task cannot be recovered');
      return undefined;
    }
  }

  async #recover(bundle: Bundle, bootstrap: Bootstrap | undefined, strays: Set<string>): Promise<Recovered> {
    const task = new Task(bundle, this.launchers.known(bootstrap), this.#surroundings);
    const key = keyOf(bundle.namespace, bundle.id);
    // Before its shim is asked for its events, so that they find it.
    this.#tasks.set(key, task);
    const recovered = await recoverTask(task, bootstrap, strays);
    await this.#settled(task, recovered.found);
    void recovered.later?.then((found) => this.#settled(task, found));
    return recovered;
  }

  /** Removes what is not a task any more. */
  async #settled(task: Task, found: Found): Promise<void> {
    if (found === 'live' || found === 'dead') return;
    const key = keyOf(task.namespace, task.id);
    this.#tasks.delete(key);
    if (found === 'departed') this.#departed.set(key, task);
    else task.leave();
    try {
      const exit = found === 'departed' ? task.bundle.readExit() : undefined;
      if (exit !== undefined) this.#departures.keep(task.namespace, task.id, exit);
      const hidden = task.bundle.hide();
      if (hidden !== undefined) await removeRemains(hidden);
    } catch (error) {
      task.log.error({ err: error }, 'what is left of a task cannot be removed');
    }
  }

  /** A bundle that was on its way out: the client may not have been told how its task ended. */
  async #recoverRemains(hidden: Remains): Promise<void> {
    const exit = exitOfRemains(hidden);
    if (exit !== undefined) this.#departures.keep(hidden.namespace, hidden.id, exit);
    await removeRemains(hidden.path);
  }

  /** Those that the daemon before had deleted, and those whose deletion it knew to have been cut off. */
  #recallDeparted(): void {
    for (const { namespace, id, exit } of this.#departures.recall()) {
      const key = keyOf(namespace, id);
      if (this.#tasks.has(key)) continue;
      const bundle = new Bundle(this.#directory, namespace, id);
      const task = new Task(bundle, this.launchers.own, this.#surroundings);
      task.departed({ ...exit, published: true });
      this.#departed.set(key, task);
    }
    this.#departures.expire(() => this.#departed.clear());
  }

  #gone(task: Task, remains: string | undefined): void {
    const key = keyOf(task.namespace, task.id);
    if (this.#tasks.get(key) === task) this.#tasks.delete(key);
    if (this.#departed.get(key) === task) this.#departed.delete(key);
    if (remains !== undefined) this.#removeLater(remains, task.log);
  }

  /** Removes a bundle that is no task's; where it takes descriptors that there are none of, it goes when there are. */
  async #discard(bundle: Bundle, log: Logger): Promise<void> {
    const remains = bundle.hide();
    if (remains === undefined) return;
    try {
      await removeRemains(remains);
    } catch (error) {
      if (!isForWant(error)) throw error;
      this.#removeLater(remains, log);
    }
  }

  #removeLater(remains: string, log: Logger): void {
    const goOn = () => !this.#closed;
    const removal = sleep(REMOVAL_DELAY_MS)
      .then(() => whenPossible('the removal of a bundle', () => removeRemains(remains), { log, goOn }))
      .catch((error: unknown) => log.error({ err: error }, 'the files of a deleted task remain'))
      .finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
  }

  /** What there is of tasks, with the records by which their shims are found. */
  #list() {
    const { bundles, remains, strangers } = listBundles(this.#directory);
    return { known: bundles.flatMap((bundle) => this.#read(bundle)), remains, strangers };
  }

  /** What a newer daemon has made is left alone, and the rest is served. */
  #read(bundle: Bundle): { bundle: Bundle; bootstrap: Bootstrap | undefined }[] {
    try {
      // The exit's is looked at before anything is done as well.
      if (bundle.readDead() === undefined) bundle.readExit();
      return [{ bundle, bootstrap: bundle.readBootstrap() }];
    } catch (error) {
      this.#newer.set(keyOf(bundle.namespace, bundle.id), toRpcError(error));
      this.#options.log.error({ path: bundle.path, error: messageOf(error) }, 'a task is left alone');
      return [];
    }
  }

  #refuseNewer(key: string): void {
    const error = this.#newer.get(key);
    if (error !== undefined) throw error;
  }

  #straySockets(claimed: ReadonlySet<string | undefined>): Set<string> {
    const directory = join(this.#options.state, 's');
    mkdirSync(directory, { recursive: true, mode: 0o711 });
    const addresses = readdirSync(directory).map((name) => join(directory, name));
    return new Set(addresses.filter((address) => !claimed.has(address)));
  }

  /** Ends shims that were started for nothing, and removes sockets that nobody listens on. */
  async #sweep(strays: Set<string>): Promise<void> {
    const { log } = this.#options;
    await Promise.all(
      Array.from(strays, async (address) => {
        try {
          const alone = await endStray(address);
          if (!alone) log.warn({ address }, 'a shim that belongs to no task has a container; left alone');
        } catch (error) {
          if (isCode(error, Code.Unavailable)) removeSocket(address, log);
          else log.warn({ err: error, address }, 'a shim that belongs to no task does not answer');
        }
      }),
    );
  }
}

/** Its shim can be where the record says. */
function isReachable(bootstrap: Bootstrap | undefined): boolean {
  return bootstrap !== undefined && mayListen(bootstrap.address);
}

function keyOf(namespace: string, id: string): string {
  return `${namespace}/${id}`;
}
