import { addon } from './addon.ts';

/**
 * A listening unix stream socket, non-blocking and close-on-exec. Its file gets the mode that the umask leaves.
 *
 * @throws EADDRINUSE when the file exists, ENAMETOOLONG from 108 bytes on (unix(7))
 */
export function listenUnix(path: string, backlog: number): number {
  return addon().listenUnix(path, backlog);
}

/** Accepts one connection, non-blocking and close-on-exec; undefined when nobody is waiting. */
export function acceptUnix(fd: number): number | undefined {
  return addon().acceptUnix(fd);
}

/**
 * Receives one message that carries exactly one descriptor, which arrives close-on-exec. Never waits.
 *
 * @returns the descriptor, or undefined when there is no message yet
 * @throws EBADMSG when the message carries none (the end of the stream too) or several; those are closed
 */
export function receiveFd(socket: number): number | undefined {
  return addon().receiveFd(socket);
}

/**
 * Sends one descriptor with one byte of payload. Never waits; the caller's descriptor stays open.
 *
 * @throws EAGAIN when the peer's queue is full, EPIPE when the peer has gone
 */
export function sendFd(socket: number, fd: number): void {
  addon().sendFd(socket, fd);
}

/** Two unix stream sockets connected to each other, both non-blocking and close-on-exec. */
export function socketPair(): [number, number] {
  const { first, second } = addon().socketPair();
  return [first, second];
}

/**
 * The process that connected this end's peer (of a listener's connections: that called connect(2)), as our own pid namespace
 * numbers it; 0 when it has no number there, or is not connected. The kernel notes it once: the process may have gone since.
 *
 * @throws ENOTSOCK
 */
export function peerPid(fd: number): number {
  return addon().peerPid(fd);
}

/**
 * Sends one datagram to a unix socket, of a service manager say (sd_notify(3)), and never waits. `@` begins an abstract name.
 *
 * @throws ECONNREFUSED or ENOENT when nobody listens there, EAGAIN when the peer's queue is full
 */
export function sendDatagram(path: string, payload: string): void {
  addon().sendDatagram(path, payload);
}

/**
 * Begins a connection by TCP to an address of version 4 or 6, in the network namespace that the calling thread is in, and never waits:
 * the socket, non-blocking and close-on-exec, becomes writable when the connection is there or has failed. See `finishConnect`.
 *
 * @throws EINVAL for what is no address or port, ENETUNREACH, ECONNREFUSED when that is known at once
 */
export function startConnect(address: string, port: number): number {
  return addon().startConnect(address, port);
}

/** Asks what has become of a connection that was begun. @throws ECONNREFUSED and what else connect(2) has */
export function finishConnect(fd: number): void {
  addon().finishConnect(fd);
}
