/** The execs of one task, as far as this daemon has seen them made: what the daemon says of them once the shim is gone. */
import { type Exit, KILLED } from './exit.ts';

interface Exec {
  pid: number;
  exit: Exit | undefined;
}

export class Execs {
  readonly #execs = new Map<string, Exec>();

  added(id: string): void {
    this.#execs.set(id, { pid: 0, exit: undefined });
  }

  started(id: string, pid: number): void {
    const exec = this.#execs.get(id);
    if (exec !== undefined) exec.pid = pid;
  }

  exited(id: string, exit: Exit): void {
    const exec = this.#execs.get(id);
    if (exec !== undefined) exec.exit = exit;
  }

  deleted(id: string): void {
    this.#execs.delete(id);
  }

  /** Its end, once the whole container has ended like this; undefined when no such exec is known. */
  endOf(id: string, container: Exit): Exit | undefined {
    const exec = this.#execs.get(id);
    if (exec === undefined) return undefined;
    return exec.exit ?? { pid: exec.pid, status: KILLED, exitedAt: container.exitedAt };
  }

  /** Those that were running as far as anyone was told. */
  running(): string[] {
    return [...this.#execs].filter(([, { pid, exit }]) => pid !== 0 && exit === undefined).map(([id]) => id);
  }
}
