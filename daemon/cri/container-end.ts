/** How containers of pods end, by themselves or by force, and are cleared away. */
import { signalNumber } from '../../oci/signal.ts';
import { deadlineExceeded } from '../../ttrpc/errors.ts';
import { untilAborted } from '../distribution/turns.ts';
import { reached } from '../failpoint.ts';
import type { Exit } from '../runtime/exit.ts';
import { unmakeContainer } from './container-creation.ts';
import { nanosecondsOf, type PodContainer, exitOf, isListed } from './pod.ts';
import type { Cri } from './cri.ts';
import { endTask, taskOf, unlessGone } from './remains.ts';

/** What a container says that nobody knows the end of. */
export const UNKNOWN_EXIT = 255;

const SIGKILL = 9;
/** Milliseconds that a killed container has to end. */
const KILL_TIMEOUT_MS = 60_000;

/**
 * Writes down how a container has ended, unless that is known; then its task goes. One that is being started is left to who starts it,
 * and looks for its end afterwards.
 */
export async function recordExit(cri: Cri, id: string, exit: Exit): Promise<void> {
  const container = await cri.containers.changeIfThere(id, (before) => withExit(before, exit));
  if (container?.state?.$case === 'created') {
    cri.earlyExits.set(id, exit);
    return;
  }
  reached('pod-container-ended');
  // Nobody asks the task any more, and its shim would stay for it.
  const task = taskOf(cri, id);
  if (task !== undefined) await unlessGone(task.delete(cri.closing));
}

function withExit(container: PodContainer, { status, exitedAt }: Exit): PodContainer {
  const { state } = container;
  if (state?.$case !== 'running') return container;
  const { startedAt } = state.value;
  const reason = container.oomKilled ? 'OOMKilled' : status === 0 ? 'Completed' : 'Error';
  // The shim's clock is coarser than the daemon's.
  const finishedAt = max(nanosecondsOf(exitedAt), startedAt);
  const value = { startedAt, finishedAt, exitCode: status, reason, message: '' };
  return { ...container, state: { $case: 'exited', value } };
}

/**
 * Asks a container to end, and ends it when it has not after a while. One that does not run, or is not there, is fine.
 *
 * @param timeout milliseconds
 * @throws RpcError DeadlineExceeded for one that cannot be killed
 */
export async function stopContainer(
  cri: Cri,
  id: string,
  timeout: number,
  signal: AbortSignal,
): Promise<void> {
  const container = cri.containers.find(id);
  if (container?.state?.$case !== 'running') return;
  if (timeout > 0) {
    await sendSignal(cri, container.id, signalNumber(container.stopSignal));
    if (await endedWithin(cri, container.id, timeout, signal)) return;
  }
  await sendSignal(cri, container.id, SIGKILL);
  if (await endedWithin(cri, container.id, KILL_TIMEOUT_MS, signal)) return;
  throw deadlineExceeded(`container ${container.id} does not end although it was killed`);
}

async function sendSignal(cri: Cri, id: string, number: number): Promise<void> {
  const late = AbortSignal.timeout(KILL_TIMEOUT_MS);
  const sent = taskOf(cri, id)?.kill({ execId: '', signal: number, all: false }, late);
  if (sent !== undefined) await unlessGone(sent);
}

/** Whether the end of the container is written down by then. */
async function endedWithin(cri: Cri, id: string, timeout: number, signal: AbortSignal): Promise<boolean> {
  const isOver = () => cri.containers.find(id)?.state?.$case !== 'running';
  const { promise, resolve } = Promise.withResolvers<void>();
  const stopWatching = cri.containers.watch((now, before) => {
    if ((now ?? before)?.id === id && isOver()) resolve();
  });
  const timer = setTimeout(resolve, timeout);
  try {
    if (!isOver()) await untilAborted(promise, AbortSignal.any([signal, cri.closing]));
  } finally {
    clearTimeout(timer);
    stopWatching();
  }
  return isOver();
}

/** Kills the container, if it runs, and waits until its end is written down. What is not there is fine. */
export async function stopContainerOf(cri: Cri, id: string): Promise<void> {
  await stopContainer(cri, id, 0, cri.closing);
  // One that is just being started has ended by then as well.
  await cri.turns.take(id, undefined, () => stopContainer(cri, id, 0, cri.closing));
}

/** Removes a container with everything of it, by force. What is not there is fine. @throws RpcError; it can be repeated */
export async function removeContainerOf(cri: Cri, id: string): Promise<void> {
  const found = cri.containers.find(id);
  if (found === undefined) return;
  await cri.turns.take(found.id, undefined, async () => {
    await stopContainer(cri, found.id, 0, cri.closing);
    const container = await cri.containers.changeIfThere(found.id, (before) => ({
      ...before,
      // One that is half-made nobody has seen, and nobody is to see it go.
      state: isListed(before) ? { $case: 'removing', value: { exited: exitOf(before) } } : before.state,
    }));
    if (container === undefined) return;
    reached('pod-container-doomed');
    await endTask(cri, container.id);
    await unmakeContainer(cri, container);
  });
}

function max(one: bigint, other: bigint): bigint {
  return one > other ? one : other;
}
