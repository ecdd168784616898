import { cancelled, unavailable } from '../../ttrpc/errors.ts';
import type { Archive, Job } from './job.ts';
import { DifferProcess } from './process.ts';

/** More would only wait for the same disk. */
const MOST_PROCESSES = 2;
/** A pull brings its layers in quick succession; afterwards the memory is worth more. */
const IDLE_MS = 5000;

interface Idle {
  readonly process: DifferProcess;
  readonly timer: NodeJS.Timeout;
}

/** The processes that do jobs: started when there is work, ended when there has been none for a while. */
export class DifferPool {
  readonly #command: readonly [string, ...string[]];
  readonly #idle: Idle[] = [];
  readonly #busy = new Set<DifferProcess>();
  readonly #waiting: PromiseWithResolvers<void>[] = [];
  #running = 0;
  #isClosed = false;

  constructor(command: readonly [string, ...string[]]) {
    this.#command = command;
  }

  /** Has a job done as soon as a process is free. */
  async run(job: Job, file: number, signal?: AbortSignal): Promise<Archive> {
    await this.#turn(job, signal);
    try {
      const process = this.#take();
      this.#busy.add(process);
      try {
        return await process.run(job, file, signal);
      } finally {
        this.#busy.delete(process);
        await this.#giveBack(process);
      }
    } finally {
      this.#leave();
    }
  }

  /** Ends all processes, those at work by force. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const process of this.#busy) process.kill();
    for (const waiter of this.#waiting.splice(0)) waiter.reject(closed());
    await Promise.all(this.#idle.splice(0).map(({ process, timer }) => end(process, timer)));
  }

  async #turn({ job }: Job, signal: AbortSignal | undefined): Promise<void> {
    if (this.#isClosed) throw closed();
    if (signal?.aborted === true) throw cancelled(`${job} was cancelled`);
    if (this.#running < MOST_PROCESSES) {
      this.#running++;
      return;
    }
    const waiter = Promise.withResolvers<void>();
    const leave = () => {
      const index = this.#waiting.indexOf(waiter);
      if (index !== -1) this.#waiting.splice(index, 1);
      waiter.reject(cancelled(`${job} was cancelled`));
    };
    this.#waiting.push(waiter);
    signal?.addEventListener('abort', leave, { once: true });
    try {
      await waiter.promise;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  /** Hands the place to who waits longest, or leaves it free. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#running--;
    else next.resolve();
  }

  #take(): DifferProcess {
    for (let idle = this.#idle.pop(); idle !== undefined; idle = this.#idle.pop()) {
      clearTimeout(idle.timer);
      if (idle.process.isAlive) return idle.process;
      void idle.process.close();
    }
    return new DifferProcess(this.#command);
  }

  async #giveBack(process: DifferProcess): Promise<void> {
    if (!process.isAlive || this.#isClosed) return process.close();
    const timer = setTimeout(() => {
      this.#idle.splice(
        this.#idle.findIndex((each) => each.timer === timer),
        1,
      );
      void process.close();
    }, IDLE_MS);
    timer.unref();
    this.#idle.push({ process, timer });
  }
}

function closed(): Error {
  return unavailable('the differ is closed');
}

async function end(process: DifferProcess, timer: NodeJS.Timeout): Promise<void> {
  clearTimeout(timer);
  await process.close();
}
