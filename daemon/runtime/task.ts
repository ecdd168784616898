/**
 * One task as the daemon sees it. The shim is the truth about the container; once the shim is gone, the task speaks for it.
 */
import type { Logger } from 'pino';
import type {
  CheckpointTaskRequest,
  ExecProcessRequest,
  KillRequest,
  StateResponse,
  UpdateTaskRequest,
} from '../../proto/gen/containerd/task/v2.ts';
import { type ProcessInfo, Status } from '../../proto/gen/containerd/types/task.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Code, failedPrecondition, internal, isCode, messageOf, notFound } from '../../ttrpc/errors.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import type { ContainerId, ExecId, Namespace } from '../identifiers.ts';
import { attachTo, type Output } from './attachment.ts';
import type { Bootstrap } from './bootstrap.ts';
import { whenPossible } from '../shortage.ts';
import { timestampNow } from '../timestamp.ts';
import type { Bundle } from './bundle.ts';
import { cleanUpAfterShim } from './cleanup.ts';
import { deleteContainer, leaveShim } from './deletion.ts';
import { departedExit, Execs } from './execs.ts';
import { type Exit, type ExitRecord, KILLED, record } from './exit.ts';
import { asAnswer, type KnownState } from './known-state.ts';
import { reached } from '../failpoint.ts';
import type { Launcher } from './launcher.ts';
import { type Question, ShimLink, type Unmet } from './link.ts';
import { expectMoves } from './moves.ts';
import { TaskNews } from './news.ts';
import type { EventPublisher } from './notices.ts';
import type { Shim, TaskClient } from './shim.ts';
import { Turnstile } from './turnstile.ts';

/** What a task needs from the daemon around it. */
export interface TaskSurroundings {
  readonly events: EventPublisher;
  readonly log: Logger;
  /** How many clean-ups run at once: each starts processes. */
  readonly cleanUps: Turnstile;
  /** The task is deleted: nobody can find it any more, and its hidden bundle can be removed. */
  readonly gone: (task: Task, remains: string | undefined) => void;
}

/** Empty for the container's first process. */
export type ProcessId = ExecId | '';

/** A request without the container's id, which the task knows. */
type Of<Request> = Omit<PartialMessage<Request>, 'id'>;

export class Task {
  readonly namespace: Namespace;
  readonly id: ContainerId;
  readonly bundle: Bundle;
  readonly launcher: Launcher;
  readonly log: Logger;
  /** What subscribers are told of it. */
  readonly news: TaskNews;
  readonly #surroundings: TaskSurroundings;
  readonly #link: ShimLink;
  readonly #execs = new Execs();
  /** Creating, starting and deleting come one after another. */
  readonly #order = new Turnstile(1);
  #pid = 0;
  #exit: ExitRecord | undefined;
  #departed = false;
  #stopLog: () => void = () => {};

