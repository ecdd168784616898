/** A gate in the shared root file system: container processes wait before it until the test opens it. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sharedRootfs } from './rootfs.ts';

let gates = 0;

export class Gate {
  readonly #name: string;

  constructor() {
    gates += 1;
    this.#name = `gate-${process.pid}-${gates}`;
  }

  /** A shell command that returns when the gate is open; it looks every 20 ms. */
  get wait(): string {
    return `while [ ! -e /tmp/${this.#name} ]; do sleep 0.02; done`;
  }

  open(): void {
    writeFileSync(join(sharedRootfs(), 'tmp', this.#name), '');
  }
}
