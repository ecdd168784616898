import {
  SnapshotCommit,
  SnapshotPrepare,
  SnapshotRemove,
} from '../../proto/gen/containerd/events/snapshot.ts';
import type { Exchange } from '../events/exchange.ts';
import { pack } from '../events/pack.ts';
import type { Namespace } from '../identifiers.ts';

/** What a snapshotter tells everybody. */
export class SnapshotNews {
  readonly #snapshotter: string;
  readonly #exchange: Pick<Exchange, 'publish'>;

  constructor(snapshotter: string, exchange: Pick<Exchange, 'publish'>) {
    this.#snapshotter = snapshotter;
    this.#exchange = exchange;
  }

  prepared(namespace: Namespace, key: string, parent: string): void {
    const event = pack('SnapshotPrepare', SnapshotPrepare, { key, parent, snapshotter: this.#snapshotter });
    this.#exchange.publish(namespace, '/snapshot/prepare', event);
  }

  committed(namespace: Namespace, key: string, name: string): void {
    const event = pack('SnapshotCommit', SnapshotCommit, { key, name, snapshotter: this.#snapshotter });
    this.#exchange.publish(namespace, '/snapshot/commit', event);
  }

  removed(namespace: Namespace, key: string): void {
    const event = pack('SnapshotRemove', SnapshotRemove, { key, snapshotter: this.#snapshotter });
    this.#exchange.publish(namespace, '/snapshot/remove', event);
  }
}
