/**
 * Room on the disk for the database, promised before it is needed.
 *
 * A commit must not meet a full disk: the message that lmdb (3.5.6) makes of a write that fails does not fit where it puts it
 * (mdb.c, mdb_page_flush), which ends the daemon at times; and a page of which the disk has taken a part is an EIO. So the file is kept
 * longer than what is used of it, by more than a transaction takes. And what removes may use more of that than what adds:
 * deleting is how a full disk is emptied, but the database writes new pages for whatever changes.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { allocate } from '../../native/native.ts';

/** Bytes of room without which nothing is added: more than nearly all transactions take. */
const FOR_ADDING = 2 << 20;
/** Bytes without which nothing is removed either. */
const FOR_REMOVING = 256 << 10;
/** Bytes of room that are made at a time. */
const STEP = 4 << 20;

const FULL: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

export class Reserve {
  readonly #fd: number;
  /** Where the promised part of the file ends. */
  #end: number;

  /**
   * @param path the database's file
   * @param used bytes of it that are in use
   */
  constructor(path: string, used: number) {
    this.#fd = openSync(path, 'r+');
    this.#end = fstatSync(this.#fd).size;
    // Also where the file is long enough: one that was made without a reserve has holes.
    this.#extend(Math.max(this.#end, used + STEP));
  }

  /** Whether there is room for a transaction, which is made if need be. @param adds whether it makes anything more */
  suffices(used: number, adds: boolean): boolean {
    if (this.#end - used < FOR_ADDING) this.#extend(used + STEP);
    return this.#end - used >= (adds ? FOR_ADDING : FOR_REMOVING);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #extend(end: number): void {
    try {
      allocate(this.#fd, 0, end);
      this.#end = end;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (FULL.has(code)) return;
      // There is no way to know, then.
      if (code !== 'EOPNOTSUPP') throw error;
      this.#end = Infinity;
    }
  }
}
