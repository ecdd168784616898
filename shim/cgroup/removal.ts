/** Removing cgroups, which their processes leave a moment after they have ended. */
import { readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const CGROUPS = '/sys/fs/cgroup/';
/** A process that has ended leaves its cgroup a moment later. runc tries as often, and waits as long. */
const PAUSES_MS = [1, 10, 20, 40, 80];

/** @param depth names that a cgroup's path has at least; one with fewer is the root of all */
export function isCgroup(path: unknown, depth: number): path is string {
  if (typeof path !== 'string' || !path.startsWith(CGROUPS)) return false;
  const names = path
    .slice(CGROUPS.length)
    .split('/')
    .filter((name) => name !== '' && name !== '.');
  return names.length >= depth && !names.includes('..');
}

/** Removes it and those that the container has made in it. @returns false when something is still in it, or the kernel refuses */
export async function removeCgroup(path: string): Promise<boolean> {
  for (const pause of [...PAUSES_MS, undefined]) {
    try {
      removeTree(path);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY' || pause === undefined) return false;
      await sleep(pause);
    }
  }
  return false;
}

/** Folders only: the files of a cgroup cannot be removed, and go with it. */
function removeTree(path: string): void {
  try {
    rmdirSync(path);
    return;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    // The kernel's answer both for a cgroup with processes and for one with cgroups in it.
    if (code !== 'EBUSY') throw error;
  }
  const below = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  for (const { name } of below) removeTree(join(path, name));
  rmdirSync(path);
}
