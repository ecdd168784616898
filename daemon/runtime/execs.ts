/** The execs of one task: what the daemon says of them once the shim is gone. */
import { type Exit, KILLED, parseTime } from './exit.ts';

interface Exec {
  pid: number;
  exit: Exit | undefined;
  /** Whether subscribers know of its start; what is not known to be owed has been told by its shim, or will be. */
  start: 'unknown' | 'owed' | 'told';
  /** Subscribers know of its end. */
  told: boolean;
  /** Deleted, and on record for its start only. */
  deleted: boolean;
  /** Its deletion had begun before this daemon. */
  departed: boolean;
}

/** One step of an exec, as shim/exec-record.ts writes it. */
interface Step {
  readonly version: number;
  readonly exec: string;
  readonly step: 'added' | 'started' | 'exited' | 'told' | 'deleted';
  readonly pid?: number;
  readonly status?: number;
  readonly exitedAt?: string;
  /** The time of day and the kernel's monotonic clock, in milliseconds; shims before have written the former only. */
  readonly at?: number;
  readonly uptime?: number;
}

const FORMAT = 1;

/** Milliseconds after a start for which a client can still ask for the exit of an exec whose deletion was cut off. */
const DEPARTED_FOR_MS = 60_000;

const NANOSECONDS_A_MILLISECOND = 1_000_000n;
/** When this daemon was started, by the clock that all processes share and nobody sets. */
const START = Number(process.hrtime.bigint() / NANOSECONDS_A_MILLISECOND) - performance.now();

export class Execs {
  #execs = new Map<string, Exec>();

  added(id: string): void {
    this.#execs.set(id, fresh());
  }

  started(id: string, pid: number): void {
    const exec = this.#execs.get(id);
    if (exec === undefined) return;
    if (exec.start === 'unknown') exec.start = 'owed';
    exec.pid = pid;
  }

  /** Subscribers know of its start. */
  startTold(id: string, pid: number): void {
    const exec = this.#execs.get(id);
    if (exec === undefined) return;
    if (exec.deleted) this.#execs.delete(id);
    exec.start = 'told';
    exec.pid = pid;
  }

  /** Whether subscribers know of the start of this very process. */
  isStartTold(id: string, pid: number): boolean {
    const exec = this.#execs.get(id);
    return exec?.start === 'told' && exec.pid === pid;
  }

  /** Those whose start has been answered and not told, with their pids. */
  owedStarts(): [id: string, pid: number][] {
    return [...this.#execs].filter(([, { start }]) => start === 'owed').map(([id, { pid }]) => [id, pid]);
  }

  /** It has ended, and subscribers know. */
  exited(id: string, exit: Exit): void {
    const exec = this.#execs.get(id);
    if (exec === undefined) return;
    exec.exit = exit;
    exec.told = true;
  }

  deleted(id: string): void {
    const exec = this.#execs.get(id);
    if (exec?.start === 'owed') exec.deleted = true;
    else this.#execs.delete(id);
  }

  /** Its end, once the whole container has ended like this; undefined when no such exec is known. */
  endOf(id: string, container: Exit): Exit | undefined {
    const exec = this.#execs.get(id);
    if (exec === undefined || exec.deleted) return undefined;
    return exec.exit ?? { pid: exec.pid, status: KILLED, exitedAt: container.exitedAt };
  }

  /** Those that were started, and of whose end nobody has been told. */
  untold(): string[] {
    return [...this.#execs]
      .filter(([, { pid, told, deleted }]) => pid !== 0 && !told && !deleted)
      .map(([id]) => id);
  }

  /** Of some, subscribers do not know all. */
  get owing(): boolean {
    return this.untold().length > 0 || this.owedStarts().length > 0;
  }

  /** Takes over what a shim that is gone had on record, where that is more than is known. */
  recall(record: string): void {
    const recorded = read(record);
    for (const [id, exec] of this.#execs) {
      const known = recorded.get(id);
      if (known === undefined) recorded.set(id, exec);
      else {
        known.told ||= exec.told;
        known.start = exec.start;
      }
    }
    this.#execs = recorded;
  }
}

/**
 * How an exec ended whose deletion another daemon had begun and not answered, soon after this one has been started.
 *
 * @param record what its shim has written down
 */
export function departedExit(record: string, id: string): Exit | undefined {
  if (performance.now() > DEPARTED_FOR_MS) return undefined;
  const exec = read(record).get(id);
  return exec?.departed === true ? exec.exit : undefined;
}

const fresh = (): Exec => ({
  pid: 0,
  exit: undefined,
  start: 'unknown',
  told: false,
  deleted: false,
  departed: false,
});

function read(record: string): Map<string, Exec> {
  const found = new Map<string, Exec>();
  for (const line of record.split('\n')) {
    const step = parse(line);
    if (step === undefined) continue;
    if (step.step === 'added') found.set(step.exec, fresh());
    const exec = found.get(step.exec);
    if (exec !== undefined) take(exec, step);
  }
  return found;
}

function take(
  exec: Exec,
  { step, pid = 0, status = KILLED, exitedAt = '', at = Infinity, uptime }: Step,
): void {
  if (step === 'started') exec.pid = pid;
  if (step === 'told') exec.told = true;
  if (step === 'deleted') exec.departed = uptime === undefined ? at < performance.timeOrigin : uptime < START;
  const time = step === 'exited' ? parseTime(exitedAt) : undefined;
  if (time !== undefined) {
    exec.pid = pid;
    exec.exit = { pid, status, exitedAt: time };
  }
}

/** Undefined for a line that its writer did not come to end, or one of another form. */
function parse(line: string): Step | undefined {
  try {
    const step = JSON.parse(line) as Step;
    return step.version === FORMAT && typeof step.exec === 'string' ? step : undefined;
  } catch {
    return undefined;
  }
}
