import { addon } from './addon.ts';

/**
 * Flags of mount(2) (MS_*), umount2(2) (MNT_*, UMOUNT_*), unshare(2) and setns(2) (CLONE_*), under the kernel's names. The numbers
 * are those of linux/mount.h and linux/sched.h, the same on every architecture.
 */
export const constants = {
  MS_RDONLY: 1,
  MS_NOSUID: 2,
  MS_NODEV: 4,
  MS_NOEXEC: 8,
  MS_SYNCHRONOUS: 16,
  MS_REMOUNT: 32,
  MS_MANDLOCK: 64,
  MS_DIRSYNC: 128,
  MS_NOSYMFOLLOW: 256,
  MS_NOATIME: 1024,
  MS_NODIRATIME: 2048,
  MS_BIND: 4096,
  MS_MOVE: 8192,
  MS_REC: 16384,
  MS_SILENT: 32768,
  MS_POSIXACL: 1 << 16,
  MS_UNBINDABLE: 1 << 17,
  MS_PRIVATE: 1 << 18,
  MS_SLAVE: 1 << 19,
  MS_SHARED: 1 << 20,
  MS_RELATIME: 1 << 21,
  MS_I_VERSION: 1 << 23,
  MS_STRICTATIME: 1 << 24,
  MS_LAZYTIME: 1 << 25,

  MNT_FORCE: 1,
  MNT_DETACH: 2,
  MNT_EXPIRE: 4,
  UMOUNT_NOFOLLOW: 8,

  CLONE_NEWTIME: 0x00000080,
  CLONE_NEWNS: 0x00020000,
  CLONE_NEWCGROUP: 0x02000000,
  CLONE_NEWUTS: 0x04000000,
  CLONE_NEWIPC: 0x08000000,
  CLONE_NEWUSER: 0x10000000,
  CLONE_NEWPID: 0x20000000,
  CLONE_NEWNET: 0x40000000,
} as const;

/**
 * Mounts; waits for the kernel to be done.
 *
 * @param flags MS_* or'ed together
 * @param data the filesystem's own options, comma separated
 * @throws E2BIG when `data` does not fit in one page, which the kernel would silently cut off
 */
export function mount(source: string, target: string, type: string, flags: number, data: string): void {
  addon().mount(source, target, type, flags, data);
}

/**
 * Unmounts the topmost mount at `target`.
 *
 * @param flags MNT_* and UMOUNT_NOFOLLOW or'ed together
 * @throws EINVAL when nothing is mounted there, EBUSY when it is in use
 */
export function unmount(target: string, flags: number): void {
  addon().unmount(target, flags);
}

/** Makes a FIFO; the umask applies to `mode`. */
export function mkfifo(path: string, mode: number): void {
  addon().mkfifo(path, mode);
}

/**
 * Puts the calling thread in new namespaces (unshare(2)). Node has other threads, which stay where they were: what they do,
 * asynchronous file operations among it, happens in the old namespaces, and CLONE_NEWUSER is refused with EINVAL.
 *
 * @param flags CLONE_* or'ed together
 */
export function unshare(flags: number): void {
  addon().unshare(flags);
}

/**
 * Puts the calling thread in the namespace that `fd` (from /proc/PID/ns/…) stands for; `unshare` says what that means in Node.
 *
 * @param flags the kind it must be (CLONE_*), or 0 for any
 */
export function setns(fd: number, flags: number): void {
  addon().setns(fd, flags);
}

/** The type number of the filesystem that holds `path` (`f_type` of statfs(2)), such as 0x01021994 for tmpfs. */
export function statfsType(path: string): number {
  return addon().statfsType(path);
}
