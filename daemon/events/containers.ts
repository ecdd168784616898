/** What subscribers are told of containers. */
import {
  ContainerCreate,
  ContainerDelete,
  ContainerUpdate,
} from '../../proto/gen/containerd/events/container.ts';
import type { Container } from '../../proto/gen/containerd/services/containers.ts';
import type { Exchange } from './exchange.ts';
import { pack } from './pack.ts';

type Publisher = Pick<Exchange, 'publish'>;

export const CONTAINER_UPDATE_TOPIC = '/containers/update';
export const CONTAINER_DELETE_TOPIC = '/containers/delete';

export function announceCreation(exchange: Publisher, namespace: string, container: Container): void {
  const { id, image, runtime } = container;
  const event = pack('ContainerCreate', ContainerCreate, { id, image, runtime });
  exchange.publish(namespace, '/containers/create', event);
}

export function announceUpdate(exchange: Publisher, namespace: string, container: Container): void {
  const { id, image, labels, snapshotKey } = container;
  const event = pack('ContainerUpdate', ContainerUpdate, { id, image, labels, snapshotKey });
  exchange.publish(namespace, CONTAINER_UPDATE_TOPIC, event);
}

export function announceDeletion(exchange: Publisher, namespace: string, id: string): void {
  exchange.publish(namespace, CONTAINER_DELETE_TOPIC, pack('ContainerDelete', ContainerDelete, { id }));
}
