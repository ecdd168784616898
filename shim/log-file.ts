import { constants, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { failedPrecondition, messageOf } from '../ttrpc/errors.ts';
import { Descriptor } from './descriptor.ts';
import type { Log } from './log.ts';
import type { LogRecords } from './log-lines.ts';

/** For appending, and never waiting for the reader of a FIFO that somebody has put there. */
const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK;

/**
 * The file that a container's lines go to. A line is there whole or not at all. What cannot be written (the disk is full) is lost, as it
 * is with containerd: a container does not stand still for its log. How much it was is said in the shim's own log.
 */
export class LogFile {
  readonly #path: string;
  readonly #log: Log;
  #file: Descriptor;
  #lost = 0;

  /** @throws RpcError FailedPrecondition when it cannot be opened, as in a directory that is not there */
  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
    this.#file = open(path);
  }

  append({ pieces, lines }: LogRecords): void {
    if (lines === 0 || !this.#file.isOpen) return;
    const bytes = Buffer.concat(pieces);
    const { fd } = this.#file;
    let written = 0;
    try {
      while (written < bytes.length) written += writeSync(fd, bytes, written);
    } catch (error) {
      this.#failed(lines, written, error);
      return;
    }
    if (this.#lost === 0) return;
    this.#log.warn('the container log can be written again', { path: this.#path, lost: this.#lost });
    this.#lost = 0;
  }

  /** Goes on with the file that the path names now. @throws RpcError as the constructor: then nothing changes */
  reopen(): void {
    const before = this.#file;
    this.#file = open(this.#path);
    before.close();
  }

  close(): void {
    this.#file.close();
  }

  #failed(lines: number, written: number, error: unknown): void {
    if (this.#lost === 0) {
      this.#log.error('the container log cannot be written; lines are lost', { path: this.#path, error });
    }
    this.#lost += lines;
    const { fd } = this.#file;
    try {
      // Nobody else writes here, so the beginning that did fit is the end of the file.
      if (written > 0) ftruncateSync(fd, fstatSync(fd).size - written);
    } catch (failure) {
      this.#log.error('a torn line stays in the container log', { path: this.#path, error: failure });
    }
  }
}

function open(path: string): Descriptor {
  try {
    return new Descriptor(openSync(path, FLAGS, 0o640));
  } catch (error) {
    throw failedPrecondition(`failed to open the container log ${path}: ${messageOf(error)}`, error);
  }
}
