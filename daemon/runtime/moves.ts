/** The processes that a runtime is about to move into a container's cgroups. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { announceMove } from '../../native/native.ts';

const CGROUPS = '/sys/fs/cgroup';

let procs: string | undefined;

/**
 * Has the kernel get ready for the moves while the shim and the runtime load, which takes them about as long: `runc create` and `runc exec`
 * otherwise stand still for 8 to 15 ms at their first one, on a machine where nothing else has moved just before.
 */
export function expectMoves(): void {
  procs ??= findProcs();
  if (procs !== '') announceMove(procs);
}

/** Any will do, since the lock is one for all hierarchies. Empty where there are no cgroups. */
function findProcs(): string {
  try {
    const folders = [CGROUPS, ...readdirSync(CGROUPS).map((name) => join(CGROUPS, name))];
    return folders.map((folder) => join(folder, 'cgroup.procs')).find((path) => existsSync(path)) ?? '';
  } catch {
    return '';
  }
}
