/**
 * Removing a container that has ended as `runc delete` does it, which is a process of a Go program for a few calls of rmdir(2): it removes
 * the container's cgroups and then its directory, once it has loaded its state (libcontainer, `destroy`).
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isUnified } from './cgroup/cgroup.ts';
import { isCgroup, removeCgroup } from './cgroup/removal.ts';
import { parseObject } from './spec.ts';

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
