import { mkdirSync, readFileSync, readlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { listenUnix } from '../native/native.ts';

/** The descriptor that a shim inherits its listening socket as. */
export const SOCKET_FD = 3;

const BACKLOG = 128;

/** Listens for its owner alone. @returns the descriptor; the directory is made if need be. @throws as listen(2) */
export function listenPrivately(path: string): number {
  mkdirSync(dirname(path), { recursive: true, mode: 0o711 });
  const mask = process.umask(0o177);
  try {
    return listenUnix(path, BACKLOG);
  } finally {
    process.umask(mask);
  }
}

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
