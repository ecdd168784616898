import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { getPid } from '../native/native.ts';
import type { CreateTaskRequest, ExecProcessRequest } from '../proto/gen/containerd/task/v2.ts';
import { Any } from '../proto/gen/google/protobuf/any.ts';
import type { Options } from '../proto/gen/containerd/runtime/runc.ts';
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from '../ttrpc/errors.ts';
import { cgroupOf, joinCgroup, type Cgroup } from './cgroup/cgroup.ts';
import type { OomWatch } from './cgroup/oom.ts';
import { event } from './events.ts';
import { ExecProcess } from './exec.ts';
import { ExecRecord } from './exec-record.ts';
import { type ExitRecord, writeExitRecord } from './exit-record.ts';
import { reached } from './failpoint.ts';
import { InitProcess, PID_FILE } from './init.ts';
import { KeptFiles } from './kept-files.ts';
import type { Log } from './log.ts';
import { OPTIONS_FILE, parseOptions } from './options.ts';
import type { ContainerProcess } from './process.ts';
import type { Publisher } from './publisher.ts';
import type { Exit, Reaper } from './reaper.ts';
import { mountRootfs, unmountRootfs } from './rootfs.ts';
import { Runc } from './runc.ts';
import type { SealedRunc } from './sealed-runc.ts';
import { parseObject, readSpec, SPEC_FILE, type Spec } from './spec.ts';
import { StateRecord } from './state-record.ts';
import { openStdio, type ProcessStdio, type StdioRequest } from './stdio.ts';

/** What a container needs from the shim around it. */
export interface Surroundings {
  readonly namespace: string;
  readonly reaper: Reaper;
  readonly publisher: Publisher;
  readonly log: Log;
  /** What a runtime called runc is started as, where there is a copy. */
  readonly sealedRunc?: SealedRunc | undefined;
}

/** How long the exit of the init waits for those of the execs, which end with it. */
const EXECS_TIMEOUT_MS = 10_000;
/** Milliseconds until what could not be written down is tried again. */
const RECORD_PAUSE_MS = 1000;

/** A container of a shim, from its creation to its deletion. */
export class Container {
  readonly id: string;
  readonly bundle: string;
  readonly init: InitProcess;
  readonly #surroundings: Surroundings;
  readonly #options: Options;
  readonly #spec: Spec;
  readonly #runc: Runc;
  readonly #record: StateRecord;
  readonly #execs = new Map<string, ExecProcess>();
  readonly #execRecord: ExecRecord;
  readonly #unwatch: () => void;
  readonly #files = new KeptFiles();
  #cgroup: Cgroup | undefined;
  #oom: OomWatch | undefined;
  /** Resolves when the exit of the init has been queued for the daemon. */
  #exitTold: Promise<void> | undefined;
  #recording: NodeJS.Timeout | undefined;
  #exitPublished = false;
  #execCount = 0;

