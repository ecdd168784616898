/**
 * Shims whose files are gone because somebody has removed the state directory under them, as a wrong rule of tmpfiles does, or whose
 * record is damaged. They are found by their working directories. Ours make their files again when they are asked to
 * (`shim/salvage.ts`); of others, where they listen is what they need, which the kernel knows. One that cannot be found again is ended with its
 * container, so that no container runs that no client can see.
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { messageOf } from '../../ttrpc/errors.ts';
import { parseId, parseNamespace } from '../identifiers.ts';
import { isAlive, processStat } from '../process-stat.ts';
import { type Bootstrap, mayListen } from './bootstrap.ts';
import { Bundle } from './bundle.ts';
import { socketAddress } from './foreign-shim.ts';
import { listeningPath } from './listening.ts';
import { OWN_RUNTIME } from './own-shim.ts';
import { REMOVED } from './processes.ts';

const CGROUPS = '/sys/fs/cgroup';
/** Milliseconds until what was killed is taken to be stuck in the kernel, or a shim that was asked for its files not to know of it. */
const PATIENCE_MS = 5000;
const LOOK_AGAIN_MS = 10;

/** That of `shim/salvage.ts`. */
const SALVAGE_SIGNAL = 'SIGURG';

interface LostShim {
  readonly pid: number;
  /** The start of the process; with the pid it names one process. */
  readonly started: string;
  readonly own: boolean;
  readonly bundle: Bundle;
  /** Nothing of the bundle is left but what is mounted in it. */
  readonly wiped: boolean;
}

/**
 * Finds the shims that have lost their files below `tasks`. Never rejects.
 *
 * @param mayEnd those that cannot be found again are ended
 * @returns the bundles of those that can be connected to by their record again
 */
export async function findLostShims(tasks: string, log: Logger, mayEnd: boolean): Promise<Bundle[]> {
  const found = await Promise.all(
    lostShims(tasks).map(async (shim) => {
      const { pid, bundle, wiped } = shim;
      const told = { pid, bundle: bundle.path };
      try {
        const bootstrap = await (shim.own ? askForFiles(shim) : makeFiles(shim));
        bundle.writeBootstrap(bootstrap, 'replace');
        log.warn(told, 'the files of a task have been removed by others; its shim has been found again');
        return bundle;
      } catch (error) {
        log.error({ ...told, error: messageOf(error) }, 'a shim that has lost its files is not found again');
      }
      if (wiped && mayEnd) await end(shim, log);
      return undefined;
    }),
  );
  return found.filter((bundle) => bundle !== undefined);
}

/** Ends the shims of which nothing is left below `tasks`, with their containers. Never rejects. */
export async function endLostShims(tasks: string, log: Logger): Promise<void> {
  const wiped = lostShims(tasks).filter((shim) => shim.wiped);
  await Promise.all(wiped.map((shim) => end(shim, log)));
}

async function end(shim: LostShim, log: Logger): Promise<void> {
  const told = { pid: shim.pid, bundle: shim.bundle.path };
  log.warn(told, 'the files of a task have been removed by others; its container is ended');
  try {
    await endShim(shim);
  } catch (error) {
    log.error({ ...told, error: messageOf(error) }, 'a container without files cannot be ended');
  }
}

/** Other daemons' have their working directories below another state. */
function lostShims(tasks: string): LostShim[] {
  return readdirSync('/proc').flatMap((name) => {
    const pid = Number(name);
    if (!Number.isInteger(pid)) return [];
    try {
      const directory = readlinkSync(`/proc/${pid}/cwd`);
      if (!directory.startsWith(`${tasks}/`)) return [];
      const stat = processStat(pid);
      if (!isAlive(stat)) return [];
      const path = directory.endsWith(REMOVED) ? directory.slice(0, -REMOVED.length) : directory;
      // What is being deleted is hidden, and its shim goes by itself.
      if (basename(path).startsWith('.')) return [];
      const bundle = new Bundle(tasks, parseNamespace(basename(dirname(path))), parseId(basename(path)));
      const own = readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('moor-shim');
      if (bundle.path !== path || (!own && !isForeignShim(pid, bundle))) return [];
      if (isFound(bundle.readBootstrap())) return [];
      // Of what was wiped, the mounted root is all that can be left.
      const wiped = !existsSync(path) || readdirSync(path).every((file) => file === 'rootfs');
      return [{ pid, started: stat!.started, own, bundle, wiped }];
    } catch {
      return []; // It has ended meanwhile, or works in what is no task.
    }
  });
}

function isFound(bootstrap: Bootstrap | undefined): boolean {
  return bootstrap !== undefined && bootstrap.address !== '' && mayListen(bootstrap.address);
}

/** By the shim contract; `start` and `delete` are programs of their own that end soon. */
function isForeignShim(pid: number, { namespace, id }: Bundle): boolean {
  const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  const flag = (name: string) => words[words.indexOf(name) + 1];
  const isShim = words.includes('-namespace') && words.includes('-id');
  if (!isShim || ['start', 'delete'].includes(words.at(-1)!)) return false;
  return flag('-namespace') === namespace && flag('-id') === id;
}

/** @throws Error when the shim does not make them */
async function askForFiles({ pid, started, bundle }: LostShim): Promise<Bootstrap> {
  const deadline = performance.now() + PATIENCE_MS;
  if (processStat(pid)?.started === started) process.kill(pid, SALVAGE_SIGNAL);
  for (;;) {
    const address = bundle.readForeignAddress()?.replace(/^unix:\/\//, '');
    if (address !== undefined && existsSync(address))
      return { runtime: OWN_RUNTIME, binary: '', apiVersion: 3, address };
    if (processStat(pid)?.started !== started) throw new Error('it has ended');
    if (performance.now() > deadline) throw new Error('it does not make them again');
    await sleep(LOOK_AGAIN_MS);
  }
}

/** @throws Error when it cannot be known where the shim listens */
async function makeFiles({ pid, bundle }: LostShim): Promise<Bootstrap> {
  const binary = readlinkSync(`/proc/${pid}/exe`);
  const path = listeningPath(pid);
  if (path === undefined) throw new Error('it listens on no socket with a name');
  mkdirSync(bundle.rootfs, { recursive: true, mode: 0o711 });
  const [init] = childrenOf(pid);
  if (init !== undefined && bundle.readInitPid() === 0) bundle.writeInitPid(init);
  return { runtime: binary, binary, apiVersion: 2, address: socketAddress(binary, `unix://${path}`) };
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
function membersOf({ pid: shim, started, bundle: { id } }: LostShim, cgroups: Set<string>): number[] {
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
