/** Finding the tasks of a former daemon again, and finishing or undoing what it was in the middle of. */
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Status } from '../../proto/gen/containerd/types/task.ts';
import type { StateResponse } from '../../proto/gen/containerd/task/v2.ts';
import { Code, isCode, messageOf } from '../../ttrpc/errors.ts';
import { isForWant, whenPossible } from '../shortage.ts';
import { timestampNow } from '../timestamp.ts';
import type { Bootstrap } from './bootstrap.ts';
import { cleanUpAfterShim } from './cleanup.ts';
import { leaveShim } from './deletion.ts';
import { foreignAddress } from './foreign-shim.ts';
import { type KnownState, knownState } from './known-state.ts';
import { PROBE_TIMEOUT_MS } from './link.ts';
import { Shim } from './shim.ts';
import type { Task } from './task.ts';

/**
 * What became of a bundle:
 * - live: the shim is there and has the container
 * - dead: the shim is gone; the exit is kept until the client deletes the task
 * - departed: the container had been deleted, and the rest now is; the client may not know
 * - undone: there never was a container
 */
export type Found = 'live' | 'dead' | 'departed' | 'undone';

export interface Recovered {
  readonly found: Found;
  /** It was not asked: it has written down all there is to know. */
  readonly unmet?: true;
  /**
   * A shim that did not answer in time, or that there was no need to ask, is taken to be live; this is what it turns out to be.
   * Never rejects.
   */
  readonly later?: Promise<Found>;
}

/** Milliseconds that one shim may take for what is asked of it; all are asked at once. */
const FLUSH_TIMEOUT_MS = 3000;
const CLOSING_TIMEOUT_MS = 3000;

/**
 * Finds out what became of a task since its daemon died, and puts it in order. Nothing of it is left where the answer is
 * 'undone' or 'departed', except the bundle.
 *
 * @param strays sockets that belong to no bundle: where a bootstrap record is damaged the shim may be at one of them, which is then
 *        taken out of the list
 */
export async function recoverTask(
  task: Task,
  bootstrap: Bootstrap | undefined,
  strays: Set<string>,
): Promise<Recovered> {
  const { bundle } = task;
  const dead = bundle.readDead();
  if (dead !== undefined) {
    task.dead(dead);
    await task.announceDeath(dead, dead.published);
    return { found: 'dead' };
  }
  const known = bootstrap ?? (await amongStrays(task, strays));
  if (known === undefined) return { found: await bury(task, undefined) };
  const address = known.address || foreignAddress(task.bundle, known);
  if (address === undefined) return { found: await bury(task, known) };
  const state = recordedState(task, address);
  if (state !== undefined) return recall(task, { ...known, address }, state);
  try {
    return await reconnect(task, { ...known, address });
  } catch (error) {
    if (!isForWant(error)) throw error;
    task.log.warn({ error: messageOf(error) }, 'the shim cannot be asked yet');
    return recall(task, { ...known, address });
  }
}

function recordedState({ bundle, launcher }: Task, address: string): KnownState | undefined {
  return launcher.own ? knownState(bundle, address) : undefined;
}

/**
 * The shim is met when it is needed, or when there is time: it lives, its record says everything and it holds no events; or it cannot be
 * asked now.
 *
 * @param now what its record says
 */
function recall(task: Task, bootstrap: Bootstrap, now?: KnownState): Recovered {
  const known = () => recordedState(task, bootstrap.address);
  const turnsOut = Promise.withResolvers<Found>();
  const meet = async () => {
    try {
      const { found, later } = await reconnect(task, bootstrap);
      turnsOut.resolve(later ?? found);
    } catch (error) {
      if (isForWant(error)) throw error;
      // Not known to clients, and not free to be made again: an operator has to look at it.
      task.log.error({ err: error }, 'a task cannot be recovered');
    }
  };
  task.unmet(now, { known, meet });
  return { found: 'live', unmet: true, later: turnsOut.promise };
}

async function reconnect(task: Task, bootstrap: Bootstrap): Promise<Recovered> {
  task.followLog();
  let shim: Shim;
  try {
    shim = await Shim.connect(bootstrap);
  } catch (error) {
    if (!isCode(error, Code.Unavailable)) throw error;
    task.log.info({ error: messageOf(error) }, 'the shim is gone');
    return { found: await bury(task, bootstrap) };
  }
  try {
    return { found: await settle(task, shim, PROBE_TIMEOUT_MS) };
  } catch (error) {
    if (!isCode(error, Code.DeadlineExceeded)) {
      task.log.info({ error: messageOf(error) }, 'the shim cannot be asked');
      shim.close();
      return { found: await bury(task, bootstrap) };
    }
    // Stuck is not dead: the container may be running well, and its shim may come round.
    task.log.warn('the shim does not say how its container is');
    task.live(shim, task.bundle.readExit()?.pid ?? task.bundle.readInitPid());
    return { found: 'live', later: settle(task, shim).catch(() => 'live') };
  }
}

