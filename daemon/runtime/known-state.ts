/** Knowing how a container is without a word to its shim, which would take the processor time of waking it. */
import { existsSync } from 'node:fs';
import type { StateResponse } from '../../proto/gen/containerd/task/v2.ts';
import { Status } from '../../proto/gen/containerd/types/task.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import { isAlive, processStat } from '../process-stat.ts';
import type { Bundle } from './bundle.ts';
import type { ExitRecord } from './exit.ts';
import type { StateRecord } from './state-record.ts';

/** A container whose shim lives and has nothing to tell. */
export interface KnownState extends StateRecord {
  /** How the first process ended, when it has and subscribers know. */
  readonly exit: ExitRecord | undefined;
}

/**
 * Undefined when it cannot be told from the bundle and the process table: there is no record, the shim is gone or has no
 * socket, or the first process has ended and not everybody has been told.
 *
 * @param address where the shim listens
 */
export function knownState(bundle: Bundle, address: string): KnownState | undefined {
  const record = bundle.readState();
  if (record === undefined) return undefined;
  const shim = processStat(record.shim.pid);
  if (!isAlive(shim) || shim?.started !== record.shim.started || !existsSync(address)) return undefined;
  const exit = bundle.readExit();
  if (exit !== undefined) return exit.published ? { ...record, status: Status.STOPPED, exit } : undefined;
  if (record.status === Status.STOPPED) return undefined;
  // Its end may be on its way to the shim.
  if (record.pid !== 0 && !isAlive(processStat(record.pid))) return undefined;
  return { ...record, exit };
}

/** What the shim would say. */
export function asAnswer({ exit, pid, ...known }: KnownState): PartialMessage<StateResponse> {
  const { status, stdin, stdout, stderr, terminal } = known;
  const end = exit && { exitStatus: exit.status, exitedAt: exit.exitedAt };
  return { pid: exit?.pid ?? pid, status, stdin, stdout, stderr, terminal, ...end };
}
