/**
 * Shims whose files are gone because somebody has removed the state directory under them, as a wrong rule of tmpfiles does. Nobody can
 * reach such a shim again, nor tell its container by any record: both are ended, so that no container runs that no client can see.
 */
import { existsSync, readFileSync, readdirSync, readlinkSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { messageOf } from '../../ttrpc/errors.ts';
import { isAlive, processStat } from '../process-stat.ts';

const CGROUPS = '/sys/fs/cgroup';
/** What the kernel appends to the name of a working directory that has been removed (proc_pid_cwd(5)). */
const REMOVED = ' (deleted)';
/** Milliseconds until what was killed is taken to be stuck in the kernel. */
const PATIENCE_MS = 5000;
const LOOK_AGAIN_MS = 10;

interface LostShim {
  readonly pid: number;
  /** The start of the process; with the pid it names one process. */
  readonly started: string;
  readonly bundle: string;
}

/** Ends the shims that have lost their bundles below `tasks`, with their containers. Never rejects. */
export async function endLostShims(tasks: string, log: Logger): Promise<void> {
  await Promise.all(
    lostShims(tasks).map(async (shim) => {
      const { pid, bundle } = shim;
      log.warn({ pid, bundle }, 'the files of a task have been removed by others; its container is ended');
      try {
        await endShim(shim);
      } catch (error) {
        log.error({ pid, bundle, error: messageOf(error) }, 'a container without files cannot be ended');
      }
    }),
  );
}

/** Other daemons' have their working directories below another state. */
function lostShims(tasks: string): LostShim[] {
  return readdirSync('/proc').flatMap((name) => {
    const pid = Number(name);
    const stat = Number.isInteger(pid) ? processStat(pid) : undefined;
    if (stat === undefined || !isAlive(stat)) return [];
    try {
      if (!readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('moor-shim')) return [];
      const directory = readlinkSync(`/proc/${pid}/cwd`);
      if (!directory.startsWith(`${tasks}/`)) return [];
      const bundle = directory.endsWith(REMOVED) ? directory.slice(0, -REMOVED.length) : directory;
      // What is being deleted is hidden, and its shim goes by itself. Of what was wiped, the mounted root is all that can be left:
      // where there is any file, the shim may still be found by its socket.
      if (basename(bundle).startsWith('.')) return [];
      if (bundle === directory && readdirSync(bundle).some((file) => file !== 'rootfs')) return [];
      return [{ pid, started: stat.started, bundle }];
    } catch {
      return []; // It has ended meanwhile.
    }
  });
}

async function endShim(shim: LostShim): Promise<void> {
  const cgroups = new Set<string>();
  const deadline = performance.now() + PATIENCE_MS;
  // Whoever is killed may just have started another.
  for (let left = membersOf(shim, cgroups); left.length > 0; left = membersOf(shim, cgroups)) {
    if (performance.now() > deadline) throw new Error(`processes ${left.join(', ')} do not end`);
    for (const cgroup of cgroups) thaw(cgroup);
    for (const pid of left) kill(pid);
    await sleep(LOOK_AGAIN_MS);
  }
  if (processStat(shim.pid)?.started === shim.started) kill(shim.pid);
  while (isAlive(processStat(shim.pid)) && performance.now() < deadline) await sleep(LOOK_AGAIN_MS);
  for (const cgroup of cgroups) if (existsSync(cgroup)) rmdirSync(cgroup);
}

/** The shim's children, who are its container's processes, and all that are in a cgroup that bears the container's name. */
function membersOf({ pid: shim, started, bundle }: LostShim, cgroups: Set<string>): number[] {
  const id = basename(bundle);
  const children = processStat(shim)?.started === started ? childrenOf(shim) : [];
  for (const pid of children) {
    for (const line of readIfThere(`/proc/${pid}/cgroup`).split('\n')) {
      const path = line.split(':').slice(2).join(':');
      const name = basename(path);
      if (name !== id && !name.endsWith(`-${id}.scope`)) continue;
      for (const mount of [CGROUPS, ...readdirSync(CGROUPS).map((name) => join(CGROUPS, name))])
        if (existsSync(join(mount, path, 'cgroup.procs'))) cgroups.add(join(mount, path));
    }
  }
  const members = [...cgroups].flatMap((cgroup) =>
    readIfThere(join(cgroup, 'cgroup.procs')).split('\n').filter(Boolean).map(Number),
  );
  const found = new Set([...children, ...members]);
  // The shim itself is last.
  return [...found].filter((pid) => pid > 0 && pid !== shim && isAlive(processStat(pid)));
}

function childrenOf(pid: number): number[] {
  const threads = existsSync(`/proc/${pid}/task`) ? readdirSync(`/proc/${pid}/task`) : [];
  return threads.flatMap((thread) =>
    readIfThere(`/proc/${pid}/task/${thread}/children`).split(' ').filter(Boolean).map(Number),
  );
}

/** A paused process does not end, whatever it is sent. */
function thaw(cgroup: string): void {
  const states = { 'freezer.state': 'THAWED', 'cgroup.freeze': '0' };
  for (const [file, state] of Object.entries(states))
    if (existsSync(join(cgroup, file))) writeFileSync(join(cgroup, file), state);
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
