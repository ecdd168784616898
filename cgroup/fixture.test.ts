import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach } from 'node:test';

/** A folder for each test of a file, with files as a kernel has them. */
export class Recording {
  #folder = '';

  constructor() {
    beforeEach(() => {
      this.#folder = mkdtempSync(join(tmpdir(), 'moor-cgroup-'));
    });
    afterEach(() => rmSync(this.#folder, { recursive: true }));
  }

  get folder(): string {
    return this.#folder;
  }

  record(files: { readonly [name: string]: string }): void {
    for (const [name, text] of Object.entries(files)) {
      const path = join(this.#folder, name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    }
  }
}
