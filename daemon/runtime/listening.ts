/** Where a process listens, as the kernel tells it. */
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';

/** Of the flags of proc_net_unix(5): it listens (`__SO_ACCEPTCON`). */
const LISTENS = 0x10000;

/**
 * The path of the unix socket that a process listens on; one that begins with '@' is abstract. Undefined when there is none with a name.
 *
 * @throws the kernel's error for a process that is gone
 */
export function listeningPath(pid: number): string | undefined {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).map((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      } catch {
        return undefined; // It has been closed meanwhile.
      }
    }),
  );
  for (const line of readFileSync(`/proc/${pid}/net/unix`, 'utf8').split('\n')) {
    const [, flags, inode, path] = /^\S+: \S+ \S+ (\S+) \S+ \S+ +(\d+) (\S.*)$/.exec(line) ?? [];
    if (inodes.has(inode) && (Number.parseInt(flags!, 16) & LISTENS) !== 0) return path;
  }
  return undefined;
}
