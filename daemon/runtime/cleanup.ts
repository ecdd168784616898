/** After a shim has died: its container is killed and removed, and its exit made known. */
import { unlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { DeleteResponse } from '../../proto/gen/containerd/task/v2.ts';
import { Code, isCode, messageOf } from '../../ttrpc/errors.ts';
import { timestampNow } from '../timestamp.ts';
import type { Bootstrap } from './bootstrap.ts';
import { type Bundle, hasCode } from './bundle.ts';
import { type ExitRecord, KILLED } from './exit.ts';
import { reached } from '../failpoint.ts';
import { isForWant } from '../shortage.ts';
import type { Launcher } from './launcher.ts';
import { killProcessesOf } from './processes.ts';
import { unmountAll } from './rootfs.ts';
import { Shim } from './shim.ts';

/** Milliseconds until a killed process is taken to be stuck in the kernel. */
const KILL_TIMEOUT_MS = 2000;
const SHUTDOWN_TIMEOUT_MS = 3000;
/** The clean-up is tried so often: whoever kills its program may be at it for a while, and where it is given up the container stays. */
const DELETIONS = 12;
/** Milliseconds before it is begun again; each time twice as many, up to the most. */
const [FIRST_PAUSE_MS, LONGEST_PAUSE_MS] = [20, 1000];

/**
 * Kills and removes everything a dead shim has left of its container, except the bundle. Can be repeated.
 *
 * Nothing in it can fail for good: what cannot be done is logged, and the rest is done. Where something is short it is to be begun
 * again later (`whenPossible`).
 *
 * @param shim the shim's pid, where the shim has only just been started
 * @returns how the first process ended: as the shim had recorded it, and killed otherwise
 * @throws for want of descriptors or processes
 */
export async function cleanUpAfterShim(
  bundle: Bundle,
  launcher: Launcher,
  bootstrap: Bootstrap | undefined,
  log: Logger,
  shim?: number,
): Promise<ExitRecord> {
  const recorded = bundle.readExit();
  const pid = recorded?.pid ?? bundle.readInitPid();
  let exit: ExitRecord = recorded ?? { pid, status: KILLED, exitedAt: timestampNow(), published: false };
  const address = bootstrap?.address ?? '';
  const isSandboxed = bootstrap?.sandbox !== undefined;
  const shared = isSandboxed || (!launcher.own && address !== '' && bundle.sharesShim(address));
  if (!shared) await killProcessesOf(bundle, KILL_TIMEOUT_MS, shim);
  try {
    const answer = await deleteDead(bundle, launcher, log);
    // The answer's time is later than the kill; it is used only where the shim left no better one.
    if (recorded === undefined) {
      exit = {
        pid: answer.pid || pid,
        status: answer.exitStatus,
        exitedAt: answer.exitedAt ?? timestampNow(),
        published: false,
      };
    }
  } catch (error) {
    if (isForWant(error)) throw error;
    log.warn({ error: messageOf(error) }, 'the shim program could not clean up after its shim');
  }
  try {
    unmountAll(bundle.rootfs);
  } catch (error) {
    log.warn({ err: error }, 'cannot unmount what a dead shim has left mounted');
  }
  if (shared) await forget(bundle, bootstrap!, log);
  else removeSocket(address, log);
  reached('dead-shim-cleaned');
  return exit;
}

/** Has the shim's program clean up. It can be killed like the shim, and with nobody to begin again the container would live on. */
async function deleteDead(bundle: Bundle, launcher: Launcher, log: Logger): Promise<DeleteResponse> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await launcher.deleteDead(bundle);
    } catch (error) {
      if (attempt === DELETIONS || !isCode(error, Code.Internal)) throw error;
      log.warn({ error: messageOf(error) }, 'the clean-up after a shim has failed, and is begun again');
      await sleep(Math.min(FIRST_PAUSE_MS * 2 ** (attempt - 1), LONGEST_PAUSE_MS));
    }
  }
}

export interface StoppedTask {
  readonly id: string;
  readonly bundle: Bundle;
  readonly launcher: Launcher;
  readonly log: Logger;
}

/**
 * Ends a shim that has no container any more; a sandbox's is let go. One that does not go by itself is killed.
 * @returns whether it was there to be asked, and tells whatever it still has to tell
 */
export async function stopShim({ id, bundle, launcher, log }: StoppedTask, shim: Shim): Promise<boolean> {
  if (shim.bootstrap.sandbox !== undefined) {
    shim.close();
    return !shim.lost;
  }
  let answered = false;
  try {
    await shim.task.shutdown({ id }, { timeout: SHUTDOWN_TIMEOUT_MS });
    answered = true;
  } catch (error) {
    if (!isCode(error, Code.Unavailable)) {
      log.warn({ err: error }, 'the shim does not shut down; it is killed');
      await killProcessesOf(bundle, KILL_TIMEOUT_MS);
    }
  }
  shim.close();
  if (launcher.own) removeSocket(shim.bootstrap.address, log);
  reached('shim-stopped');
  return answered;
}

/** A shim that lives for other containers lets go of this one. */
async function forget({ id }: Bundle, bootstrap: Bootstrap, log: Logger): Promise<void> {
  try {
    const shim = await Shim.connect(bootstrap);
    await shim.task.delete({ id }, { timeout: KILL_TIMEOUT_MS }).finally(() => shim.close());
  } catch (error) {
    log.debug({ err: error }, 'the shim of several containers has not deleted this one');
  }
}

/** Removes a shim's socket that nobody listens on any more. Abstract ones go by themselves. */
export function removeSocket(address: string, log: Logger): void {
  if (!address.startsWith('/')) return;
  try {
    unlinkSync(address);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) log.warn({ address, error: messageOf(error) }, 'cannot remove a socket');
  }
}
