import { closeSync } from 'node:fs';

/**
 * An open descriptor that is closed once. Closing a number twice is how one part of a program closes what another has
 * just opened.
 */
export class Descriptor {
  readonly #fd: number;
  #open = true;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** @throws Error when it has been closed: its number may stand for something else by now */
  get fd(): number {
    if (!this.#open) throw new Error(`descriptor ${this.#fd} is closed`);
    return this.#fd;
  }

  get isOpen(): boolean {
    return this.#open;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