  constructor(bundle: Bundle, launcher: Launcher, surroundings: TaskSurroundings) {
    this.namespace = bundle.namespace;
    this.id = bundle.id;
    this.bundle = bundle;
    this.launcher = launcher;
    this.#surroundings = surroundings;
    this.log = surroundings.log.child({ namespace: bundle.namespace, id: bundle.id });
    const { events } = surroundings;
    this.news = new TaskNews(this.id, this.#execs, (...news) => events.publish(this.namespace, ...news));
    this.#link = new ShimLink(this.id, this.log, (bootstrap) => this.bury(bootstrap));
  }

  /** The first process's pid; 0 until it exists. */
  get pid(): number {
    return this.#pid;
  }

  /** The runtime's name. */
  get runtime(): string {
    return this.launcher.runtime;
  }

  /** It can be found by its id. */
  get visible(): boolean {
    const { kind } = this.#link.life;
    return kind !== 'creating' && kind !== 'deleted';
  }

  /** It is among the tasks of its namespace; one that was deleted for a call that got no answer is not. */
  get listed(): boolean {
    return this.visible && !this.#departed;
  }

  get shimAddress(): string | undefined {
    return this.#link.address;
  }
  /** Subscribers have been given the first process's exit. */
  get exitPublished(): boolean {
    return this.#exit?.published === true;
  }

  // ---- what becomes of it ----

  /** Has a foreign shim's log read until the task is gone. */
  followLog(): void {
    this.#stopLog = this.launcher.followLog(this.bundle, this.log);
  }

  /** The shim has the container. */
  live(shim: Shim, pid: number): void {
    this.#pid = pid;
    this.#link.attach(shim);
  }

  /** The shim has the container, and has not been talked to. */
  unmet(known: KnownState | undefined, shim: Unmet): void {
    this.#pid = known?.pid ?? this.bundle.readInitPid();
    if (known?.exit !== undefined) this.#ended(known.exit);
    this.#link.unmet(shim);
  }

  /**
   * Connects to a shim that has not been talked to.
   * @throws RpcError ResourceExhausted when that is not possible now
   */
  meet(): Promise<void> {
    return this.#link.meet();
  }

  /** The shim is gone, and has been cleaned up after. */
  dead(exit: ExitRecord): void {
    this.#ended(exit);
    this.#link.dead(exit);
  }

  /** Everything has been deleted, but the client that asked for it may not know: it can ask once more. */
  departed(exit: ExitRecord): void {
    this.#departed = true;
    this.dead(exit);
  }

  /** Nothing was made of it after all, or the daemon stops: the shim is let go, not touched. */
  leave(): void {
    this.#link.leave();
    this.#stopLog();
  }

  /** It turns out to have no container: its shim is about to go, which is no loss. */
  letGo(): void {
    this.#link.forget();
  }

  /** The first process has ended, and subscribers have been told. */
  exited(exit: Exit): void {
    this.#ended({ ...exit, published: true });
    if (!this.launcher.own) record(this.log, () => this.bundle.writeExit({ ...exit, published: true }));
  }

  execExited(execId: string, exit: Exit): void {
    this.#execs.exited(execId, exit);
  }

  /** The first process has ended and nobody has been told: the shim cannot, or will not. */
  async announceExit(exit: Exit): Promise<void> {
    await this.news.tellExit('', exit);
    this.exited(exit);
    reached('exit-published');
  }

  /**
   * The shim is gone with this end on record: its execs have ended as well, and whatever of that nobody has been told is published.
   * @param toldBefore all of it, by a former daemon @returns the record as it is then
   */
  async announceDeath(exit: ExitRecord, toldBefore = false): Promise<ExitRecord> {
    this.#execs.recall(this.bundle.readExecs());
    if (toldBefore) return exit;
    await this.news.tellStarts();
    for (const id of this.#execs.untold()) await this.news.tellExit(id, this.#execExit(id, exit));
    if (exit.published) return exit;
    await this.announceExit(exit);
    const published = { ...exit, published: true };
    record(this.log, () => this.bundle.writeDead(published));
    return published;
  }

  /**
   * Cleans up after a shim that is known to be dead, makes the exit known, and keeps it until the task is deleted. The exit is
   * recorded before it is published, so that a crash in between publishes it once more rather than never. Never rejects.
   */
  async bury(bootstrap: Bootstrap | undefined): Promise<void> {
    const { cleanUps } = this.#surroundings;
    let exit: ExitRecord = this.#exit ?? { ...this.#killed(), published: false };
    try {
      const { bundle, launcher, log } = this;
      const cleanUp = () => cleanUps.pass(() => cleanUpAfterShim(bundle, launcher, bootstrap, log));
      const found = await whenPossible('the clean-up after a dead shim', cleanUp, { log });
      const end = this.#exit ?? found;
      record(log, () => bundle.writeDead(end));
      reached('dead-shim-recorded');
      exit = await this.announceDeath(end);
      const { status, pid } = exit;
      this.log.warn({ status, pid }, 'the shim is gone; its container has been removed');
    } catch (error) {
      this.log.error({ err: error }, 'the clean-up after a dead shim is incomplete');
    }
    this.dead(exit);
  }

  // ---- what clients ask ----

  /** @returns the process's pid */
  async start(execId: ProcessId, signal: AbortSignal): Promise<number> {
    const start = async () => {
      const action = execId === '' ? 'starting it' : `starting exec ${execId}`;
      const { pid } = await this.#once(
        action,
        (shim) => shim.start({ id: this.id, execId }, { signal }),
        signal,
      );
      this.news.started(execId, pid);
      reached(execId === '' ? 'container-started' : 'process-started');
      return pid;
    };
    return execId === '' ? this.#order.pass(start, signal) : start();
  }

  async exec(request: Of<ExecProcessRequest> & { execId: ExecId }, signal: AbortSignal): Promise<void> {
    // Clients start it right after.
    expectMoves();
    await this.#once(
      'adding a process',
      (shim) => shim.exec({ ...request, id: this.id }, { signal }),
      signal,
    );
    this.#execs.added(request.execId);
    reached('process-added');
  }

