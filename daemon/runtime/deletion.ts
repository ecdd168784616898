import { Code, isCode } from '../../ttrpc/errors.ts';
import { timestampNow } from '../timestamp.ts';
import { type StoppedTask, stopShim } from './cleanup.ts';
import type { Exit, ExitRecord } from './exit.ts';
import { DELETE_TIMEOUT_MS } from './launcher.ts';
import { type TaskNews, lastWords } from './news.ts';
import type { Shim, TaskClient } from './shim.ts';

/**
 * Has a shim delete its container.
 *
 * @param known how it ended, as far as that is known without the shim
 * @returns undefined when nobody knows how it ended
 * @throws RpcError FailedPrecondition while it runs
 */
export async function deleteContainer(
  shim: TaskClient,
  id: string,
  known: () => Exit | undefined,
): Promise<Exit | undefined> {
  try {
    const { pid, exitStatus, exitedAt } = await shim.delete({ id }, { timeout: DELETE_TIMEOUT_MS });
    return { pid, status: exitStatus, exitedAt: exitedAt ?? timestampNow() };
  } catch (error) {
    // The shim has deleted it before, for a call that was cut off; what is left is to say how it ended.
    if (isCode(error, Code.NotFound)) return known();
    throw error;
  }
}

interface DeletedTask extends StoppedTask {
  readonly news: TaskNews;
  readonly exitPublished: boolean;
  announceDeath(exit: ExitRecord): Promise<ExitRecord>;
}

/**
 * Ends a shim that has answered a deletion. It may be killed before it has told of it: that is not left to it where all that comes before has
 * been told.
 *
 * @param exit undefined for a deletion that was answered before
 */
export async function leaveShim(task: DeletedTask, shim: Shim, exit: Exit | undefined): Promise<void> {
  const lives = await stopShim(task, shim);
  if (!task.launcher.own || exit === undefined) return;
  if (!lives) {
    await lastWords();
    await task.announceDeath({ ...exit, published: task.exitPublished });
  }
  if (!lives || task.news.complete) await task.news.tellDeletion(exit);
}
