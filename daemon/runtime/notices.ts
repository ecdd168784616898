/** The events that the daemon publishes in a shim's place. */
import { TaskDelete, TaskExecStarted, TaskExit, TaskStart } from '../../proto/gen/containerd/events/task.ts';
import { protobufPackage } from '../../proto/gen/containerd/events/task.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
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
  const event = TaskExit.fromPartial({ containerId, id, pid, exitStatus, exitedAt });
  return { typeUrl: `${protobufPackage}.TaskExit`, value: Buffer.from(TaskExit.encode(event).finish()) };
}

export function deleteNotice(containerId: string, exit: Exit): Any {
  const { pid, status: exitStatus, exitedAt } = exit;
  const event = TaskDelete.fromPartial({ containerId, pid, exitStatus, exitedAt });
  return { typeUrl: `${protobufPackage}.TaskDelete`, value: Buffer.from(TaskDelete.encode(event).finish()) };
}

export function startNotice(containerId: string, pid: number): Any {
  const value = Buffer.from(TaskStart.encode(TaskStart.fromPartial({ containerId, pid })).finish());
  return { typeUrl: `${protobufPackage}.TaskStart`, value };
}

export function execStartedNotice(containerId: string, execId: string, pid: number): Any {
  const event = TaskExecStarted.fromPartial({ containerId, execId, pid });
  const value = Buffer.from(TaskExecStarted.encode(event).finish());
  return { typeUrl: `${protobufPackage}.TaskExecStarted`, value };
}
