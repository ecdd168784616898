import { addon } from './addon.ts';

/** A terminal's size in characters. */
export interface WindowSize {
  rows: number;
  columns: number;
}

/**
 * Sets the size of a terminal, on either end of it; its foreground processes get SIGWINCH when it changes.
 *
 * @throws ENOTTY for what is no terminal, TypeError above 65535
 */
export function setWindowSize(fd: number, size: WindowSize): void {
  addon().setWindowSize(fd, size.rows, size.columns);
}

/** @throws ENOTTY for what is no terminal */
export function getWindowSize(fd: number): WindowSize {
  return addon().getWindowSize(fd);
}

/** A new pseudo-terminal, both ends blocking and close-on-exec, and nobody's controlling terminal. */
export function openPty(): { master: number; slave: number } {
  return addon().openPty();
}
