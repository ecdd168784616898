/** What a daemon and its containers hold on the host, to see that nothing of it is left over afterwards. */
import { AssertionError } from 'node:assert/strict';
import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { cgroupsOf } from './cgroups.ts';
import { mountsBelow, type Daemon } from './daemon.ts';
import { commandLine, descriptors, processes } from './processes.ts';
import { eventually, PATIENCE, type Bound } from './wait.ts';

/** Names of everything held, each prefixed by its kind: `mount /tmp/…`, `zombie runc`, `descriptor socket #3` … */
export type Holdings = ReadonlySet<string>;

/** What this daemon, its shims and the containers of its namespaces hold now. */
export function holdings(daemon: Daemon): Holdings {
  const held = new Set<string>();
  const shims = daemon.shims();
  for (const mount of mountsBelow(daemon.directory)) held.add(`mount ${mount}`);
  const commands = shims.map((pid) => commandLine(pid));
  const isTemplate = (command: string) => command.endsWith(' template');
  // A daemon has one template, which may come when it has been up for a while.
  const counted = [...commands.filter((each) => !isTemplate(each)), ...commands.filter(isTemplate).slice(1)];
  // Without pids: a daemon that was restarted has other helpers than before, but no more of them.
  for (const name of numbered(counted)) held.add(`process ${name}`);
  for (const namespace of daemon.namespaces) {
    // The parent cgroup of a namespace stays: the runtime makes it and removes only the container's own.
    for (const cgroup of cgroupsOf(namespace))
      if (!cgroup.endsWith(`/${namespace}`)) held.add(`cgroup ${cgroup}`);
    for (const name of list(daemon.runcRoot(namespace))) held.add(`runc state ${namespace}/${name}`);
    for (const name of list(daemon.bundle(namespace, ''))) held.add(`bundle ${namespace}/${name}`);
  }
  const family = new Set([daemon.pid, ...shims]);
  for (const { pid, parent, state, name } of processes())
    if (state === 'Z' && family.has(parent)) held.add(`zombie ${pid} ${name} of ${parent}`);
  for (const [kind, path] of specialFiles(daemon.directory)) held.add(`${kind} ${path}`);
  // Opened with the first event, and another one whenever it has grown: the daemon's own, whatever came and went.
  const journal = join(daemon.state, 'events/journal/');
  const open = descriptors(daemon.pid).filter((file) => !file.startsWith(journal));
  // So may the daemon's connection with its template come later, or again.
  if (!commands.some(isTemplate)) open.push('socket:[0]');
  for (const name of numbered(open)) held.add(`descriptor ${name}`);
  return held;
}

export interface LeftoverOptions extends Bound {
  /** Names that are not the daemon's to remove, such as the FIFOs of a client that died. */
  readonly except?: RegExp;
}

/** Waits until nothing more is held than before; else fails with the names. */
export async function expectNothingLeft(
  daemon: Daemon,
  before: Holdings,
  { within = PATIENCE, except }: LeftoverOptions = {},
): Promise<void> {
  let left: string[] = [];
  try {
    await eventually(
      'nothing is left over',
      () => {
        left = [...holdings(daemon)].filter((name) => !before.has(name) && !except?.test(name));
        return left.length === 0;
      },
      { within },
    );
  } catch {
    throw new AssertionError({ message: `left over after ${within} ms:\n  ${left.sort().join('\n  ')}` });
  }
}

/** FIFOs and sockets below a directory, not following what is mounted there. */
function specialFiles(directory: string): [kind: string, path: string][] {
  return list(directory).flatMap((name): [string, string][] => {
    const path = join(directory, name);
    let status;
    try {
      status = lstatSync(path);
    } catch {
      return [];
    }
    if (status.isFIFO()) return [['fifo', path]];
    if (status.isSocket()) return [['socket', path]];
    return status.isDirectory() && name !== 'rootfs' ? specialFiles(path) : [];
  });
}

/** Equal descriptors are told apart by a count, so that one more of a kind has a new name. */
function numbered(targets: string[]): string[] {
  const counts = new Map<string, number>();
  return targets.map((target) => {
    const kind = target
      .replace(/\[\d+\]$/, '')
      .replace(/^\/proc\/\d+/, '/proc/<pid>')
      .replace(/(\/events\/\w+)\/\d+/, '$1/<number>');
    const count = (counts.get(kind) ?? 0) + 1;
    counts.set(kind, count);
    return `${kind} #${count}`;
  });
}

/** The names in a directory; none when there is no such directory. */
export function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
