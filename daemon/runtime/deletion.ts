import { Code, isCode } from '../../ttrpc/errors.ts';
import { timestampNow } from '../timestamp.ts';
import type { Exit } from './exit.ts';
import { DELETE_TIMEOUT_MS } from './launcher.ts';
import type { TaskClient } from './shim.ts';

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
