/** Unmounting what a shim has mounted for a container, for when the shim cannot do it any more. */
import { readFileSync } from 'node:fs';
import { constants, unmount } from '../../native/native.ts';

/** More than anyone stacks; a guard against going round for ever. */
const MAX_STACKED = 128;

/**
 * Unmounts everything that is mounted at exactly `path`, layer by layer. Nothing mounted there is fine, and so is a path
 * that does not exist. A mount still in use is detached: it goes when its last user does.
 * @throws the kernel's error
 */
export function unmountAll(path: string): void {
  for (let stacked = 0; stacked < MAX_STACKED; stacked += 1) {
    try {
      unmountOnce(path);
    } catch (error) {
      // EINVAL: not a mount point (any more), umount(2).
      if (codeOf(error) === 'EINVAL' || codeOf(error) === 'ENOENT') return;
      throw error;
    }
  }
}

function unmountOnce(path: string): void {
  try {
    unmount(path, constants.UMOUNT_NOFOLLOW);
  } catch (error) {
    if (codeOf(error) !== 'EBUSY') throw error;
    unmount(path, constants.UMOUNT_NOFOLLOW | constants.MNT_DETACH);
  }
}

/**
 * Unmounts everything that is mounted at or below `path`, the deepest first.
 * @throws the kernel's error
 */
export function unmountBelow(path: string): void {
  for (const target of mountedBelow(readFileSync('/proc/self/mountinfo', 'utf8'), path)) unmountAll(target);
}

/** The mount points at or below `path`, the latest mounted first. Format: proc_pid_mountinfo(5). */
export function mountedBelow(mountinfo: string, path: string): string[] {
  const targets: string[] = [];
  for (const line of mountinfo.split('\n')) {
    const field = line.split(' ')[4];
    if (field === undefined) continue;
    const target = field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    if (target === path || target.startsWith(`${path}/`)) targets.push(target);
  }
  return targets.reverse();
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
