import {
  ContainerCreate,
  ContainerDelete,
  ContainerUpdate,
} from '../proto/gen/containerd/events/container.ts';
import {
  NamespaceCreate,
  NamespaceDelete,
  NamespaceUpdate,
} from '../proto/gen/containerd/events/namespace.ts';
import { SnapshotCommit, SnapshotPrepare, SnapshotRemove } from '../proto/gen/containerd/events/snapshot.ts';
import { ContentDelete } from '../proto/gen/containerd/events/content.ts';
import { ImageCreate, ImageDelete, ImageUpdate } from '../proto/gen/containerd/events/image.ts';
import * as task from '../proto/gen/containerd/events/task.ts';
import { type Envelope, EventsDefinition } from '../proto/gen/containerd/services/events.ts';
import * as network from '../proto/gen/moor/events/network.ts';
import type { CallOptions, MessageType } from '../ttrpc/service.ts';
import { type Any, typeNameOf } from './any.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import { dateOf } from './timestamp.ts';

/** What is sent under each topic. */
const EVENTS = {
  '/tasks/create': task.TaskCreate,
  '/tasks/start': task.TaskStart,
  '/tasks/exit': task.TaskExit,
  '/tasks/delete': task.TaskDelete,
  '/tasks/oom': task.TaskOOM,
  '/tasks/exec-added': task.TaskExecAdded,
  '/tasks/exec-started': task.TaskExecStarted,
  '/tasks/paused': task.TaskPaused,
  '/tasks/resumed': task.TaskResumed,
  '/tasks/checkpointed': task.TaskCheckpointed,
  '/containers/create': ContainerCreate,
  '/containers/update': ContainerUpdate,
  '/containers/delete': ContainerDelete,
  '/namespaces/create': NamespaceCreate,
  '/namespaces/update': NamespaceUpdate,
  '/namespaces/delete': NamespaceDelete,
  '/images/create': ImageCreate,
  '/images/update': ImageUpdate,
  '/images/delete': ImageDelete,
  '/snapshot/prepare': SnapshotPrepare,
  '/snapshot/commit': SnapshotCommit,
  '/snapshot/remove': SnapshotRemove,
  '/content/delete': ContentDelete,
  '/moor/network/create': network.NetworkCreate,
  '/moor/network/update': network.NetworkUpdate,
  '/moor/network/delete': network.NetworkDelete,
  '/moor/network/link/create': network.LinkCreate,
  '/moor/network/link/update': network.LinkUpdate,
  '/moor/network/link/move': network.LinkMove,
  '/moor/network/link/delete': network.LinkDelete,
} as const;

type Events = typeof EVENTS;
type MessageOf<T> = T extends MessageType<infer M> ? M : never;

interface EventBase {
  readonly namespace: string;
  readonly timestamp: Date | undefined;
  /** As it came, with the timestamp in nanoseconds. */
  readonly envelope: Envelope;
}

/** An event of a topic that this client knows, decoded. */
export type KnownEvent = {
  [T in keyof Events]: EventBase & { readonly topic: T; readonly message: MessageOf<Events[T]> };
}[keyof Events];

/** Something happened. `message` is undefined for events that this client does not know. */
export type Event = KnownEvent | (EventBase & { readonly topic: `/${string}`; readonly message: undefined });

/**
 * Subscribes at once, not with the first `next`. Events of all namespaces come; a filter `namespace==default` chooses.
 * Ends when `signal` is aborted.
 */
export function subscribe(
  connection: Connection,
  headers: Headers,
  filters: readonly string[],
  options: CallOptions = {},
): AsyncIterable<Event> {
  const service = connection.service(EventsDefinition, headers);
  const envelopes = service.subscribe({ filters: [...filters] }, options);
  return { [Symbol.asyncIterator]: () => iterate(envelopes, options.signal) };
}

async function* iterate(
  envelopes: AsyncIterable<Envelope>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Event> {
  try {
    for await (const envelope of envelopes) yield eventOf(envelope);
  } catch (error) {
    if (signal?.aborted !== true) throw error;
  }
}

/** An envelope with its event decoded. */
export function eventOf(envelope: Envelope): Event {
  const { namespace, topic, event, timestamp } = envelope;
  const base = { namespace, timestamp: dateOf(timestamp), envelope };
  return { ...base, topic, message: decoded(topic, event) } as Event;
}

/** The message of a topic, when it is what the topic promises. */
function decoded(topic: string, event: Any | undefined): object | undefined {
  const type = EVENTS[topic as keyof Events] as
    (MessageType<object> & { readonly $type?: string }) | undefined;
  if (type === undefined || event === undefined) return undefined;
  return /^(?:containerd|moor)\./.test(typeNameOf(event)) ? type.decode(event.value) : undefined;
}
