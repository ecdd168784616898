/**
 * What a runtime leaves that was killed while it created a container. It makes the cgroups early and writes down late which they are;
 * in between it does not know of them when it is told to delete the container. Where they are is in the specification.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isUnified, parseMembership, pidsBelow, ROOT } from './cgroup/cgroup.ts';
import { isCgroup, removeCgroup } from './cgroup/removal.ts';

/** Milliseconds that killed processes may take to leave. */
const PATIENCE_MS = 2000;
const PAUSE_MS = 20;

/** What runc's own processes are called until they become the container's (libcontainer, nsexec.c). */
const STAGE = /^runc:\[/;

/**
 * Removes the cgroups of a container whose creation came to no end, with the runtime's processes in them that wait to become the container's.
 * Other processes are left alone, and so are the cgroups that they are in: several containers may have been given the same.
 *
 * @param cgroupsPath `linux.cgroupsPath` of the specification, as runtimes without systemd take it
 * @returns those that remain
 */
export async function removeUnfinished(id: string, cgroupsPath: string): Promise<string[]> {
  const end = performance.now() + PATIENCE_MS;
  let left = cgroupsOf(id, cgroupsPath);
  for (;;) {
    for (const cgroup of left) if (basename(cgroup).includes(id)) killStages(cgroup);
    const kept = await Promise.all(left.map(removeCgroup));
    left = left.filter((_, index) => kept[index] === false);
    if (left.length === 0 || performance.now() > end) return left;
    await sleep(PAUSE_MS);
  }
}

/** A relative path begins at the runtime's own cgroup, or with version 2 beside it: that is this process's. */
function cgroupsOf(id: string, cgroupsPath: string): string[] {
  const isAbsolute = cgroupsPath.startsWith('/');
  const path = cgroupsPath || id;
  const unified = isUnified();
  const own = isAbsolute ? undefined : parseMembership(readFileSync('/proc/self/cgroup', 'utf8'));
  const place = (tree: string, controller: string): string => {
    if (isAbsolute) return join(tree, path);
    const home = own?.get(controller) ?? '/';
    return join(tree, unified ? dirname(home) : home, path);
  };
  const cgroups = unified
    ? [place(ROOT, '')]
    : readdirSync(ROOT).map((name) => place(join(ROOT, name), name === 'unified' ? '' : name));
  return cgroups.filter((cgroup) => isCgroup(cgroup, unified ? 1 : 2));
}

function killStages(cgroup: string): void {
  for (const pid of pidsBelow(cgroup)) {
    try {
      if (STAGE.test(readFileSync(`/proc/${pid}/comm`, 'utf8'))) process.kill(pid, 'SIGKILL');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'ESRCH') throw error;
    }
  }
}
