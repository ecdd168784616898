import { addon, type PollHandle } from './addon.ts';

/**
 * Calls back whenever a descriptor is ready, for as long as it stays ready: the callback reads (or writes) until EAGAIN, or
 * closes the poll. End of file, hang-up and errors count as ready, as the next operation tells which it is.
 *
 * The descriptor must be one that epoll takes (pipe, FIFO, socket, terminal, pidfd, eventfd); its open file becomes
 * O_NONBLOCK. The poll watches a duplicate of it, so one descriptor may have several polls and may be closed at any time;
 * but the open file lives on, and its peers see no end of file, until the poll is closed as well.
 *
 * An exception thrown by the callback becomes an uncaughtException. An open poll keeps the process alive, referenced by
 * anyone or not.
 */
export class Poll {
  #handle: PollHandle | undefined;

  /**
   * @param callback gets an error only when the event loop refuses to go on watching
   * @throws EBADF for a descriptor that is not open, EPERM for one that cannot be polled, such as a regular file's
   */
  constructor(fd: number, events: 'readable' | 'writable', callback: (error?: Error) => void) {
    this.#handle = addon().pollOpen(fd, events === 'writable', callback);
  }

  /** Stops: the callback is not called again. Can be called twice, and from within the callback. */
  close(): void {
    const handle = this.#handle;
    this.#handle = undefined;
    if (handle !== undefined) addon().pollClose(handle);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Keeps the process alive while open; so it is from the start. */
  ref(): void {
    if (this.#handle !== undefined) addon().pollKeepAlive(this.#handle, true);
  }

  /** Lets the process end although this is open. */
  unref(): void {
    if (this.#handle !== undefined) addon().pollKeepAlive(this.#handle, false);
  }
}
