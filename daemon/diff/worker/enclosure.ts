import { randomBytes } from 'node:crypto';
import { mkdirSync, openSync } from 'node:fs';
import { promisify } from 'node:util';
import {
  capabilities,
  chroot,
  constants,
  keepCapabilities,
  mount,
  setns,
  unshare,
} from '../../../native/native.ts';
import type { Mount } from '../../../proto/gen/containerd/types/mount.ts';
import { mountAll } from './mounting.ts';

/**
 * A view of the filesystem of this process's own, a new one for every job. What is mounted in it is seen by nobody else and goes
 * with it, however the process ends; on the disk nothing is left. While a job runs, the mounts that it was given are all that
 * there is: names in an archive, and links that they lead through, cannot mean anything outside.
 */
export class Enclosure {
  readonly #folder: string;
  /** The host's mounts, from which every view begins: those that were made since the last job are to be seen as well. */
  readonly #host: number;

  private constructor(folder: string, host: number) {
    this.#folder = folder;
    this.#host = host;
  }

  /**
   * Cuts this process off.
   *
   * @param folder an existing folder; in the jobs' views, a filesystem in memory hides what it holds
   * @throws the kernel's error
   */
  static async open(folder: string): Promise<Enclosure> {
    // Starts the threads that Node has for decompression and the like. A thread that is started later would share the main
    // thread's root, and then setns(2) refuses.
    await promisify(randomBytes)(1);
    const host = openSync('/proc/thread-self/ns/mnt', 'r');
    unshare(constants.CLONE_NEWNS);
    const { CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_MAC_ADMIN } =
      capabilities;
    // Mounting and `trusted.` attributes take CAP_SYS_ADMIN, changing the root and the view CAP_SYS_CHROOT.
    const { CAP_MKNOD, CAP_SETFCAP, CAP_SYS_ADMIN, CAP_SYS_CHROOT } = capabilities;
    const owners = [CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_MAC_ADMIN];
    keepCapabilities([...owners, CAP_MKNOD, CAP_SETFCAP, CAP_SYS_ADMIN, CAP_SYS_CHROOT]);
    const enclosure = new Enclosure(folder, host);
    enclosure.#enter();
    enclosure.#leave();
    return enclosure;
  }

  /**
   * Mounts each tree under its name, and lets `work` run where these names are all there is, in the root and as the working
   * directory.
   */
  async within<T>(trees: Readonly<Record<string, readonly Mount[]>>, work: () => Promise<T>): Promise<T> {
    try {
      this.#enter();
      for (const [name, mounts] of Object.entries(trees)) {
        const path = `${this.#folder}/${name}`;
        mkdirSync(path, { mode: 0o700 });
        mountAll(mounts, path);
      }
      chroot(this.#folder);
      process.chdir('/');
      return await work();
    } finally {
      this.#leave();
    }
  }

  #enter(): void {
    setns(this.#host, constants.CLONE_NEWNS);
    unshare(constants.CLONE_NEWNS);
    // What the host unmounts meanwhile is let go here too; nothing goes the other way.
    mount('', '/', '', constants.MS_REC | constants.MS_SLAVE, '');
    const safe = constants.MS_NOSUID | constants.MS_NODEV | constants.MS_NOEXEC;
    mount('moor-differ', this.#folder, 'tmpfs', safe, 'mode=0700,size=1m');
  }

  /** Nobody is left in the view then, and the kernel takes it down. The root and working directory are the host's. */
  #leave(): void {
    setns(this.#host, constants.CLONE_NEWNS);
  }
}