  async kill(request: Of<KillRequest>, signal: AbortSignal): Promise<void> {
    const call = (shim: TaskClient) => shim.kill({ ...request, id: this.id }, { signal });
    const whenDead = () => {
      throw notFound(`task ${this.id}: process already finished: not found`);
    };
    await this.#link.ask({ action: 'killing it', call, whenDead, signal, repeat: false });
  }

  async pause(signal: AbortSignal): Promise<void> {
    await this.#once('pausing it', (shim) => shim.pause({ id: this.id }, { signal }), signal);
  }

  async resume(signal: AbortSignal): Promise<void> {
    await this.#once('resuming it', (shim) => shim.resume({ id: this.id }, { signal }), signal);
  }

  async resizePty(
    execId: ProcessId,
    size: { width: number; height: number },
    signal: AbortSignal,
  ): Promise<void> {
    const request = { id: this.id, execId, ...size };
    await this.#once('resizing its terminal', (shim) => shim.resizePty(request, { signal }), signal);
  }

  async closeStdin(execId: ProcessId, signal: AbortSignal): Promise<void> {
    const request = { id: this.id, execId, stdin: true };
    await this.#once('closing its stdin', (shim) => shim.closeIO(request, { signal }), signal);
  }

  /**
   * Has the shim go on with the file that the path of the container's log names now.
   * @throws RpcError FailedPrecondition for a container that has none, or a shim of another make
   */
  async reopenLog(signal: AbortSignal): Promise<void> {
    const call = (_: TaskClient, shim: Shim) => shim.own.reopenLog({ id: this.id }, { signal });
    await this.#once('opening its log again', this.#ownOnly(call), signal);
  }

  /** @throws RpcError as `attachTo`; FailedPrecondition for a shim of another make */
  async attach(
    input: AsyncIterable<Uint8Array> | undefined,
    signal: AbortSignal,
  ): Promise<AsyncIterable<Output>> {
    const call = (_: TaskClient, shim: Shim) => attachTo(shim, this.id, input, signal);
    return this.#once('attaching to it', this.#ownOnly(call), signal);
  }

  async update(request: Of<UpdateTaskRequest>, signal: AbortSignal): Promise<void> {
    await this.#once('updating it', (shim) => shim.update({ ...request, id: this.id }, { signal }), signal);
  }

  async checkpoint(request: Of<CheckpointTaskRequest>, signal: AbortSignal): Promise<void> {
    const call = (shim: TaskClient) => shim.checkpoint({ ...request, id: this.id }, { signal });
    await this.#once('checkpointing it', call, signal);
  }

