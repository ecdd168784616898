/** The directory of CNI configurations, read again whenever something in it changes. */
import { type FSWatcher, mkdirSync, readFileSync, readdirSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { messageOf } from '../../ttrpc/errors.ts';
import { type NetworkList, parseNetworkList } from './network-list.ts';

/** Writers write in several steps; what comes within this time of a change is read with it. Milliseconds. */
const SETTLING = 50;

export interface Configuration {
  /** In the order of the names of their files. The first is the default. */
  readonly lists: readonly NetworkList[];
  /** Why the other files are not among them. */
  readonly problems: readonly string[];
}

export class ConfigurationDirectory {
  readonly #path: string;
  readonly #log: Logger;
  readonly #onChange: (configuration: Configuration) => void;
  #current: Configuration = { lists: [], problems: [] };
  #watcher: FSWatcher | undefined;
  /** Which directory it is that is watched. */
  #watched: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /**
   * @param path made when it is not there, as whoever installs a network counts on it
   * @param onChange called when what is in it has changed
   */
  constructor(path: string, log: Logger, onChange: (configuration: Configuration) => void = () => undefined) {
    this.#path = path;
    this.#log = log;
    this.#onChange = onChange;
    this.#watch();
    this.#current = this.#read();
  }

  get current(): Configuration {
    return this.#current;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#watcher?.close();
  }

  /** Watches the directory that is there now: one that was replaced is another. */
  #watch(): void {
    mkdirSync(this.#path, { recursive: true, mode: 0o755 });
    const { ino, birthtimeMs } = statSync(this.#path);
    const found = `${ino} ${birthtimeMs}`;
    if (found === this.#watched) return;
    this.#watcher?.close();
    this.#watched = found;
    this.#watcher = watch(this.#path, { persistent: false }, () => this.#changed());
    this.#watcher.on('error', (error) => {
      this.#log.warn({ err: error, path: this.#path }, 'CNI configurations cannot be watched');
    });
  }

  #changed(): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#reload(), SETTLING);
    this.#timer.unref();
  }

  #reload(): void {
    try {
      this.#watch();
    } catch (error) {
      this.#log.warn({ err: error, path: this.#path }, 'CNI configurations cannot be watched');
    }
    const before = JSON.stringify(this.#current);
    this.#current = this.#read();
    if (JSON.stringify(this.#current) === before) return;
    for (const problem of this.#current.problems) this.#log.warn({ problem }, 'CNI configuration left out');
    this.#onChange(this.#current);
  }

  #read(): Configuration {
    const lists: NetworkList[] = [];
    const problems: string[] = [];
    for (const name of this.#names()) {
      const path = join(this.#path, name);
      try {
        lists.push(parseNetworkList(readFileSync(path, 'utf8'), path));
      } catch (error) {
        problems.push(messageOf(error));
      }
    }
    return { lists, problems };
  }

  #names(): string[] {
    try {
      return readdirSync(this.#path)
        .filter((name) => /\.(?:conf|conflist|json)$/.test(name))
        .sort();
    } catch {
      return [];
    }
  }
}
