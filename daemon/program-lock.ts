/** Knowing when the programs of a daemon that was killed have ended. */
import { closeSync, openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { flock } from '../native/native.ts';
import { internal } from '../ttrpc/errors.ts';

const POLL_MS = 10;

/**
 * A lock that every program gets which is started with `fd` among its descriptors: kill -9 ends a daemon at once, but what it has
 * started goes on, and the next daemon must not undo what is still being done. A lock of flock(2) is held until the last
 * copy of the descriptor is closed, whoever has it.
 */
export class ProgramLock {
  readonly fd: number;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /**
   * Waits until the programs of the daemon before have ended.
   *
   * @param patience milliseconds
   * @throws RpcError Internal when one of them does not end
   */
  static async take(path: string, patience: number): Promise<ProgramLock> {
    const fd = openSync(path, 'w', 0o600);
    const deadline = performance.now() + patience;
    try {
      while (!flock(fd, true)) {
        if (performance.now() > deadline)
          throw internal(`a program that the last daemon started still holds ${path}`);
        await delay(POLL_MS);
      }
      return new ProgramLock(fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  release(): void {
    closeSync(this.fd);
  }
}
