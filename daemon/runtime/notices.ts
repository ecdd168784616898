/** The events that the daemon publishes in a shim's place. */
import { TaskDelete, TaskExecStarted, TaskExit, TaskStart } from '../../proto/gen/containerd/events/task.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { pack } from '../events/pack.ts';
import type { Namespace } from '../identifiers.ts';
import type { Exit } from './exit.ts';

/** Where events go. */
export interface EventPublisher {
  publish(namespace: Namespace, topic: string, event: Any): void | Promise<void>;
}

export const EXIT_TOPIC = '/tasks/exit';
export const DELETE_TOPIC = '/tasks/delete';
export const START_TOPIC = '/tasks/start';
export const EXEC_STARTED_TOPIC = '/tasks/exec-started';

/** @param id the exec's id, or the container's for its first process */
export function exitNotice(containerId: string, id: string, exit: Exit): Any {
  const { pid, status: exitStatus, exitedAt } = exit;
  return pack('TaskExit', TaskExit, { containerId, id, pid, exitStatus, exitedAt });
}

export function deleteNotice(containerId: string, exit: Exit): Any {
  const { pid, status: exitStatus, exitedAt } = exit;
  return pack('TaskDelete', TaskDelete, { containerId, pid, exitStatus, exitedAt });
}

export function startNotice(containerId: string, pid: number): Any {
  return pack('TaskStart', TaskStart, { containerId, pid });
}

export function execStartedNotice(containerId: string, execId: string, pid: number): Any {
  return pack('TaskExecStarted', TaskExecStarted, { containerId, execId, pid });
}
