/**
 * Room on the disk that only removals may use. Deleting is how a full disk is emptied; but the database writes new pages for
 * whatever changes, so without this a full disk could not be emptied any more.
 */
import { randomBytes } from 'node:crypto';
import { rmSync, statSync, writeFileSync } from 'node:fs';

/** Enough for hundreds of removals; the pages that they free are what the next ones use. */
const BYTES = 1 << 20;
/** Milliseconds between two attempts to fill it. */
const PATIENCE = 1000;

export class Reserve {
  readonly #path: string;
  #filled: boolean;
  #tried = -Infinity;

  constructor(path: string) {
    this.#path = path;
    this.#filled = statSync(path, { throwIfNoEntry: false })?.size === BYTES;
  }

  /** Fills the reserve if it is not, and if there is room now. */
  fill(): void {
    if (this.#filled || performance.now() - this.#tried < PATIENCE) return;
    this.#tried = performance.now();
    try {
      // Not zeros: file systems that compress would keep nothing for them.
      writeFileSync(this.#path, randomBytes(BYTES), { mode: 0o600 });
      this.#filled = true;
    } catch {
      // The disk is full. Half a reserve would be in the way of others for nothing.
      this.#remove();
    }
  }

  /** Gives the room back to the disk. @returns false when there was none */
  release(): boolean {
    if (!this.#filled) return false;
    this.#filled = false;
    this.#tried = performance.now();
    return this.#remove();
  }

  #remove(): boolean {
    try {
      rmSync(this.#path, { force: true });
      return true;
    } catch {
      return false;
    }
  }
}
