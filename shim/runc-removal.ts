/**
 * Removing a container that has ended as `runc delete` does it, which is a process of a Go program for a few calls of rmdir(2): it removes
 * the container's cgroups and then its directory, once it has loaded its state (libcontainer, `destroy`).
 */
import { readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isUnified } from './cgroup/cgroup.ts';
import { parseObject } from './spec.ts';

const CGROUPS = '/sys/fs/cgroup/';
/** A process that has ended leaves its cgroup a moment later. runc tries as often, and waits as long. */
const PAUSES_MS = [1, 10, 20, 40, 80];

/**
 * Removes what runc keeps of a container, all of whose processes have ended.
 *
 * @param directory where runc keeps it
 * @returns false when it is not, or not entirely, for this to remove, or cannot be: `runc delete` has the last word then, and finds what
 *          it needs for it
 */
export async function removeEnded(directory: string): Promise<boolean> {
  const cgroups = readCgroups(directory);
  if (cgroups === undefined) return false;
  for (const cgroup of cgroups) if (!(await removeCgroup(cgroup))) return false;
  rmSync(directory, { recursive: true, force: true });
  return true;
}

/** @returns undefined for a state that is not runc's, or names something besides cgroups */
function readCgroups(directory: string): string[] | undefined {
  try {
    const state = parseObject(readFileSync(join(directory, 'state.json'), 'utf8'), 'state.json');
    const { cgroup_paths: paths, intel_rdt_path: resctrl } = state;
    if (resctrl || typeof paths !== 'object' || paths === null) return undefined;
    // A controller that the container is in no cgroup of has no path.
    const cgroups = Object.values(paths).filter((path) => path !== '');
    const depth = isUnified() ? 1 : 2;
    return cgroups.every((path) => isCgroup(path, depth)) ? cgroups : undefined;
  } catch {
    return undefined;
  }
}

/** @param depth names that a cgroup's path has at least; one with fewer is the root of all */
function isCgroup(path: unknown, depth: number): path is string {
  if (typeof path !== 'string' || !path.startsWith(CGROUPS)) return false;
  const names = path
    .slice(CGROUPS.length)
    .split('/')
    .filter((name) => name !== '' && name !== '.');
  return names.length >= depth && !names.includes('..');
}

/** Removes it and those that the container has made in it. @returns false when something is still in it, or the kernel refuses */
async function removeCgroup(path: string): Promise<boolean> {
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
