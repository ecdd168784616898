/** A small filesystem in a file, mounted, gone when it is disposed of. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { constants, mount, unmount } from '../../../native/native.ts';

export class LoopFilesystem implements Disposable {
  readonly #directory = mkdtempSync(join(tmpdir(), 'moor-loop-'));
  /** Where it is mounted. */
  readonly path = join(this.#directory, 'mounted');

  static canMake(type: string): boolean {
    return spawnSync(`mkfs.${type}`, ['--version']).error === undefined;
  }

  constructor(type: string, megabytes = 256, ...options: string[]) {
    const image = join(this.#directory, 'image');
    writeFileSync(image, '');
    truncateSync(image, megabytes << 20);
    mkdirSync(this.path);
    execFileSync(`mkfs.${type}`, ['-q', ...options, image]);
    execFileSync('mount', ['-o', 'loop', image, this.path]);
  }

  /** Shows the filesystem at another place as well. */
  bindOn(path: string): Disposable & { readonly path: string } {
    mount(this.path, path, '', constants.MS_BIND, '');
    return { path: this.path, [Symbol.dispose]: () => unmount(path, constants.MNT_DETACH) };
  }

  [Symbol.dispose](): void {
    // By mount's own program, which lets the loop device go as well.
    execFileSync('umount', ['-l', this.path]);
    rmSync(this.#directory, { recursive: true });
  }
}
