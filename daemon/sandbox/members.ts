/** What runs in a sandbox beside its shim. */
import type { Logger } from 'pino';
import { Code, isCode, messageOf } from '../../ttrpc/errors.ts';
import { parseId } from '../identifiers.ts';
import type { ContainerStore } from '../metadata/containers.ts';
import type { TaskManager } from '../runtime/manager.ts';
import type { SandboxKey } from './controller.ts';

const SIGKILL = 9;
/** Milliseconds for a shim that may be stuck. */
const KILL_TIMEOUT_MS = 10_000;

/** Kills the tasks of the containers that say they belong to a sandbox. They are there for their clients to delete. Never rejects. */
export async function killMembers(
  { namespace, id }: SandboxKey,
  { containers, tasks, log }: { containers: ContainerStore; tasks: TaskManager; log: Logger },
): Promise<void> {
  const members = containers.list(namespace).filter(({ sandbox }) => sandbox === id);
  const kill = async (member: string): Promise<void> => {
    try {
      const task = tasks.get(namespace, parseId(member));
      await task.kill({ execId: '', signal: SIGKILL, all: true }, AbortSignal.timeout(KILL_TIMEOUT_MS));
    } catch (error) {
      if (isCode(error, Code.NotFound)) return;
      log.warn({ sandbox: id, id: member, error: messageOf(error) }, 'a container outlives its sandbox');
    }
  };
  await Promise.all(members.map((container) => kill(container.id)));
}
