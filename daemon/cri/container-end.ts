/** How containers of pods end, by themselves or by force, and are cleared away. */
import type { Exit } from '../runtime/exit.ts';
import { nanosecondsOf, type ContainerExit, type PodContainer, exitOf } from './pod.ts';
import type { Cri } from './cri.ts';
import { clearContainer, endTask, taskOf, unlessGone } from './remains.ts';
import { timestampNow } from '../timestamp.ts';

/** What a container says that nobody knows the end of. */
export const UNKNOWN_EXIT = 255;

/** Writes down how a container has ended, unless that is known; then its task goes. */
export async function recordExit(
  cri: Cri,
  id: string,
  exit: Pick<Exit, 'status' | 'exitedAt'>,
): Promise<void> {
  await cri.containers.changeIfThere(id, (container) => withExit(container, exit));
  // Nobody asks the task any more, and its shim would stay for it.
  const task = taskOf(cri, id);
  if (task !== undefined) await unlessGone(task.delete(cri.closing));
}

function withExit(
  container: PodContainer,
  { status, exitedAt }: Pick<Exit, 'status' | 'exitedAt'>,
): PodContainer {
  const { state } = container;
  if (state?.$case !== 'running' && state?.$case !== 'created') return container;
  const startedAt = state.$case === 'running' ? state.value.startedAt : 0n;
  const reason = container.oomKilled ? 'OOMKilled' : status === 0 ? 'Completed' : 'Error';
  const value = { startedAt, finishedAt: nanosecondsOf(exitedAt), exitCode: status, reason, message: '' };
  return { ...container, state: { $case: 'exited', value } };
}

/** Kills the container, if it runs, and waits until its end is written down. What is not there is fine. */
export async function stopContainerOf(cri: Cri, id: string): Promise<void> {
  await cri.turns.take(id, undefined, () => endContainer(cri, id));
}

async function endContainer(cri: Cri, id: string): Promise<void> {
  const container = cri.containers.find(id);
  if (container === undefined || exitOf(container) !== undefined) return;
  const task = taskOf(cri, id);
  const waiting = container.state?.$case === 'running' && task?.wait('', cri.closing);
  await endTask(cri, id);
  if (container.state?.$case !== 'running') return;
  const unknown = { status: UNKNOWN_EXIT, exitedAt: timestampNow() };
  await recordExit(cri, id, (waiting ? await waiting.catch(() => undefined) : undefined) ?? unknown);
}

/** Removes a container with everything of it, by force. What is not there is fine. @throws RpcError; it can be repeated */
export async function removeContainerOf(cri: Cri, id: string): Promise<void> {
  await cri.turns.take(id, undefined, async () => {
    await endContainer(cri, id);
    const found = await cri.containers.changeIfThere(id, (container) => {
      const exited: ContainerExit | undefined = exitOf(container);
      return { ...container, state: { $case: 'removing', value: { exited } } };
    });
    if (found === undefined) return;
    await endTask(cri, id);
    await clearContainer(cri, id);
    await cri.containers.remove(id);
  });
}
