/** Finding the sandboxes of a former daemon again, and finishing or undoing what it was in the middle of. */
import type { Logger } from 'pino';
import { messageOf } from '../../ttrpc/errors.ts';
import type { Bootstrap } from '../runtime/bootstrap.ts';
import { type Bundle, listBundles, removeEmpty, removeRemains } from '../runtime/bundle.ts';
import { foreignAddress } from '../runtime/foreign-shim.ts';
import type { Launchers } from '../runtime/launchers.ts';
import { endLostShims } from '../runtime/lost-shims.ts';
import { Shim } from '../runtime/shim.ts';
import { READY } from './controller.ts';
import { dismiss, removeBundle, seeOff } from './ending.ts';
import { readRecord } from './record.ts';
import { ShimSandbox, type ShimSandboxParts } from './shim-sandbox.ts';

/** Milliseconds; the daemon serves nobody before all have answered. */
const STATUS_TIMEOUT_MS = 2000;

/** Who hears of what is found. */
export interface Told extends Pick<ShimSandboxParts, 'onEnd'> {
  /** One turns out to have been started. */
  readonly onStart: (sandbox: ShimSandbox) => void;
}

/**
 * All sandboxes there are below the directory, connected with their shims where those live. What was not created, or was to be removed,
 * is gone when this resolves; what has ended meanwhile is on record.
 */
export async function recoverSandboxes(
  directory: string,
  launchers: Launchers,
  log: Logger,
  told: Told,
): Promise<ShimSandbox[]> {
  const { bundles, remains } = listBundles(directory);
  if (bundles.length + remains.length === 0) return [];
  await endLostShims(directory, log);
  const found = await Promise.all(
    bundles.map(async (bundle) => {
      const mine = log.child({ namespace: bundle.namespace, sandbox: bundle.id });
      try {
        return await recover(bundle, launchers, mine, told);
      } catch (error) {
        mine.error({ error: messageOf(error), path: bundle.path }, 'a sandbox is left alone');
        return undefined;
      }
    }),
  );
  await Promise.all(
    remains.map(({ path }) =>
      removeRemains(path).catch((error: unknown) =>
        log.error({ err: error, path }, 'the files of a sandbox remain'),
      ),
    ),
  );
  removeEmpty(directory);
  return found.filter((sandbox) => sandbox !== undefined);
}

async function recover(
  bundle: Bundle,
  launchers: Launchers,
  log: Logger,
  { onStart, onEnd }: Told,
): Promise<ShimSandbox | undefined> {
  // Before anything is done to it: a newer daemon's records end this here.
  const record = readRecord(bundle.path);
  const exit = bundle.readExit();
  const bootstrap = bundle.readBootstrap();
  const launcher = launchers.known(bootstrap);
  const shim = bootstrap && (await connect(bundle, bootstrap, log));
  if (record === undefined || record.step === 'doomed' || bootstrap === undefined) {
    await dismiss({ bundle, launcher, bootstrap, log }, shim);
    await removeBundle({ bundle, log });
    return undefined;
  }
  const stopLog = shim === undefined ? () => {} : launcher.followLog(bundle, log);
  const sandbox = new ShimSandbox({ bundle, launcher, bootstrap, record, log, onEnd, stopLog });
  if (exit !== undefined) await sandbox.recall(exit);
  if (shim !== undefined) {
    sandbox.attach(shim);
    if (await startedUnheard(sandbox, shim)) onStart(sandbox);
  } else if (exit === undefined) {
    log.warn('the shim of a sandbox is gone');
    await seeOff(sandbox, undefined);
    await sandbox.endKilled();
  }
  return sandbox;
}

/** Whether its former daemon was killed before it heard that the sandbox had been started. It is on record then. */
async function startedUnheard(sandbox: ShimSandbox, shim: Shim): Promise<boolean> {
  const { id, record, log } = sandbox;
  if (record.step !== 'created') return false;
  try {
    const { state, pid } = await shim.sandbox.sandboxStatus(
      { sandboxId: id },
      { timeout: STATUS_TIMEOUT_MS },
    );
    if (state !== READY) return false;
    sandbox.started(pid);
    return true;
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'the shim of a sandbox does not say whether that was started');
    return false;
  }
}

async function connect(bundle: Bundle, bootstrap: Bootstrap, log: Logger): Promise<Shim | undefined> {
  const address = bootstrap.address || foreignAddress(bundle, bootstrap);
  if (address === undefined) return undefined;
  try {
    return await Shim.connect({ ...bootstrap, address });
  } catch (error) {
    log.info({ error: messageOf(error) }, 'the shim of a sandbox is not there');
    return undefined;
  }
}
