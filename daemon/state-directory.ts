/** The state directory of a running daemon. */
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Charge } from './caretaker.ts';
import { DirectoryLock } from './lock.ts';

const MODE = 0o711;

export class StateDirectory implements Charge {
  readonly what: string;
  readonly #path: string;
  #lock: DirectoryLock;
  /** What is in it that everything else relies on, with modes. */
  #folders: ReadonlyMap<string, number> = new Map();
  #refill: () => Promise<void> = async () => {};

  /** Makes it if need be. @throws DirectoryInUse */
  constructor(path: string) {
    this.what = `the state directory ${path}, or some of it,`;
    this.#path = path;
    mkdirSync(path, { recursive: true, mode: MODE });
    this.#lock = new DirectoryLock(path);
  }

  /**
   * From now on it is to stay as it is.
   *
   * @param folders those in it that everything else relies on
   * @param refill puts back what was in them, as far as that is known
   */
  keep(folders: readonly string[], refill: () => Promise<void>): void {
    this.#refill = refill;
    const modes = folders.flatMap((name) => {
      const stat = statSync(join(this.#path, name), { throwIfNoEntry: false });
      return stat === undefined ? [] : [[name, stat.mode & 0o777] as const];
    });
    this.#folders = new Map(modes);
  }

  isThere = (): boolean => this.#lock.holds && this.#missing().length === 0;

  restore = async (): Promise<void> => {
    mkdirSync(this.#path, { recursive: true, mode: MODE });
    if (!this.#lock.holds) {
      const lock = new DirectoryLock(this.#path);
      this.#lock.release();
      this.#lock = lock;
    }
    for (const name of this.#missing())
      mkdirSync(join(this.#path, name), { recursive: true, mode: this.#folders.get(name) });
    await this.#refill();
  };

  release(): void {
    this.#lock.release();
  }

  #missing(): string[] {
    return [...this.#folders.keys()].filter(
      (name) => statSync(join(this.#path, name), { throwIfNoEntry: false }) === undefined,
    );
  }
}
