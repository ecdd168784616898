import { readFileSync, readlinkSync } from 'node:fs';

/** The descriptor that a shim inherits its listening socket as. */
export const SOCKET_FD = 3;

/**
 * The path that a unix socket is bound to, undefined for one without. Who inherits a socket is not told its path, and Node
 * does not ask the kernel for it; proc_net(5) says it.
 */
export function boundPath(fd: number): string | undefined {
  const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
    const match = /^\S+: \S+ \S+ \S+ \S+ \S+ +(\d+) (\/.*)$/.exec(line);
    if (match !== null && match[1] === inode) return match[2];
  }
  return undefined;
}
