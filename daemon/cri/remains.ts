/** Ending and clearing away what a pod or a container consists of. All of it can be repeated, and what is not there is fine. */
import { Code, isCode } from '../../ttrpc/errors.ts';
import { announceDeletion } from '../events/containers.ts';
import type { ContainerId } from '../identifiers.ts';
import type { Task } from '../runtime/task.ts';
import type { Cri } from './cri.ts';
import { KUBERNETES } from './registry.ts';

const SIGKILL = 9;
/** Milliseconds that a killed process has to end. */
const KILL_TIMEOUT_MS = 60_000;

/** The task of a pod or a container; undefined when it has none. */
export function taskOf({ tasks }: Pick<Cri, 'tasks'>, id: string): Task | undefined {
  try {
    return tasks.get(KUBERNETES, id as ContainerId);
  } catch (error) {
    if (isCode(error, Code.NotFound)) return undefined;
    throw error;
  }
}

/** Kills the task with everything in it, waits for its end and deletes it. Not given up when the caller goes away. */
export async function endTask(cri: Pick<Cri, 'tasks'>, id: string): Promise<void> {
  const task = taskOf(cri, id);
  if (task === undefined) return;
  const signal = AbortSignal.timeout(KILL_TIMEOUT_MS);
  await unlessGone(task.kill({ execId: '', signal: SIGKILL, all: true }, signal));
  await unlessGone(task.wait('', signal));
  await unlessGone(task.delete(signal));
}

/** Removes the container's record among containerd's and its snapshot. */
export async function clearContainer(
  cri: Pick<Cri, 'metadata' | 'distribution' | 'exchange'>,
  id: string,
): Promise<void> {
  const { metadata, distribution, exchange } = cri;
  let snapshotter = '';
  try {
    ({ snapshotter } = metadata.containers.get(KUBERNETES, id as ContainerId));
  } catch (error) {
    // The record is the last to go, so that nothing is left.
    if (isCode(error, Code.NotFound)) return;
    throw error;
  }
  if (snapshotter !== '') await unlessGone(distribution.snapshotters.get(snapshotter).remove(KUBERNETES, id));
  await unlessGone(metadata.containers.delete(KUBERNETES, id as ContainerId));
  announceDeletion(exchange, KUBERNETES, id);
}

/** Resolves for what has gone meanwhile. */
export async function unlessGone(action: Promise<unknown>): Promise<void> {
  try {
    await action;
  } catch (error) {
    if (!isCode(error, Code.NotFound)) throw error;
  }
}
