/** A small filesystem in a file, mounted, gone when it is disposed of. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { constants, mount, unmount } from '../../../native/native.ts';

export class LoopFilesystem implements Disposable {
  readonly #directory = mkdtempSync(join(tmpdir(), 'moor-loop-'));
  readonly #image = join(this.#directory, 'image');
  /** Where it is mounted. */
  readonly path = join(this.#directory, 'mounted');

  static canMake(type: string): boolean {
    return spawnSync(`mkfs.${type}`, ['--version']).error === undefined;
  }

  constructor(type: string, megabytes = 256, ...options: string[]) {
    writeFileSync(this.#image, '');
    truncateSync(this.#image, megabytes << 20);
    mkdirSync(this.path);
    execFileSync(`mkfs.${type}`, ['-q', ...options, this.#image]);
    this.#mount();
  }

  /** Has one of ext4 that gave out checked, which nobody uses, and mounts it again. */
  mend(): void {
    execFileSync('umount', [this.path]);
    // 1 says that it has put something right.
    execFileSync('sh', ['-c', 'e2fsck -fy "$0" >/dev/null 2>&1 || test $? = 1', this.#image]);
    this.#mount();
  }

  /** Shows the filesystem at another place as well. */
  bindOn(path: string): Disposable & { readonly path: string } {
    mount(this.path, path, '', constants.MS_BIND, '');
    return { path: this.path, [Symbol.dispose]: () => unmount(path, constants.MNT_DETACH) };
  }

  #mount(): void {
    execFileSync('mount', ['-o', 'loop', this.#image, this.path]);
  }

  [Symbol.dispose](): void {
    // By mount's own program, which lets the loop device go as well.
    execFileSync('umount', ['-l', this.path]);
    rmSync(this.#directory, { recursive: true });
  }
}
