import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../ttrpc/errors.ts';
import type { Log } from './log.ts';
import type { State } from './state.ts';
import type { StdioRequest } from './stdio.ts';

const FILE = 'state.json';
const VERSION = 1;

/** What a container is like as long as it has not ended: its end is in the exit record. */
export interface Recorded extends Pick<StdioRequest, 'stdin' | 'stdout' | 'stderr' | 'terminal'> {
  readonly status: State['status'];
  /** 0 for a container that is yet to be restored. */
  readonly pid: number;
}

/**
 * The container's state, written down so that a new daemon need not wake the shim to know it. The file is there only while it says
 * everything: it is written before anybody hears of a change, and it is away while the shim holds events for a daemon
 * that is away, while the container is being deleted, and when it cannot be written. Without it the shim is asked.
 */
export class StateRecord {
  readonly #path: string;
  readonly #log: Log;
  #recorded: Recorded | undefined;
  #holding = false;
  #own: { readonly pid: number; readonly started: string } | undefined;

  /** @param bundle where the file is kept */
  constructor(bundle: string, log: Log) {
    this.#path = join(bundle, FILE);
    this.#log = log;
  }

  /** Undefined when there is nothing to say that could be relied on. */
  write(recorded: Recorded | undefined): void {
    this.#recorded = recorded;
    this.#update();
  }

  /** Events wait for a daemon, or none does any more: a new daemon has to hear them before it speaks for the container. */
  hold(holding: boolean): void {
    if (holding === this.#holding) return;
    this.#holding = holding;
    this.#update();
  }

  #update(): void {
    if (this.#recorded === undefined || this.#holding) {
      this.#remove();
      return;
    }
    const { stdin, stdout, stderr, terminal, status, pid } = this.#recorded;
    try {
      this.#own ??= ownProcess();
      const record = { version: VERSION, shim: this.#own, status, pid, stdin, stdout, stderr, terminal };
      const temporary = `${this.#path}.new`;
      writeFileSync(temporary, JSON.stringify(record), { mode: 0o600 });
      renameSync(temporary, this.#path);
    } catch (error) {
      this.#log.warn('the state cannot be written down', { error: messageOf(error) });
      this.#remove();
    }
  }

  #remove(): void {
    try {
      rmSync(this.#path, { force: true });
    } catch (error) {
      this.#log.error('a state that is out of date stays on record', { error: messageOf(error) });
    }
  }
}

/** This process, so that nobody takes another for it that has the same pid one day (proc_pid_stat(5), fields 1 and 22). */
function ownProcess(): { pid: number; started: string } {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { pid: Number.parseInt(stat, 10), started: fields[22 - 3]! };
}
