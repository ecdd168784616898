import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DeleteResponse } from '../proto/gen/containerd/task/v2.ts';
import { messageOf } from '../ttrpc/errors.ts';
import { cgroupOf, type Cgroup } from './cgroup/cgroup.ts';
import { readExitRecord } from './exit-record.ts';
import type { Flags } from './flags.ts';
import { PID_FILE, readPid } from './init.ts';
import type { Log } from './log.ts';
import { readOptions } from './options.ts';
import { Reaper } from './reaper.ts';
import { unmountRootfs } from './rootfs.ts';
import { Runc } from './runc.ts';
import { readSpec } from './spec.ts';
import { now } from './timestamp.ts';

/** What a process that SIGKILL has ended exits with. */
const KILLED = 128 + 9;

/**
 * Cleans up after a shim that is gone: ends what is left of its container, removes it from the runtime, unmounts. Succeeds when
 * nothing at all is left; a step that fails does not keep the others from being tried.
 *
 * @returns the encoded DeleteResponse for standard output
 */
export async function deleteTask(flags: Flags, log: Log): Promise<Uint8Array> {
  if (flags.id === '') throw new Error('delete needs the id of a task');
  const bundle = flags.bundle || process.cwd();
  const attempt = async (what: string, step: () => Promise<void> | void): Promise<void> => {
    try {
      await step();
    } catch (error) {
      log.warn(`${what} failed`, { error });
    }
  };
  // First, or it goes on creating what is removed below.
  await attempt('ending the runtime', () => endRuntime(bundle));
  const pid = readInitPid(bundle);
  await attempt('killing the container', () => cgroupOfContainer(pid, flags.id)?.kill());
  await attempt('deleting the container from the runtime', async () => {
    const container = { id: flags.id, namespace: flags.namespace, bundle };
    const reaper = new Reaper();
    reaper.start();
    try {
      await new Runc(container, readOptions(bundle), reaper).deleteUnfinished(readSpec(bundle).cgroupsPath);
    } finally {
      reaper.stop();
    }
  });
  await attempt('unmounting', () => unmountRootfs(join(bundle, 'rootfs')));
  await attempt('removing the socket', () => removeSocket(bundle));
  const exit = readExitRecord(bundle)?.exit ?? { pid: pid ?? 0, status: KILLED, at: now() };
  return DeleteResponse.encode({ pid: exit.pid, exitStatus: exit.status, exitedAt: exit.at }).finish();
}

/** A runtime that the shim has started outlives it. It is known by its log, which is in the bundle. */
function endRuntime(bundle: string): void {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const words = readIfThere(join('/proc', name, 'cmdline')).split('\0');
    const log = words[words.indexOf('--log') + 1];
    if (words.includes('--log') && log?.startsWith(`${bundle}/`) === true)
      process.kill(Number(name), 'SIGKILL');
  }
}

function readInitPid(bundle: string): number | undefined {
  try {
    return readPid(join(bundle, PID_FILE));
  } catch {
    return undefined;
  }
}

/** The pid may have been given to another process since: the cgroup must be one that bears the container's name. */
function cgroupOfContainer(pid: number | undefined, id: string): Cgroup | undefined {
  if (pid === undefined) return undefined;
  const membership = readIfThere(`/proc/${pid}/cgroup`);
  const isOurs = membership
    .split('\n')
    .some((line) => line.split(/[/:-]/).some((part) => part.startsWith(id)));
  return isOurs ? cgroupOf(pid) : undefined;
}

function removeSocket(bundle: string): void {
  const address = readIfThere(join(bundle, 'address'));
  if (address.startsWith('unix://')) rmSync(address.slice('unix://'.length), { force: true });
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return '';
    throw new Error(`${path}: ${messageOf(error)}`, { cause: error });
  }
}
