/**
 * What kubelet is told of containers as it happens (`GetContainerEvents`). Events follow from the records: what a record becomes is told
 * when it has been stored, so that who asks upon an event finds what the event says.
 */
import { Readable } from 'node:stream';
import { type ContainerEventResponse, ContainerEventType } from '../../proto/gen/runtime/v1/api.ts';
import { resourceExhausted } from '../../ttrpc/errors.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import { statusOf as containerStatusOf } from './container-view.ts';
import type { Calls, Cri } from './cri.ts';
import { type Pod, type PodContainer, isListed } from './pod.ts';
import { now } from './pod-life.ts';
import { statusOf } from './sandbox.ts';

type Event = PartialMessage<ContainerEventResponse>;
/** An event as it waits for a subscriber: the records as they were then. */
interface Happened {
  readonly containerId: string;
  readonly type: ContainerEventType;
  readonly at: bigint;
  readonly pod: Pod | undefined;
  readonly containers: readonly PodContainer[];
}

type State = NonNullable<Pod['state']>['$case'] | NonNullable<PodContainer['state']>['$case'] | undefined;

/** What waits for one subscriber at most. Kubelet lists everything anew when its stream breaks off. */
const MAX_WAITING = 10_000;

const { CONTAINER_CREATED_EVENT, CONTAINER_STARTED_EVENT, CONTAINER_STOPPED_EVENT, CONTAINER_DELETED_EVENT } =
  ContainerEventType;

export class ContainerEvents {
  readonly #cri: Pick<Cri, 'pods' | 'containersOf' | 'images' | 'closing'>;
  readonly #subscribers = new Set<Readable>();

  constructor(cri: Pick<Cri, 'pods' | 'containers' | 'containersOf' | 'images' | 'closing'>) {
    this.#cri = cri;
    cri.pods.watch((pod, before) => {
      const { id } = (pod ?? before)!;
      // The pod's own process counts as a container of it, as kubelet expects.
      this.#tell(id, pod ?? before, eventsBetween(stateOf(before), stateOf(pod)));
    });
    cri.containers.watch((container, before) => {
      const { id, podId } = (container ?? before)!;
      this.#tell(id, cri.pods.find(podId), eventsBetween(stateOf(before), stateOf(container)));
    });
  }

  /** Everything from now on, until the signal. A reader that does not keep up is told so, by ResourceExhausted. */
  async *subscribe(signal: AbortSignal): AsyncGenerator<Event, void, undefined> {
    const stream = new Readable({ objectMode: true, highWaterMark: MAX_WAITING, read: () => undefined });
    const ending = AbortSignal.any([signal, this.#cri.closing]);
    const end = (): void => void stream.push(null);
    this.#subscribers.add(stream);
    ending.addEventListener('abort', end, { once: true });
    if (ending.aborted) end();
    try {
      for await (const happened of stream) yield await this.#eventOf(happened as Happened);
    } finally {
      ending.removeEventListener('abort', end);
      this.#subscribers.delete(stream);
      stream.destroy();
    }
  }

  #tell(containerId: string, pod: Pod | undefined, types: readonly ContainerEventType[]): void {
    if (this.#subscribers.size === 0 || types.length === 0) return;
    const containers = this.#cri.containersOf(pod?.id ?? '').filter(isListed);
    for (const type of types) {
      const happened: Happened = { containerId, type, at: now(), pod, containers };
      for (const stream of this.#subscribers) push(stream, happened);
    }
  }

  async #eventOf({ containerId, type, at, pod, containers }: Happened): Promise<Event> {
    const images = await this.#cri.images.byId();
    return {
      containerId,
      containerEventType: type,
      createdAt: at,
      podSandboxStatus: pod && statusOf(pod),
      containersStatuses: containers.map((container) => containerStatusOf(container, images)),
    };
  }
}

function push(stream: Readable, happened: Happened): void {
  if (stream.readableEnded || stream.destroyed || stream.push(happened)) return;
  stream.destroy(resourceExhausted(`the subscriber does not keep up: ${MAX_WAITING} events wait for it`));
}

function stateOf(record: Pod | PodContainer | undefined): State {
  return record?.state?.$case;
}

/** What has happened to a record; nothing to one that was never seen. */
export function eventsBetween(before: State, state: State): ContainerEventType[] {
  const wasSeen = before !== undefined && before !== 'making';
  if (state === undefined) return wasSeen ? [CONTAINER_DELETED_EVENT] : [];
  const events: ContainerEventType[] = [];
  if (!wasSeen && state !== 'making') events.push(CONTAINER_CREATED_EVENT);
  if (isAlive(state) && !isAlive(before)) events.push(CONTAINER_STARTED_EVENT);
  if (isAlive(before) && !isAlive(state)) events.push(CONTAINER_STOPPED_EVENT);
  return events;
}

function isAlive(state: State): boolean {
  return state === 'ready' || state === 'running';
}

export function eventCalls(cri: Cri): Calls<'getContainerEvents'> {
  return { getContainerEvents: (_request, { signal }) => cri.events.subscribe(signal) };
}