  async pids(signal: AbortSignal): Promise<ProcessInfo[]> {
    const call = async (shim: TaskClient) => (await shim.pids({ id: this.id }, { signal })).processes;
    return this.#link.ask({
      action: 'listing its processes',
      call,
      whenDead: () => [],
      signal,
      repeat: true,
    });
  }

  /** Undefined when there is nothing left to measure. */
  async stats(signal: AbortSignal): Promise<Any | undefined> {
    const call = async (shim: TaskClient) => (await shim.stats({ id: this.id }, { signal })).stats;
    const whenDead = () => undefined;
    return this.#link.ask<Any | undefined>({ action: 'measuring it', call, whenDead, signal, repeat: true });
  }

  async state(execId: ProcessId, signal: AbortSignal): Promise<PartialMessage<StateResponse>> {
    const known = execId === '' ? this.#link.known() : undefined;
    if (known !== undefined) return { id: this.id, ...asAnswer(known) };
    // A deletion may have come no further than the shim: the client has to be able to go on with it.
    const call = (shim: TaskClient): Promise<PartialMessage<StateResponse>> =>
      shim.state({ id: this.id, execId }, { signal }).catch((error: unknown) => {
        const exit = this.#exit ?? this.bundle.readExit();
        if (execId === '' && exit !== undefined && isCode(error, Code.NotFound)) return whenDead(exit);
        throw error;
      });
    const whenDead = (container: Exit) => {
      const { pid, status: exitStatus, exitedAt } = this.#endOf(execId, container);
      return { id: execId || this.id, execId, pid, status: Status.STOPPED, exitStatus, exitedAt };
    };
    const action = 'asking for its state';
    return this.#link.ask<PartialMessage<StateResponse>>({ action, call, whenDead, signal, repeat: true });
  }

  /** Resolves when the process has ended; the death of the shim ends it too. */
  wait(execId: ProcessId, signal: AbortSignal): Promise<Exit> {
    const call = async (shim: TaskClient) => {
      const { exitStatus, exitedAt } = await shim.wait({ id: this.id, execId }, { signal });
      return { pid: this.pid, status: exitStatus, exitedAt: exitedAt ?? timestampNow() };
    };
    const whenDead = (container: Exit) => this.#endOf(execId, container);
    return this.#link.ask<Exit>({ action: 'waiting for it', call, whenDead, signal, repeat: true });
  }

  async deleteExec(execId: ExecId, signal: AbortSignal): Promise<Exit> {
    const call = async (shim: TaskClient) => {
      try {
        const { pid, exitStatus, exitedAt } = await shim.delete({ id: this.id, execId }, { signal });
        return { pid, status: exitStatus, exitedAt: exitedAt ?? timestampNow() };
      } catch (error) {
        const exit = isCode(error, Code.NotFound) && departedExit(this.bundle.readExecs(), execId);
        if (exit) return exit;
        throw error;
      }
    };
    const whenDead = (container: Exit) => this.#execExit(execId, container);
    const action = `deleting exec ${execId}`;
    const exit = await this.#link.ask<Exit>({ action, call, whenDead, signal, repeat: false });
    reached('process-deleted');
    this.#execs.deleted(execId);
    return exit;
  }

  /**
   * Deletes container, shim and bundle. Once begun it is carried through, whether or not the caller waits for the end.
   * @throws RpcError FailedPrecondition while the container runs
   */
  delete(signal: AbortSignal): Promise<Exit> {
    return this.#order.pass(() => this.#delete(), signal);
  }

  async #delete(): Promise<Exit> {
    if (!this.visible) throw notFound(`task ${this.id}: not found`);
    reached('delete-begun');
    const call = (shim: TaskClient): Promise<Exit | undefined> =>
      deleteContainer(shim, this.id, () => this.#exit ?? this.bundle.readExit());
    const exit = await this.#link.ask<Exit | undefined>({
      action: 'deleting it',
      call,
      whenDead: (exit) => exit,
      repeat: true,
    });
    reached('container-deleted');
    await this.#link.settled();
    const { life } = this.#link;
    if (life.kind === 'dead' && !this.#departed) await this.news.tellDeletion(life.exit);
    this.#link.deleted(exit ?? this.#killed());
    try {
      if (life.kind === 'live') await leaveShim(this, life.shim, exit);
    } finally {
      this.#remove();
    }
    if (exit === undefined) throw notFound(`task ${this.id}: not found`);
    return exit;
  }

  /** The bundle goes out of sight, and the task with it. */
  #remove(): void {
    this.#stopLog();
    let remains: string | undefined;
    try {
      remains = this.bundle.hide();
    } catch (error) {
      throw internal(`task ${this.id} is deleted but its bundle is not: ${messageOf(error)}`, error);
    } finally {
      this.#surroundings.gone(this, remains);
    }
    reached('bundle-removed');
  }

  #ownOnly<T>(call: T): T {
    if (this.launcher.own) return call;
    throw failedPrecondition(
      `the shim of task ${this.id} is not Moor's own: it keeps no log and cannot be attached to`,
    );
  }

  /** A call that needs a container and must not be made twice. */
  #once<T>(action: string, call: Question<T>['call'], signal: AbortSignal): Promise<T> {
    const whenDead = (): T => {
      throw failedPrecondition(`task ${this.id} has stopped: its shim is gone: failed precondition`);
    };
    return this.#link.ask({ action, call, whenDead, signal, repeat: false });
  }

  #killed(): Exit {
    return { pid: this.pid, status: KILLED, exitedAt: timestampNow() };
  }

  #ended(exit: ExitRecord): void {
    this.#exit = exit;
    if (exit.pid > 0) this.#pid = exit.pid;
  }

  #endOf(execId: ProcessId, container: Exit): Exit {
    return execId === '' ? container : this.#execExit(execId, container);
  }

  #execExit(execId: string, container: Exit): Exit {
    const exit = this.#execs.endOf(execId, container);
    if (exit === undefined) throw notFound(`exec ${execId} of task ${this.id}: not found`);
    return exit;
  }
}
