import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** Files that the container needs as long as it lives. Kept open, they can be made again when others have removed them. */
export class KeptFiles implements Disposable {
  readonly #files = new Map<string, number>();

  /** Keeps what is at the path now, where there is anything. */
  keep(path: string): void {
    if (!existsSync(path)) return;
    const fd = openSync(path, 'r');
    this.forget(path);
    this.#files.set(path, fd);
  }

  /** Makes those again that are gone. @throws the file system's error */
  restore(): void {
    for (const [path, fd] of this.#files) {
      if (existsSync(path)) continue;
      const content = Buffer.alloc(fstatSync(fd).size);
      const length = readSync(fd, content, 0, content.length, 0);
      mkdirSync(dirname(path), { recursive: true, mode: 0o711 });
      writeFileSync(path, content.subarray(0, length), { mode: 0o600 });
      this.keep(path);
    }
  }

  [Symbol.dispose](): void {
    for (const path of this.#files.keys()) this.forget(path);
  }

  forget(path: string): void {
    const fd = this.#files.get(path);
    if (fd !== undefined) closeSync(fd);
    this.#files.delete(path);
  }
}
