/** Control groups of containers: ctr puts each at `/<namespace>/<id>` under every controller. */
import { existsSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const mounted = '/sys/fs/cgroup';

/** Every cgroup below `/<name>` under every controller, deepest first; `/<name>` itself comes last. */
export function cgroupsOf(name: string): string[] {
  const found: string[] = [];
  const walk = (directory: string): void => {
    let entries;
    try {
      entries = readdirSync(directory, { withFileTypes: true });
    } catch {
      return;
    }
    for (const entry of entries) if (entry.isDirectory()) walk(join(directory, entry.name));
    found.push(directory);
  };
  for (const controller of readdirSync(mounted)) walk(join(mounted, controller, name));
  return found;
}

/** The pids in a cgroup and all below it. */
export function pidsIn(path: string): number[] {
  const pids = new Set<number>();
  for (const directory of cgroupsOf(path)) {
    let members = '';
    try {
      members = readFileSync(join(directory, 'cgroup.procs'), 'utf8');
    } catch {
      // removed since the listing
    }
    for (const line of members.split('\n')) if (line !== '') pids.add(Number(line));
  }
  return [...pids];
}

/** Lets frozen processes go on: they cannot be killed before. */
export function thaw(name: string): void {
  for (const directory of cgroupsOf(name)) {
    const state = join(directory, 'freezer.state');
    if (existsSync(state)) writeFileSync(state, 'THAWED');
  }
}

/** Removes the empty cgroups of that name; those with processes stay. */
export function removeCgroups(name: string): void {
  for (const directory of cgroupsOf(name)) {
    try {
      rmdirSync(directory);
    } catch {
      // still in use: the caller's processes are dying
    }
  }
}
