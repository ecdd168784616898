/** Ending the shim of a sandbox, whichever way it will go. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { messageOf } from '../../ttrpc/errors.ts';
import type { Bootstrap } from '../runtime/bootstrap.ts';
import { type Bundle, removeRemains } from '../runtime/bundle.ts';
import { removeSocket } from '../runtime/cleanup.ts';
import type { Launcher } from '../runtime/launcher.ts';
import { killProcessesOf } from '../runtime/processes.ts';
import type { Shim } from '../runtime/shim.ts';

/** Milliseconds for a shim that has been told to shut down. */
const FAREWELL_MS = 5000;
const SHUTDOWN_TIMEOUT_MS = 3000;
const KILL_TIMEOUT_MS = 2000;

export interface ShimRemains {
  readonly bundle: Bundle;
  readonly launcher: Launcher;
  readonly bootstrap: Bootstrap | undefined;
  readonly log: Logger;
}

/** Ends a shim whose sandbox is not wanted. Never rejects. */
export async function dismiss(remains: ShimRemains, shim: Shim | undefined): Promise<void> {
  const { bundle, log } = remains;
  try {
    await shim?.sandbox.shutdownSandbox({ sandboxId: bundle.id }, { timeout: SHUTDOWN_TIMEOUT_MS });
    await seeOff(remains, shim);
  } catch (error) {
    log.debug({ error: messageOf(error) }, 'the shim of a sandbox does not shut down');
    shim?.close();
    await seeOff(remains, undefined);
  }
}

/**
 * Sees a shim off. One that does not go, or was never told to, is killed, and its program cleans up. Nothing of it is left then but the
 * bundle. Never rejects.
 *
 * @param shim one that has said that it shuts down
 */
export async function seeOff(remains: ShimRemains, shim: Shim | undefined): Promise<void> {
  const { bundle, launcher, bootstrap, log } = remains;
  let isGone = false;
  if (shim !== undefined) {
    const gone = shim.closed.then(() => true);
    isGone = await Promise.race([gone, sleep(FAREWELL_MS, false, { ref: false })]);
    shim.close();
  }
  try {
    await killProcessesOf(bundle, KILL_TIMEOUT_MS);
    // Of Moor's own nothing is left: its sandboxes are its process.
    if (!isGone && !launcher.own && bootstrap !== undefined) await launcher.deleteDead(bundle);
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'the shim program could not clean up after the shim of a sandbox');
  }
  if (bootstrap !== undefined) removeSocket(bootstrap.address, log);
}

/** Removes the bundle; what cannot be removed now is when the daemon starts. */
export async function removeBundle({ bundle, log }: Pick<ShimRemains, 'bundle' | 'log'>): Promise<void> {
  const hidden = bundle.hide();
  if (hidden === undefined) return;
  await removeRemains(hidden).catch((error: unknown) => {
    log.error({ err: error }, 'the files of a sandbox remain');
  });
}
