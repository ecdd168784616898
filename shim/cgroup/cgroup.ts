import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { statfsType } from '../../native/native.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Metrics as MetricsV1 } from '../../proto/gen/cgroups/v1.ts';
import { Metrics as MetricsV2 } from '../../proto/gen/cgroups/v2.ts';
import { pack } from '../any.ts';
import { watchOomV1, watchOomV2, type OomWatch } from './oom.ts';
import { readMetricsV1 } from '../../cgroup/v1.ts';
import { readMetricsV2 } from '../../cgroup/v2.ts';

/** Where the hierarchies are. */
export const ROOT = '/sys/fs/cgroup';
/** f_type of a cgroup of version 2 (statfs(2)). */
const CGROUP2_MAGIC = 0x63677270;
const KILL_TIMEOUT_MS = 5000;
const KILL_PAUSE_MS = 2;

/** The cgroup, or with version 1 the cgroups, of a container. */
export interface Cgroup {
  /** Every process in it and below it. */
  pids(): number[];
  /** Its metrics as the message of its version. Undefined when it is gone. */
  metrics(): Any | undefined;
  /** Tells of every process that the kernel kills for want of memory. Undefined when there is no memory controller. */
  watchOom(onOom: () => void): OomWatch | undefined;
  /** Kills every process in it and below it, and waits until they have left it, for at most 5 s. */
  kill(): Promise<void>;
}

/** Paths of the cgroups of a process, by controller; the empty name is version 2's. */
export function parseMembership(text: string): Map<string, string> {
  const paths = new Map<string, string>();
  for (const line of text.trim().split('\n')) {
    const [, controllers = '', ...path] = line.split(':');
    for (const controller of controllers.split(',')) {
      paths.set(controller.replace(/^name=/, ''), path.join(':'));
    }
  }
  return paths;
}

/** True where all controllers are in the one tree of version 2. */
export function isUnified(): boolean {
  return statfsType(ROOT) === CGROUP2_MAGIC;
}

/** The cgroup that a process is in; undefined when it has none of its own. */
export function cgroupOf(pid: number): Cgroup | undefined {
  const paths = parseMembership(readFileSync(`/proc/${pid}/cgroup`, 'utf8'));
  return isUnified() ? unifiedCgroup(paths.get('')) : legacyCgroup(paths);
}

/**
 * Moves a process into the cgroup of the given path, in every hierarchy that has it.
 *
 * @throws Error when none does, or the kernel refuses
 */
export function joinCgroup(path: string, pid: number): void {
  const trees = isUnified() ? [ROOT] : readdirSync(ROOT).map((name) => join(ROOT, name));
  let joined = 0;
  for (const tree of trees) {
    try {
      writeFileSync(join(tree, path, 'cgroup.procs'), String(pid), { flag: 'r+' });
      joined++;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  if (joined === 0) throw new Error(`there is no cgroup ${path}`);
}

function unifiedCgroup(path: string | undefined): Cgroup | undefined {
  if (path === undefined || path === '/') return undefined;
  const folder = join(ROOT, path);
  const pids = () => pidsBelow(folder);
  return {
    pids,
    metrics: () => {
      const metrics = readMetricsV2(folder);
      return metrics && pack('io.containerd.cgroups.v2.Metrics', MetricsV2.encode(metrics).finish());
    },
    watchOom: (onOom) => watchOomV2(folder, onOom),
    kill: async () => {
      // Kernel 5.14 and later: all at once, frozen ones too, and none can fork away (cgroup-v2.rst).
      if (writeIfThere(join(folder, 'cgroup.kill'), '1')) return emptied(pids);
      writeIfThere(join(folder, 'cgroup.freeze'), '0');
      return killUntilEmpty(pids);
    },
  };
}

function legacyCgroup(paths: ReadonlyMap<string, string>): Cgroup | undefined {
  const folders = new Map<string, string>();
  for (const [controller, path] of paths) {
    if (controller !== '' && path !== '/') folders.set(controller, join(ROOT, controller, path));
  }
  // The runtime puts a container in all hierarchies; these are the ones that nothing else moves processes about in.
  const [folder] = ['devices', 'freezer', 'pids', 'memory'].flatMap((name) => folders.get(name) ?? []);
  if (folder === undefined) return undefined;
  const pids = () => pidsBelow(folder);
  const freezer = folders.get('freezer');
  const memory = folders.get('memory');
  return {
    pids,
    metrics: () => {
      const metrics = readMetricsV1(folders);
      return metrics && pack('io.containerd.cgroups.v1.Metrics', MetricsV1.encode(metrics).finish());
    },
    watchOom: (onOom) => (memory === undefined ? undefined : watchOomV1(memory, onOom)),
    kill: async () => {
      if (freezer !== undefined) writeIfThere(join(freezer, 'freezer.state'), 'THAWED');
      return killUntilEmpty(pids);
    },
  };
}

/** The processes in a cgroup and below it. */
export function pidsBelow(folder: string): number[] {
  const pids: number[] = [];
  let entries;
  try {
    const text = readFileSync(join(folder, 'cgroup.procs'), 'latin1');
    for (const line of text.split('\n')) if (line !== '') pids.push(Number(line));
    entries = readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // It was removed, now or before. EOPNOTSUPP: a threaded cgroup lists its processes in the one above.
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'EOPNOTSUPP') return pids;
    throw error;
  }
  for (const entry of entries) if (entry.isDirectory()) pids.push(...pidsBelow(join(folder, entry.name)));
  return pids;
}

async function killUntilEmpty(pids: () => number[]): Promise<void> {
  await emptied(() => {
    const left = pids();
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
    return left;
  });
}

/** Processes leave their cgroup when they are over, and there is nothing to wait on for that with version 1. */
async function emptied(pids: () => number[]): Promise<void> {
  const deadline = performance.now() + KILL_TIMEOUT_MS;
  while (pids().length > 0 && performance.now() < deadline) await sleep(KILL_PAUSE_MS);
}

function writeIfThere(path: string, text: string): boolean {
  try {
    writeFileSync(path, text, { flag: 'r+' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
