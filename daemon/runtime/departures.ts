/**
 * Tasks whose deletion was cut off by the end of the daemon that did it: nothing is left of them but how they ended, for the client that
 * was not told and asks again. That is on disk, since this daemon may be killed as well before it has answered.
 */
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { messageOf } from '../../ttrpc/errors.ts';
import { type ContainerId, type Namespace, parseId, parseNamespace } from '../identifiers.ts';
import { type ExitRecord, formatExit, parseExit } from './exit.ts';

/** Milliseconds after a start for which a client can ask. */
const KEPT_FOR_MS = 60_000;

/** Between the two names in a file's; no identifier has one. */
const SEPARATOR = ',';

export class Departures {
  readonly #directory: string;
  readonly #log: Logger;

  /** @param directory `<state>/departed`; made when there is something to keep */
  constructor(directory: string, log: Logger) {
    this.#directory = directory;
    this.#log = log;
  }

  /** What the daemons before have left to be told. */
  recall(): { namespace: Namespace; id: ContainerId; exit: ExitRecord }[] {
    return this.#names().flatMap((name) => {
      const path = join(this.#directory, name);
      try {
        const [namespace = '', id = ''] = name.split(SEPARATOR);
        const exit = parseExit(readFileSync(path, 'utf8'), path);
        if (exit !== undefined) return [{ namespace: parseNamespace(namespace), id: parseId(id), exit }];
      } catch (error) {
        this.#log.warn({ path, error: messageOf(error) }, 'how a deleted task ended cannot be read');
      }
      return [];
    });
  }

  /** Before anything else says how the task ended goes away. */
  keep(namespace: Namespace, id: ContainerId, exit: ExitRecord): void {
    try {
      mkdirSync(this.#directory, { recursive: true, mode: 0o711 });
      writeFileSync(this.#path(namespace, id), formatExit(exit), { mode: 0o600 });
    } catch (error) {
      this.#log.warn({ namespace, id, error: messageOf(error) }, 'how a deleted task ended cannot be kept');
    }
  }

  /** The name has a new task. */
  forget(namespace: Namespace, id: ContainerId): void {
    rmSync(this.#path(namespace, id), { force: true });
  }

  /** Has everything that is kept now go when nobody has asked for long enough. */
  expire(gone: () => void): void {
    const names = this.#names();
    setTimeout(() => {
      gone();
      for (const name of names) rmSync(join(this.#directory, name), { force: true });
    }, KEPT_FOR_MS).unref();
  }

  #names(): string[] {
    try {
      return readdirSync(this.#directory);
    } catch {
      return [];
    }
  }

  #path(namespace: Namespace, id: ContainerId): string {
    return join(this.#directory, `${namespace}${SEPARATOR}${id}`);
  }
}
