/**
 * What subscribers are told of a task: by its shim, and in its place. A shim tells of a call after it has answered, and may be killed in
 * between: what it owes is told by the daemon then, once.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { TaskDelete, TaskExecStarted, TaskExit, TaskStart } from '../../proto/gen/containerd/events/task.ts';
import type { Envelope } from '../../proto/gen/containerd/types/event.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { timestampNow } from '../timestamp.ts';
import type { Execs } from './execs.ts';
import type { Exit } from './exit.ts';
import {
  DELETE_TOPIC,
  EXEC_STARTED_TOPIC,
  EXIT_TOPIC,
  START_TOPIC,
  deleteNotice,
  execStartedNotice,
  exitNotice,
  startNotice,
} from './notices.ts';
import { typeName } from './options.ts';

/** What an event says that tells of something once. */
export interface News {
  /** Subscribers have been told before; they are not to be told twice. */
  readonly repeated: boolean;
  /** To be called once subscribers have been told. */
  noted(): void;
}

/** The task that an event is about. */
interface Subject {
  readonly pid: number;
  readonly exitPublished: boolean;
  readonly news: TaskNews;
  exited(exit: Exit): void;
  execExited(execId: string, exit: Exit): void;
}

type Reader = (event: Any, find: (id: string) => Subject | undefined) => News | undefined;

/** By topic: the type of its event, and how that is read. */
const readers: ReadonlyMap<string, readonly [type: string, Reader]> = new Map<string, [string, Reader]>([
  [START_TOPIC, ['TaskStart', readStart]],
  [EXEC_STARTED_TOPIC, ['TaskExecStarted', readExecStarted]],
  [EXIT_TOPIC, ['TaskExit', readExit]],
  [DELETE_TOPIC, ['TaskDelete', readDelete]],
]);

/** What a shim's event says; undefined when there is nothing to be remembered of it. */
export function readNews(
  { topic, event }: Envelope,
  find: (id: string) => Subject | undefined,
): News | undefined {
  const [type, read] = readers.get(topic) ?? [];
  if (event === undefined || read === undefined || !typeName(event).endsWith(`.${type}`)) return undefined;
  return read(event, find);
}

function readStart(event: Any, find: (id: string) => Subject | undefined): News | undefined {
  const { containerId, pid } = TaskStart.decode(event.value);
  return find(containerId)?.news.ofStart('', pid);
}

function readExecStarted(event: Any, find: (id: string) => Subject | undefined): News | undefined {
  const { containerId, execId, pid } = TaskExecStarted.decode(event.value);
  return find(containerId)?.news.ofStart(execId, pid);
}

function readExit(event: Any, find: (id: string) => Subject | undefined): News | undefined {
  const {
    containerId,
    id,
    pid,
    exitStatus: status,
    exitedAt = timestampNow(),
  } = TaskExit.decode(event.value);
  const task = find(containerId);
  if (task === undefined) return undefined;
  const exit: Exit = { pid, status, exitedAt };
  if (id !== containerId) return { repeated: false, noted: () => task.execExited(id, exit) };
  return { repeated: task.exitPublished, noted: () => task.exited(exit) };
}

function readDelete(event: Any, find: (id: string) => Subject | undefined): News | undefined {
  const { containerId, id, pid } = TaskDelete.decode(event.value);
  const task = find(containerId);
  // It may be about one before of the same name, and with others' shims about an exec.
  if (task === undefined || task.pid !== pid || (id !== '' && id !== containerId)) return undefined;
  return task.news.ofDeletion();
}

/** Turns of the event loop in which a connection is accepted, read and heard that was there before. */
const TURNS = 4;

/**
 * Resolves when what a process sent before it died has been heard: it comes by another socket than the news of its death, and is there
 * to be read at the latest when that is.
 */
export async function lastWords(): Promise<void> {
  for (let i = 0; i < TURNS; i += 1) await turn();
}

export class TaskNews {
  readonly #id: string;
  readonly #execs: Execs;
  readonly #publish: (topic: string, event: Any) => void | Promise<void>;
  #pid = 0;
  /** Of the first process, as of an exec. */
  #start: 'unknown' | 'owed' | 'told' = 'unknown';
  #deletionTold = false;

  constructor(id: string, execs: Execs, publish: (topic: string, event: Any) => void | Promise<void>) {
    this.#id = id;
    this.#execs = execs;
    this.#publish = publish;
  }

  /** The shim has answered a start. @param execId empty for the first process */
  started(execId: string, pid: number): void {
    if (execId !== '') return this.#execs.started(execId, pid);
    if (this.#start === 'unknown') this.#start = 'owed';
    this.#pid = pid;
  }

  /** The shim tells of a start. */
  ofStart(execId: string, pid: number): News {
    const repeated = execId === '' ? this.#start === 'told' : this.#execs.isStartTold(execId, pid);
    return { repeated, noted: () => this.#startTold(execId, pid) };
  }

  /** The shim tells of the deletion. */
  ofDeletion(): News {
    return { repeated: this.#deletionTold, noted: () => void (this.#deletionTold = true) };
  }

  /** Nothing is owed of what comes before the deletion. */
  get complete(): boolean {
    return this.#start !== 'owed' && !this.#execs.owing;
  }

  /** The shim is gone: tells the starts that it has not. */
  async tellStarts(): Promise<void> {
    if (this.#start === 'owed') {
      this.#startTold('', this.#pid);
      await this.#publish(START_TOPIC, startNotice(this.#id, this.#pid));
    }
    for (const [execId, pid] of this.#execs.owedStarts()) {
      this.#startTold(execId, pid);
      await this.#publish(EXEC_STARTED_TOPIC, execStartedNotice(this.#id, execId, pid));
    }
  }

  /** @param execId empty for the first process */
  async tellExit(execId: string, exit: Exit): Promise<void> {
    await this.#publish(EXIT_TOPIC, exitNotice(this.#id, execId || this.#id, exit));
  }

  /** Tells the deletion, unless the shim has. One that lives may do so later: the event is the same then and is not published again. */
  async tellDeletion(exit: Exit): Promise<void> {
    if (this.#deletionTold) return;
    this.#deletionTold = true;
    await this.#publish(DELETE_TOPIC, deleteNotice(this.#id, exit));
  }

  #startTold(execId: string, pid: number): void {
    if (execId === '') this.#start = 'told';
    else this.#execs.startTold(execId, pid);
  }
}
