import { closeSync, mkdirSync, openSync } from 'node:fs';
import {
  capabilities,
  chroot,
  constants,
  fchdir,
  keepCapabilities,
  mount,
  unmount,
  unshare,
} from '../../../native/native.ts';
import type { Mount } from '../../../proto/gen/containerd/types/mount.ts';
import { mountAll } from './mounting.ts';

/**
 * A view of the filesystem of this process's own. What is mounted here is seen by nobody else and goes with the process, however
 * it ends; on the disk nothing is left. While a job runs, the mounts that it was given are all that there is: names in an
 * archive, and links that they lead through, cannot mean anything outside.
 */
export class Enclosure {
  readonly #folder: string;

  /**
   * Cuts this process off. Before any other thread works with files.
   *
   * @param folder an existing folder; in this process, a filesystem in memory hides what it holds
   * @throws the kernel's error
   */
  constructor(folder: string) {
    this.#folder = folder;
    unshare(constants.CLONE_NEWNS);
    // What the host mounts later is seen here, and what it unmounts is let go; nothing goes the other way.
    mount('', '/', '', constants.MS_REC | constants.MS_SLAVE, '');
    const safe = constants.MS_NOSUID | constants.MS_NODEV | constants.MS_NOEXEC;
    mount('moor-differ', folder, 'tmpfs', safe, 'mode=0700,size=1m');
    mount('', folder, '', constants.MS_PRIVATE, '');
    const { CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_MAC_ADMIN } =
      capabilities;
    // Mounting and `trusted.` attributes take CAP_SYS_ADMIN, returning from the changed root CAP_SYS_CHROOT.
    const { CAP_MKNOD, CAP_SETFCAP, CAP_SYS_ADMIN, CAP_SYS_CHROOT } = capabilities;
    const owners = [CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_MAC_ADMIN];
    keepCapabilities([...owners, CAP_MKNOD, CAP_SETFCAP, CAP_SYS_ADMIN, CAP_SYS_CHROOT]);
  }

  /**
   * Mounts each tree under its name, and lets `work` run where these names are all there is, in the root and as the working
   * directory. Afterwards all is unmounted.
   */
  async within<T>(trees: Readonly<Record<string, readonly Mount[]>>, work: () => Promise<T>): Promise<T> {
    const mounted: string[] = [];
    try {
      for (const [name, mounts] of Object.entries(trees)) {
        const path = `${this.#folder}/${name}`;
        mkdirSync(path, { recursive: true, mode: 0o700 });
        mounted.push(path);
        mountAll(mounts, path);
      }
      return await this.#rooted(work);
    } finally {
      for (const path of mounted.reverse()) unmountAll(path);
    }
  }

  async #rooted<T>(work: () => Promise<T>): Promise<T> {
    const outside = openSync('/', 'r');
    try {
      chroot(this.#folder);
      process.chdir('/');
      return await work();
    } finally {
      // A folder from before is the way back out (chroot(2)).
      fchdir(outside);
      chroot('.');
      closeSync(outside);
    }
  }
}

function unmountAll(path: string): void {
  try {
    for (;;) unmount(path, constants.MNT_DETACH | constants.UMOUNT_NOFOLLOW);
  } catch (error) {
    // Nothing is mounted there any more (umount(2)).
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  }
}
