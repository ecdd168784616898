/** The files of live tasks, without which the next daemon would not find their shims. */
import type { Logger } from 'pino';
import { findLostShims } from './lost-shims.ts';
import type { Task } from './task.ts';

/** Looked after while the daemon runs: others may remove them. */
export class TaskFiles {
  readonly what = 'some of the files of tasks, or sockets of shims,';
  readonly #directory: string;
  readonly #tasks: () => Iterable<Task>;
  readonly #log: Logger;
  /** Tasks whose files were not there at the last look. */
  #missed: ReadonlySet<Task> = new Set();

  /** @param directory `<state>/tasks` */
  constructor(directory: string, tasks: () => Iterable<Task>, log: Logger) {
    this.#directory = directory;
    this.#tasks = tasks;
    this.#log = log;
  }

  /** What is missed twice is not there: a task that is being deleted loses its files a moment before it is gone. */
  isThere = (): boolean => {
    const missed = [...this.#tasks()].filter(
      ({ bundle, shimAddress }) => shimAddress !== undefined && !bundle.leadsTo(shimAddress),
    );
    const twice = missed.some((task) => this.#missed.has(task));
    this.#missed = new Set(missed);
    return !twice;
  };

  /** Has the shims make them again. One that cannot is left as it is: this daemon is connected to it. */
  restore = async (): Promise<void> => {
    await findLostShims(this.#directory, this.#log, false);
  };
}
