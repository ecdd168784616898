/** One daemon for a directory at a time. */
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { constants } from 'node:fs';
import { join } from 'node:path';
import { flock } from '../native/native.ts';

/** Another process has the directory. */
export class DirectoryInUse extends Error {
  override readonly name = 'DirectoryInUse';
}

/** A lock on a directory. It ends with the process, however that ends. */
export class DirectoryLock {
  readonly #path: string;
  readonly #fd: number;

  /** @throws DirectoryInUse that names the process which holds the lock */
  constructor(directory: string) {
    const path = join(directory, 'lock');
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      if (!flock(fd, true)) {
        const pid = readFileSync(path, 'utf8').trim();
        throw new DirectoryInUse(
          `${directory} is in use by another daemon${pid === '' ? '' : ` (pid ${pid})`}`,
        );
      }
      ftruncateSync(fd);
      writeSync(fd, `${process.pid}\n`, 0);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    this.#path = path;
    this.#fd = fd;
  }

  /** Whether it keeps others away: its file is in the directory still. */
  get holds(): boolean {
    const held = fstatSync(this.#fd);
    const there = statSync(this.#path, { throwIfNoEntry: false });
    return there?.dev === held.dev && there.ino === held.ino;
  }

  release(): void {
    closeSync(this.#fd);
  }
}