/**
 * Asks a shim how its container is, and does what is left to do for it.
 *
 * @param timeout milliseconds for the answer
 * @throws RpcError when there is no answer
 */
async function settle(task: Task, shim: Shim, timeout?: number): Promise<Found> {
  try {
    const state = await shim.task.state({ id: task.id }, { timeout });
    if (timeout !== undefined) task.live(shim, state.pid);
    await publishMissedEvents(task, shim, state);
    return 'live';
  } catch (error) {
    if (isCode(error, Code.NotFound)) return withoutContainer(task, shim);
    throw error;
  }
}

/** The exit that happened while no daemon was there. */
async function publishMissedEvents(task: Task, shim: Shim, state: StateResponse): Promise<void> {
  if (task.launcher.own) {
    const recorded = task.bundle.readExit();
    if (recorded?.published === true) task.exited(recorded);
    try {
      await shim.flush({ timeout: FLUSH_TIMEOUT_MS });
    } catch (error) {
      task.log.warn({ err: error }, 'the shim still holds events');
    }
    return;
  }
  if (state.status !== Status.STOPPED) return;
  // Others' shims give their events up after a few seconds. What was published before is on record.
  const recorded = task.bundle.readExit();
  if (recorded !== undefined) task.exited(recorded);
  else
    await task.announceExit({
      pid: state.pid,
      status: state.exitStatus,
      exitedAt: state.exitedAt ?? timestampNow(),
    });
}

/** The shim was never asked to create the container, or has been asked to delete it. */
async function withoutContainer(task: Task, shim: Shim): Promise<Found> {
  task.letGo();
  const exit = task.bundle.readExit();
  if (exit?.published === true) task.exited(exit);
  if (task.launcher.own) {
    // Its last events may still be on their way.
    await shim.flush({ timeout: FLUSH_TIMEOUT_MS }).catch((error: unknown) => {
      task.log.warn({ err: error }, 'the shim still holds events');
    });
  }
  await leaveShim(task, shim, exit);
  await Promise.race([shim.closed, sleep(CLOSING_TIMEOUT_MS, undefined, { ref: false })]);
  // A Go shim kills its runtime when its daemon dies, and leaves what that was about to create.
  if (!task.launcher.own) await cleanUp(task, shim.bootstrap);
  if (exit === undefined) return 'undone';
  task.departed({ ...exit, published: true });
  return 'departed';
}

/** Without a pid, the runtime has never come to the end of creating a container: then there is no exit to tell of. */
async function bury(task: Task, bootstrap: Bootstrap | undefined): Promise<Found> {
  if (task.bundle.readInitPid() > 0 || task.bundle.readExit() !== undefined) {
    await task.bury(bootstrap);
    return 'dead';
  }
  // No shim is started before its record is written, and ours has a log from its first moment on.
  const started = bootstrap !== undefined && (!task.launcher.own || existsSync(task.bundle.log));
  if (started) await cleanUp(task, bootstrap);
  return 'undone';
}

async function cleanUp({ bundle, launcher, log }: Task, bootstrap: Bootstrap): Promise<void> {
  await whenPossible('a clean-up', () => cleanUpAfterShim(bundle, launcher, bootstrap, log), { log });
}

/**
 * Ends the shim at a socket that belongs to no bundle: one that a dying daemon had asked for, and that nobody knows of.
 * @returns false when it has a container
 * @throws RpcError Unavailable when nobody listens there
 */
export async function endStray(address: string): Promise<boolean> {
  const shim = await Shim.connect({ runtime: '', binary: '', apiVersion: 3, address });
  try {
    const { taskPid } = await shim.task.connect({}, { timeout: PROBE_TIMEOUT_MS });
    if (taskPid !== 0) return false;
    await shim.task.shutdown({}, { timeout: PROBE_TIMEOUT_MS });
    return true;
  } finally {
    shim.close();
  }
}

async function amongStrays(task: Task, strays: Set<string>): Promise<Bootstrap | undefined> {
  for (const address of strays) {
    const bootstrap = { runtime: '', binary: '', apiVersion: 3, address } as const;
    let shim: Shim | undefined;
    try {
      shim = await Shim.connect(bootstrap);
      const state = await shim.task.state({ id: task.id }, { timeout: PROBE_TIMEOUT_MS });
      if (state.bundle !== task.bundle.path) continue;
      task.log.warn({ address }, 'the bootstrap record was damaged; the shim has been found by its socket');
      task.bundle.writeBootstrap(bootstrap, 'replace');
      strays.delete(address);
      return bootstrap;
    } catch (error) {
      if (isForWant(error)) throw error;
    } finally {
      shim?.close();
    }
  }
  return undefined;
}
