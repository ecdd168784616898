import type { Container } from '../client/client.ts';
import { attend, PATIENCE_MS } from './attachment.ts';
import type { Session } from './session.ts';
import { type StreamFlags, streamsOf, writePidFile } from './task-flags.ts';

/**
 * Makes a container's task and starts it; stays with it to its end, unless detached, and deletes it then.
 *
 * @param outcome is told that the process has been started, also when something fails after that
 * @returns the exit status for this command
 */
export async function launch(
  session: Session,
  container: Container,
  flags: StreamFlags & {
    readonly pidFile?: string;
    readonly pivot?: boolean;
    readonly checkpoint?: string | undefined;
  },
  outcome: { started: boolean } = { started: false },
): Promise<number> {
  const { call } = session;
  const terminal = container.spec.process?.terminal === true;
  const task = await container.createTask({
    ...call,
    stdio: streamsOf(flags, terminal),
    checkpoint: flags.checkpoint,
    runc: flags.pivot === false ? { noPivotRoot: true } : undefined,
  });
  const start = async () => {
    if (flags.pidFile !== undefined) writePidFile(flags.pidFile, task.pid);
    await task.start({ ...call, patience: PATIENCE_MS });
    outcome.started = true;
  };
  try {
    if (flags.detach === true) {
      await start();
      task.detach();
      return 0;
    }
    const { code } = await attend(session, task, { terminal, signals: flags.sigProxy }, start);
    await task.delete(call);
    return code;
  } catch (error) {
    // Of a process that runs nothing is taken back: the daemon may be gone, or this command's time be over.
    if (!outcome.started) await task[Symbol.asyncDispose]();
    throw error;
  }
}