  private constructor(request: CreateTaskRequest, surroundings: Surroundings) {
    const { id, bundle } = request;
    this.id = id;
    this.bundle = bundle;
    this.#surroundings = surroundings;
    this.#options = parseOptions(request.options);
    this.#spec = readSpec(bundle);
    this.#record = new StateRecord(bundle, surroundings.log);
    this.#execRecord = new ExecRecord(bundle, surroundings.log);
    this.#unwatch = surroundings.publisher.watchHolding((holding) => this.#record.hold(holding));
    this.#runc = new Runc(
      { id, bundle, namespace: surroundings.namespace },
      this.#options,
      surroundings.reaper,
      surroundings.sealedRunc,
    );
    this.init = new InitProcess(
      {
        id,
        bundle,
        runc: this.#runc,
        reaper: surroundings.reaper,
        criuWorkPath: this.#options.criuWorkPath,
        hasPoststartHooks: this.#spec.hasPoststartHooks,
        hasPoststopHooks: this.#spec.hasPoststopHooks,
        ownPidNamespace: this.#spec.ownPidNamespace,
        onExit: (exit) => {
          this.#exitTold = this.#initExited(exit);
        },
      },
      request,
      request.checkpoint,
    );
  }

  /**
   * Mounts the root filesystem and creates the container in the OCI runtime; undoes what it did when a part of it fails.
   *
   * @param signal gives up the wait for the client to open its FIFOs. What the runtime has begun is carried through
   */
  static async create(
    request: CreateTaskRequest,
    surroundings: Surroundings,
    signal: AbortSignal,
  ): Promise<Container> {
    if (!request.bundle.startsWith('/'))
      throw invalidArgument(`bundle ${request.bundle} is no absolute path`);
    const container = new Container(request, surroundings);
    await container.#create(request, signal);
    return container;
  }

  get cgroup(): Cgroup | undefined {
    return this.#cgroup;
  }

  /** The processes that were added to the init. */
  get execs(): Iterable<ExecProcess> {
    return this.#execs.values();
  }

  /** @throws RpcError NotFound */
  exec(id: string): ExecProcess {
    const exec = this.#execs.get(id);
    if (exec === undefined) throw notFound(`process does not exist ${id}`);
    return exec;
  }

  /** The init for the empty id. @throws RpcError NotFound */
  process(execId: string): ContainerProcess {
    return execId === '' ? this.init : this.exec(execId);
  }

  /** @throws RpcError AlreadyExists, FailedPrecondition, InvalidArgument for a spec that is none */
  addExec(request: ExecProcessRequest): ExecProcess {
    const { execId, terminal } = request;
    if (execId === '') throw invalidArgument('an exec needs an id');
    if (this.#execs.has(execId)) throw alreadyExists(`id ${execId}`);
    const { status } = this.init.state;
    if (status !== 'created' && status !== 'running')
      throw failedPrecondition(`cannot exec in a ${status} state`);
    const spec = parseObject(request.spec?.value.toString() ?? '', 'the process specification');
    const exec = new ExecProcess(
      {
        id: execId,
        pidFile: join(this.bundle, `exec-${this.#execCount++}.pid`),
        spec: { ...spec, terminal },
        runc: this.#runc,
        reaper: this.#surroundings.reaper,
        openStdio: (wanted, signal) => this.#openStdio(wanted, true, signal),
        onExit: (exit) => void this.#execExited(exec, exit),
      },
      request,
    );
    this.#execs.set(execId, exec);
    this.#execRecord.added(execId);
    this.#publish(event.execAdded(this.id, execId));
    return exec;
  }

  async deleteExec(exec: ExecProcess): Promise<void> {
    this.#execRecord.deleted(exec.id);
    await exec.delete();
    this.#execs.delete(exec.id);
  }

  async start(): Promise<number> {
    // Before it runs, as what takes too much memory at once is killed at once. A container that is restored has no process yet.
    if (this.init.pid !== 0) this.#watchCgroup(this.init.pid);
    const pid = await this.init.start();
    reached('runtime-started');
    this.#recordState();
    this.#watchCgroup(pid);
    this.#publish(event.started(this.id, pid));
    return pid;
  }

  async startExec(exec: ExecProcess, signal: AbortSignal): Promise<number> {
    const pid = await exec.start(signal);
    reached('exec-running');
    this.#execRecord.started(exec.id, pid);
    this.#publish(event.execStarted(this.id, exec.id, pid));
    return pid;
  }

  async pause(): Promise<void> {
    await this.init.pause();
    this.#recordState();
    this.#publish(event.paused(this.id));
  }

  async resume(): Promise<void> {
    await this.init.resume();
    this.#recordState();
    this.#publish(event.resumed(this.id));
  }

  /** Every process of the container. */
  async pids(): Promise<number[]> {
    return this.#cgroup?.pids() ?? this.#runc.ps();
  }

  /** Deletes the container with all it has mounted. What is left of its output goes on being delivered. */
  async delete(): Promise<void> {
    this.#record.write(undefined);
    try {
      // Unless it failed later on before: then the rest is tried again.
      if (this.init.state.status !== 'deleted') await this.init.delete();
      reached('runtime-deleted');
    } catch (error) {
      this.#recordState();
      throw error;
    }
    await this.#exitTold;
    this.#oom?.close();
    this.#unwatch();
    this.#files[Symbol.dispose]();
    await unmountRootfs(this.#rootfs);
    reached('rootfs-unmounted');
    this.#publish(event.deleted(this.id, this.init.exit));
  }

  /** Puts the container's files back where others have removed them. @throws the file system's error */
  restoreFiles(): void {
    const { pid, exit } = this.init;
    mkdirSync(this.#rootfs, { recursive: true, mode: 0o711 });
    this.#files.restore();
    if (pid !== 0) writeFileSync(join(this.bundle, PID_FILE), String(pid));
    if (exit !== undefined) this.#recordExit({ exit, published: this.#exitPublished });
    this.#execRecord.restore();
    this.#recordState();
  }

  get #rootfs(): string {
    return join(this.bundle, 'rootfs');
  }

  async #create(request: CreateTaskRequest, signal: AbortSignal): Promise<void> {
    const { reaper } = this.#surroundings;
    const { shimCgroup } = this.#options;
    if (shimCgroup !== '') joinCgroup(shimCgroup, getPid());
    const optionsFile = join(this.bundle, OPTIONS_FILE);
    // The daemon's own, where there are some, or those of the last attempt: `delete` needs the ones that were used.
    if (request.options !== undefined) {
      writeFileSync(optionsFile, Any.encode(request.options).finish(), { mode: 0o600 });
    }
    for (const name of [SPEC_FILE, OPTIONS_FILE]) this.#files.keep(join(this.bundle, name));
    await mountRootfs(request.rootfs, this.#rootfs, reaper);
    try {
      reached('rootfs-mounted');
      const stdio = await this.#openStdio(request, !this.#spec.ownPidNamespace, signal);
      await this.init.create(stdio);
      reached('runtime-created');
    } catch (error) {
      await this.#undoCreate();
      throw error;
    }
    const { pid } = this.init;
    if (pid !== 0) this.#cgroup = this.#findCgroup(pid);
    this.#recordState();
    const { id, bundle, rootfs, checkpoint, stdin, stdout, stderr, terminal } = request;
    const io = { stdin, stdout, stderr, terminal };
    this.#publish(event.created({ containerId: id, bundle, rootfs, io, checkpoint, pid }));
  }

  async #undoCreate(): Promise<void> {
    const { log } = this.#surroundings;
    this.#unwatch();
    this.#files[Symbol.dispose]();
    // A runtime that was killed, or failed late, may have left a part of it.
    await this.#runc.deleteUnfinished(this.#spec.cgroupsPath).catch((error: unknown) => {
      log.warn('what the runtime has left of a failed creation cannot be deleted', { error });
    });
    await unmountRootfs(this.#rootfs).catch((error: unknown) => {
      log.warn('the root filesystem of a failed creation cannot be unmounted', { error });
    });
  }

  #openStdio(request: StdioRequest, outlived: boolean, signal: AbortSignal): Promise<ProcessStdio> {
    const { namespace, reaper, log } = this.#surroundings;
    const { ioUid: uid, ioGid: gid } = this.#options;
    const { id, bundle } = this;
    return openStdio(request, { id, namespace, bundle, outlived, owner: { uid, gid }, reaper, log, signal });
  }

  #watchCgroup(pid: number): void {
    this.#cgroup ??= this.#findCgroup(pid);
    if (this.#oom !== undefined || this.init.exit !== undefined) return;
    // The news of the start comes first.
    const tell = () => void this.init.startsAnswered.then(() => this.#publish(event.oom(this.id)));
    try {
      this.#oom = this.#cgroup?.watchOom(tell);
    } catch (error) {
      this.#surroundings.log.warn('the end of memory cannot be watched', { error });
    }
  }

  #findCgroup(pid: number): Cgroup | undefined {
    try {
      return cgroupOf(pid);
    } catch (error) {
      this.#surroundings.log.warn('the cgroup is not known', { pid, error });
      return undefined;
    }
  }

  async #execExited(exec: ExecProcess, exit: Exit): Promise<void> {
    this.#execRecord.exited(exec.id, exit);
    await exec.startsAnswered;
    await this.#surroundings.publisher.publish(event.exited(this.id, exec.id, exit));
    this.#execRecord.told(exec.id);
  }

  async #initExited(exit: Exit): Promise<void> {
    const { log, publisher } = this.#surroundings;
    this.#recordExit({ exit, published: false });
    // Removed by the runtime from now on.
    this.#files.forget(this.#runc.stateFile);
    try {
      reached('exit-recorded');
      if (!this.#spec.ownPidNamespace) await this.#cgroup?.kill();
      await this.#execsExited();
    } catch (error) {
      log.error('processes of the container outlive its init', { error });
    }
    this.#oom?.check();
    this.#oom?.close();
    await this.init.outputTaken;
    this.init.tell(exit);
    await this.init.startsAnswered;
    const acknowledged = publisher.publish(event.exited(this.id, this.id, exit));
    void acknowledged.then(() => {
      this.#exitPublished = true;
      this.#recordExit({ exit, published: true });
    });
    // Behind the news, which a client waits for: starting a process takes a millisecond or two of this one.
    setImmediate(() => this.init.release());
  }

  /** Execs end with the init, and their exits are told before its own. */
  async #execsExited(): Promise<void> {
    const running = [...this.#execs.values()].filter(({ state }) => state.status === 'running');
    if (running.length === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, EXECS_TIMEOUT_MS);
    });
    await Promise.race([late, Promise.all(running.map(({ exited }) => exited))]);
    clearTimeout(timer);
  }

  /** For those who come after this shim. Whoever asks this one is told even where there is no room to write it down. */
  #recordExit(record: ExitRecord): void {
    clearTimeout(this.#recording);
    this.#recording = undefined;
    try {
      writeExitRecord(this.bundle, record);
    } catch (error) {
      // The bundle goes when the container is deleted.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      this.#surroundings.log.warn('the exit cannot be written down yet', { error });
      this.#recording = setTimeout(() => this.#recordExit(record), RECORD_PAUSE_MS).unref();
    }
  }

  /** Before anybody is told of it. */
  #recordState(): void {
    const { request, state, pid } = this.init;
    if (state.status === 'created' || state.status === 'running') this.#files.keep(this.#runc.stateFile);
    this.#record.write(state.status === 'deleted' ? undefined : { ...request, status: state.status, pid });
  }

  #publish(what: ReturnType<(typeof event)['oom']>): void {
    void this.#surroundings.publisher.publish(what);
  }
}
