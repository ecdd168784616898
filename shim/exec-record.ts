import { closeSync, existsSync, openSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../ttrpc/errors.ts';
import type { Log } from './log.ts';
import type { Exit } from './reaper.ts';
import { toRfc3339 } from './timestamp.ts';

const FILE = 'execs';

/** Of the record's lines. */
const FORMAT = 1;

/** Bytes after which the lines of execs that are long gone are left out. */
const MOST_BYTES = 64 << 10;
/** Milliseconds for which a deleted exec stays on record: a client may ask the next daemon once more for what it was not told. */
const KEPT_MS = 60_000;
const NANOSECONDS_A_MILLISECOND = 1_000_000n;

interface Exec {
  readonly lines: string[];
  /** By `performance.now()`. */
  deletedAt: number | undefined;
}

/**
 * What has become of a container's execs, one line for each step, for a daemon that finds this shim dead, or that was killed while it
 * passed on the answer to a deletion. A line is written before anybody is told.
 */
export class ExecRecord {
  readonly #path: string;
  readonly #log: Log;
  readonly #execs = new Map<string, Exec>();
  #fd: number | undefined;
  #bytes = 0;

  /** @param bundle where the file is kept, once there is an exec */
  constructor(bundle: string, log: Log) {
    this.#path = join(bundle, FILE);
    this.#log = log;
  }

  added(exec: string): void {
    this.#execs.set(exec, { lines: [], deletedAt: undefined });
    this.#write(exec, { step: 'added' });
  }

  started(exec: string, pid: number): void {
    this.#write(exec, { step: 'started', pid });
  }

  exited(exec: string, { pid, status, at }: Exit): void {
    this.#write(exec, { step: 'exited', pid, status, exitedAt: toRfc3339(at) });
  }

  /** The daemon has acknowledged the news of the exit. */
  told(exec: string): void {
    this.#write(exec, { step: 'told' });
  }

  /** It is to be deleted, as from now; that may take a while. */
  deleted(exec: string): void {
    const at = performance.now();
    const known = this.#execs.get(exec);
    if (known !== undefined) known.deletedAt = at;
    // By the clock that all processes share and nobody sets. Daemons before it went by the time of day.
    const uptime = Number(process.hrtime.bigint() / NANOSECONDS_A_MILLISECOND);
    this.#write(exec, { step: 'deleted', at: Date.now(), uptime });
  }

  /** Writes all of it down again, where others have removed the file. */
  restore(): void {
    if (this.#execs.size === 0 || existsSync(this.#path)) return;
    this.#compact();
  }

  #write(exec: string, step: object): void {
    const known = this.#execs.get(exec);
    if (known === undefined) return;
    const line = `${JSON.stringify({ version: FORMAT, exec, ...step })}\n`;
    known.lines.push(line);
    try {
      if (this.#bytes > MOST_BYTES) this.#compact();
      this.#fd ??= openSync(this.#path, 'a', 0o600);
      this.#bytes += writeSync(this.#fd, line);
    } catch (error) {
      this.#log.warn('a process is not on record', { exec, error: messageOf(error) });
    }
  }

  #compact(): void {
    const now = performance.now();
    for (const [exec, { deletedAt }] of this.#execs)
      if (deletedAt !== undefined && now - deletedAt > KEPT_MS) this.#execs.delete(exec);
    const temporary = `${this.#path}.new`;
    const fd = openSync(temporary, 'w', 0o600);
    const text = [...this.#execs.values()].flatMap(({ lines }) => lines).join('');
    this.#bytes = writeSync(fd, text);
    renameSync(temporary, this.#path);
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = fd;
  }
}
