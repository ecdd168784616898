import { addon } from './addon.ts';

/** Numbers of linux/capability.h, those that `keepCapabilities` is asked for. */
export const capabilities = {
  CAP_CHOWN: 0,
  CAP_DAC_OVERRIDE: 1,
  CAP_DAC_READ_SEARCH: 2,
  CAP_FOWNER: 3,
  CAP_FSETID: 4,
  CAP_SYS_CHROOT: 18,
  CAP_SYS_ADMIN: 21,
  CAP_MKNOD: 27,
  CAP_SETFCAP: 31,
  CAP_MAC_ADMIN: 33,
} as const;

/**
 * Makes `path` the root of this process; the working directory stays where it was, so change it too (chroot(2)). Threads that share
 * their view of the filesystem, as Node's do until one of them calls `unshare`, all move.
 *
 * @throws EPERM without CAP_SYS_CHROOT
 */
export function chroot(path: string): void {
  addon().chroot(path);
}

/**
 * Gives up every capability of the calling thread but those listed, for good: no program it starts gets them back either.
 *
 * @param kept numbers of `capabilities`; those the process does not have stay missing
 */
export function keepCapabilities(kept: readonly number[]): void {
  let [low, high] = [0, 0];
  for (const each of kept) {
    if (each < 32) low += 2 ** each;
    else high += 2 ** (each - 32);
  }
  addon().keepCapabilities(low, high);
}

/** Waits until everything written to the filesystem that holds `path` is on its disk (syncfs(2)). */
export function syncFilesystem(path: string): void {
  addon().syncFilesystem(path);
}
