/** One container as the restart monitor sees and changes it. */
import { Container } from '../../proto/gen/containerd/services/containers.ts';
import { Status } from '../../proto/gen/containerd/types/task.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { announceUpdate } from '../events/containers.ts';
import type { Exchange } from '../events/exchange.ts';
import { type ContainerId, type Namespace, parseId } from '../identifiers.ts';
import type { ContainerStore } from '../metadata/containers.ts';
import type { Labels } from '../metadata/labels.ts';
import { reached } from '../failpoint.ts';
import type { TaskManager } from '../runtime/manager.ts';
import type { Task } from '../runtime/task.ts';
import type { Snapshotter } from '../snapshots/snapshotter.ts';
import {
  COUNT,
  DELAY,
  type Observed,
  PENDING,
  countOf,
  isUnderWay,
  logOf,
  pendingAgain,
  pendingFor,
} from './policy.ts';

export interface RestartSurroundings {
  readonly containers: Pick<ContainerStore, 'get' | 'update'>;
  readonly snapshotters: { get(name: string): Snapshotter };
  readonly tasks: Pick<TaskManager, 'create' | 'get'>;
  readonly exchange: Pick<Exchange, 'publish'>;
}

/** Milliseconds that a shim has to say how its container is. */
const STATE_TIMEOUT_MS = 2000;
/** Milliseconds that a killed container has to end. */
const KILL_TIMEOUT_MS = 30_000;
const SIGKILL = 9;

export class KeptContainer {
  readonly namespace: Namespace;
  readonly id: ContainerId;
  readonly #surroundings: RestartSurroundings;

  constructor(namespace: Namespace, id: string, surroundings: RestartSurroundings) {
    this.namespace = namespace;
    this.id = parseId(id);
    this.#surroundings = surroundings;
  }

  /** As it is stored now; undefined when it has been deleted. */
  get record(): Container | undefined {
    return unlessMissing(() => this.#surroundings.containers.get(this.namespace, this.id));
  }

  async observe(signal: AbortSignal): Promise<Observed> {
    const task = this.#task;
    if (task === undefined) return { kind: 'absent' };
    try {
      const state = await task.state('', AbortSignal.any([signal, AbortSignal.timeout(STATE_TIMEOUT_MS)]));
      const { status = Status.UNKNOWN, pid = 0, exitStatus = 0 } = state;
      if (status === Status.STOPPED) return { kind: 'stopped', pid, exitStatus };
      if (status === Status.CREATED) return { kind: 'created' };
      return { kind: status === Status.UNKNOWN ? 'unknown' : 'alive' };
    } catch (error) {
      if (signal.aborted) throw error;
      return { kind: isCode(error, Code.NotFound) ? 'absent' : 'unknown' };
    }
  }

  /**
   * Starts it (again). What it left behind is deleted first; that this is under way is written down before, and that it is done
   * after.
   *
   * @param delay milliseconds that were waited for it, to be told
   * @throws RpcError AlreadyExists when a client has been faster, and what the runtime says
   */
  async start(observed: Observed, delay: number, signal: AbortSignal): Promise<void> {
    const { record } = this;
    if (record === undefined) return;
    const { labels } = record;
    if (!isUnderWay(labels, observed)) {
      await this.#label({
        [COUNT]: String(countOf(labels) + 1),
        [DELAY]: `${delay}ms`,
        [PENDING]: pendingFor(observed),
      });
    }
    reached('restart-recorded');
    try {
      await this.#start(record, observed, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      const isTaken = isCode(error, Code.AlreadyExists);
      await unlessGone(this.#label({ [PENDING]: isTaken ? '' : pendingAgain }));
      throw error;
    }
    reached('restart-started');
    await unlessGone(this.#label({ [PENDING]: '' }));
  }

  async #start(record: Container, observed: Observed, signal: AbortSignal): Promise<void> {
    let task = this.#task;
    if (observed.kind !== 'created' || task === undefined) {
      await unlessGone(task?.delete(signal));
      reached('restart-cleared');
      task = await this.#create(record, signal);
    }
    reached('restart-created');
    // Deleted meanwhile, with nobody to see its task: it would run for ever.
    if (this.record === undefined) {
      await unlessGone(task.delete(signal));
      return;
    }
    try {
      await task.start('', signal);
    } catch (error) {
      await unlessGone(task.delete(signal)).catch(() => {});
      throw error;
    }
  }

  /** Kills and deletes its task. */
  async stop(signal: AbortSignal): Promise<void> {
    const task = this.#task;
    if (task === undefined) return;
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(KILL_TIMEOUT_MS)]);
    await unlessGone(task.kill({ execId: '', signal: SIGKILL, all: true }, bounded));
    await unlessGone(task.wait('', bounded));
    await unlessGone(task.delete(bounded));
  }

  get #task(): Task | undefined {
    return unlessMissing(() => this.#surroundings.tasks.get(this.namespace, this.id));
  }

  async #create(record: Container, signal: AbortSignal): Promise<Task> {
    const { spec, runtime, snapshotter, snapshotKey, labels } = record;
    const { snapshotters, tasks } = this.#surroundings;
    const rootfs =
      snapshotKey === ''
        ? []
        : await snapshotters.get(snapshotter).mounts(this.namespace, snapshotKey, signal);
    const log = logOf(labels);
    return tasks.create(
      this.namespace,
      this.id,
      {
        spec,
        runtime: runtime?.name ?? '',
        options: undefined,
        containerOptions: runtime?.options,
        rootfs,
        stdin: '',
        stdout: log,
        stderr: log,
        terminal: wantsTerminal(record),
        checkpoint: '',
      },
      signal,
    );
  }

  async #label(changes: Labels): Promise<void> {
    const { containers, exchange } = this.#surroundings;
    const paths = Object.keys(changes).map((key) => `labels.${key}`);
    const partial = Container.fromPartial({ id: this.id, labels: { ...changes } });
    const container = await containers.update(this.namespace, partial, paths);
    announceUpdate(exchange, this.namespace, container);
  }
}

/** Of a spec that cannot be read the runtime says what is wrong. */
function wantsTerminal({ spec }: Container): boolean {
  try {
    const { process } = JSON.parse(spec?.value.toString() ?? '') as { process?: { terminal?: boolean } };
    return process?.terminal === true;
  } catch {
    return false;
  }
}

function unlessMissing<T>(get: () => T): T | undefined {
  try {
    return get();
  } catch (error) {
    if (isCode(error, Code.NotFound)) return undefined;
    throw error;
  }
}

/** What has gone meanwhile is as good as ended. */
async function unlessGone(action: Promise<unknown> | undefined): Promise<void> {
  try {
    await action;
  } catch (error) {
    if (!isCode(error, Code.NotFound)) throw error;
  }
}
