import {
  TaskCheckpointed,
  TaskCreate,
  TaskDelete,
  TaskExecAdded,
  TaskExecStarted,
  TaskExit,
  TaskOOM,
  TaskPaused,
  TaskResumed,
  TaskStart,
} from '../proto/gen/containerd/events/task.ts';
import type { PartialMessage } from '../ttrpc/service.ts';
import { pack } from './any.ts';
import type { Exit } from './reaper.ts';
import type { Event } from './publisher.ts';

/** The events of a task, each with the topic and type that containerd gives it. */
export const event = {
  created: (message: PartialMessage<TaskCreate>): Event =>
    lasting('/tasks/create', 'TaskCreate', TaskCreate.encode(TaskCreate.fromPartial(message)).finish()),

  started: (containerId: string, pid: number): Event =>
    lasting('/tasks/start', 'TaskStart', TaskStart.encode({ containerId, pid }).finish()),

  execAdded: (containerId: string, execId: string): Event =>
    expendable('/tasks/exec-added', 'TaskExecAdded', TaskExecAdded.encode({ containerId, execId }).finish()),

  execStarted: (containerId: string, execId: string, pid: number): Event =>
    expendable(
      '/tasks/exec-started',
      'TaskExecStarted',
      TaskExecStarted.encode({ containerId, execId, pid }).finish(),
    ),

  /** @param id of the process: the container's own for its init */
  exited: (containerId: string, id: string, { pid, status, at }: Exit): Event => {
    const message = { containerId, id, pid, exitStatus: status, exitedAt: at };
    const make = id === containerId ? lasting : expendable;
    return make('/tasks/exit', 'TaskExit', TaskExit.encode(message).finish());
  },

  /** @param exit none when the container was deleted before it ever ran */
  deleted: (containerId: string, exit: Exit | undefined): Event => {
    const message = { containerId, pid: exit?.pid, exitStatus: exit?.status, exitedAt: exit?.at };
    return lasting(
      '/tasks/delete',
      'TaskDelete',
      TaskDelete.encode(TaskDelete.fromPartial(message)).finish(),
    );
  },

  oom: (containerId: string): Event =>
    lasting('/tasks/oom', 'TaskOOM', TaskOOM.encode({ containerId }).finish()),

  paused: (containerId: string): Event =>
    lasting('/tasks/paused', 'TaskPaused', TaskPaused.encode({ containerId }).finish()),

  resumed: (containerId: string): Event =>
    lasting('/tasks/resumed', 'TaskResumed', TaskResumed.encode({ containerId }).finish()),

  checkpointed: (containerId: string, checkpoint: string): Event =>
    lasting(
      '/tasks/checkpointed',
      'TaskCheckpointed',
      TaskCheckpointed.encode({ containerId, checkpoint }).finish(),
    ),
};

function lasting(topic: string, name: string, bytes: Uint8Array): Event {
  return { topic, event: pack(`containerd.events.${name}`, bytes), expendable: false };
}

function expendable(topic: string, name: string, bytes: Uint8Array): Event {
  return { ...lasting(topic, name, bytes), expendable: true };
}
