/** Who is at the other end of a call's connection. */
import type { Socket } from 'node:net';
import { peerPid } from '../../native/native.ts';

/** What Node's sockets have and do not declare: the descriptor is in libuv's handle, until the socket is closed. */
interface Handled {
  readonly _handle?: { readonly fd?: number } | null;
}

/**
 * The process that has connected, or, of a connection that we made, the one that has begun to listen, even when it is gone; 0 when it is of
 * another pid namespace, undefined when the connection is gone.
 */
export function pidBehind(socket: Socket): number | undefined {
  const fd = (socket as Socket & Handled)._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : peerPid(fd);
}
