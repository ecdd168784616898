import { addon } from './addon.ts';

/** Sets or clears close-on-exec. */
export function setCloexec(fd: number, on: boolean): void {
  addon().setCloexec(fd, on);
}

/**
 * Sets or clears O_NONBLOCK. The flag belongs to the open file, not to the descriptor: every process that shares it by
 * inheritance or by a passed descriptor sees the change (fcntl(2)).
 */
export function setNonblock(fd: number, on: boolean): void {
  addon().setNonblock(fd, on);
}

/** A pipe with both ends blocking and close-on-exec. */
export function pipe(): { read: number; write: number } {
  return addon().pipe();
}

/**
 * Asks for a pipe's or FIFO's capacity in bytes; the kernel rounds up to a power of two of pages.
 *
 * @returns the capacity it has now
 * @throws EPERM above /proc/sys/fs/pipe-max-size without CAP_SYS_RESOURCE, EBUSY when it holds more than that already
 */
export function setPipeSize(fd: number, bytes: number): number {
  return addon().setPipeSize(fd, bytes);
}

/** How many bytes a pipe or FIFO holds that nobody has read yet; either end can be asked (FIONREAD, ioctl(2)). */
export function unreadBytes(fd: number): number {
  return addon().unreadBytes(fd);
}

/**
 * Moves up to `length` bytes between two descriptors inside the kernel; one of them must be a pipe or FIFO. Never blocks on a
 * pipe; the other side blocks unless it is O_NONBLOCK, a terminal's master in particular (splice(2)).
 *
 * @returns the number of bytes moved, 0 at the end of the input, undefined when nothing can be moved now. Which of the two
 *          sides is in the way is not told.
 * @throws EPIPE when nobody can read what would be written, EINVAL when neither is a pipe, EIO from the master of a terminal
 *         that nobody has open
 */
export function splice(from: number, to: number, length: number): number | undefined {
  return addon().splice(from, to, length);
}

/**
 * Takes a lock on the open file without waiting. The lock goes when the last descriptor of this open file is closed, those
 * that children have inherited included (flock(2)).
 *
 * @returns false when another holds it
 */
export function flock(fd: number, exclusive: boolean): boolean {
  return addon().flock(fd, exclusive);
}

/** An event counter at 0, non-blocking and close-on-exec (eventfd(2)). */
export function eventfd(): number {
  return addon().eventfd();
}

/**
 * Closes every descriptor from `first` up, or with `'cloexec'` marks them close-on-exec instead. Node's event loop has
 * descriptors of its own among them: closing those breaks the process, marking them is always safe.
 */
export function closeRange(first: number, how: 'close' | 'cloexec' = 'close'): void {
  addon().closeRange(first, how === 'cloexec');
}

/**
 * Has the disk promise room for a part of a file, which grows to its end. What is there stays, holes become zeros (fallocate(2)).
 *
 * @throws ENOSPC, EOPNOTSUPP where the file system cannot do it
 */
export function allocate(fd: number, offset: number, length: number): void {
  addon().allocate(fd, offset, length);
}
