/** What a daemon before this one had begun with pods is undone or finished, and what a reboot has taken is written down. */
import { messageOf } from '../../ttrpc/errors.ts';
import { removeContainerOf } from './container-end.ts';
import { dropCheckpoints } from './container-checkpoint.ts';
import { recoverStart } from './container-start.ts';
import type { Cri } from './cri.ts';
import { clearPod, undoPod } from './pod-life.ts';
import { endExecs } from './process.ts';

/** Never rejects: what cannot be done now is for kubelet's next attempt, or the next start. */
export async function recoverPods(cri: Cri): Promise<void> {
  dropCheckpoints(cri);
  await endExecs(cri);
  await Promise.all(
    cri.containers
      .list()
      .map((container) => attempt(cri, container.id, () => recoverContainer(cri, container.id))),
  );
  await Promise.all(
    cri.pods
      .list()
      .map(({ id }) => attempt(cri, id, () => cri.turns.take(id, undefined, () => recoverPod(cri, id)))),
  );
}

async function recoverContainer(cri: Cri, id: string): Promise<void> {
  const container = cri.containers.find(id);
  const half = container?.state?.$case === 'making' || container?.state?.$case === 'removing';
  if (half || (container !== undefined && cri.pods.find(container.podId) === undefined))
    await removeContainerOf(cri, id);
  else await cri.turns.take(id, undefined, () => recoverStart(cri, id));
}

async function recoverPod(cri: Cri, id: string): Promise<void> {
  const state = cri.pods.find(id)?.state?.$case;
  if (state === 'making') await undoPod(cri, id);
  else if (state === 'removing') await clearPod(cri, id);
}

async function attempt(cri: Cri, id: string, action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    if (!cri.closing.aborted)
      cri.log.warn({ id, error: messageOf(error) }, 'what was begun with a pod cannot be finished yet');
  }
}
