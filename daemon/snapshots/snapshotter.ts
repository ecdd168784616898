/**
 * Snapshots: the trees of files that containers run in, made of layers. Every snapshot but the lowest has a parent, whose files it
 * begins with. An active one is written to, then committed, after which it never changes and can be a parent itself; a view shows
 * its parent and cannot be written to. All three kinds share one space of keys within a namespace.
 */
import type { Info } from '../../proto/gen/containerd/services/snapshots.ts';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import type { Namespace } from '../identifiers.ts';

export { type Info, Kind } from '../../proto/gen/containerd/services/snapshots.ts';
export type { Mount } from '../../proto/gen/containerd/types/mount.ts';

/** The one that clients get who name none. */
export const DEFAULT_SNAPSHOTTER = 'overlayfs';

/** Bytes on disk and inodes that a snapshot takes, its ancestors' not among them. */
export interface Usage {
  readonly size: bigint;
  readonly inodes: bigint;
}

/** What a snapshot is created with, beside its key. */
export interface Creation {
  readonly labels?: { readonly [key: string]: string };
  /** Holds what is created. */
  readonly lease?: string | undefined;
  /** Ends what takes long. */
  readonly signal?: AbortSignal;
}

/** Errors are RpcErrors; ResourceExhausted says that the disk is full. */
export interface Snapshotter {
  readonly name: string;

  /** @throws RpcError NotFound */
  stat(namespace: Namespace, key: string): Info;

  /** The snapshots that any of the filters selects, by key. @throws RpcError InvalidArgument for a filter that cannot be read */
  list(namespace: Namespace, filters?: readonly string[]): Info[];

  /**
   * Creates an active snapshot with the files of its parent, of none when that is empty. When this returns, it is there also after
   * a crash.
   *
   * @returns what to mount to see and change it
   * @throws RpcError AlreadyExists for the key, and for a snapshot of the name in the label `containerd.io/snapshot.ref`; NotFound
   *         for the parent or the lease; InvalidArgument for a parent that is not committed
   */
  prepare(namespace: Namespace, key: string, parent: string, creation?: Creation): Promise<Mount[]>;

  /** Creates a view of the parent. Otherwise as `prepare`. */
  view(namespace: Namespace, key: string, parent: string, creation?: Creation): Promise<Mount[]>;

  /** What to mount to see the snapshot. @throws RpcError NotFound, FailedPrecondition for a committed one */
  mounts(namespace: Namespace, key: string, signal?: AbortSignal): Promise<Mount[]>;

  /**
   * Makes the active snapshot `key` the committed one `name`, with the labels given here and no others.
   *
   * @throws RpcError NotFound, AlreadyExists for the name, FailedPrecondition for a key that is not active
   */
  commit(namespace: Namespace, name: string, key: string, creation?: Creation): Promise<void>;

  /**
   * Changes labels: those that the paths (`labels.KEY`) name, or all of them for the path `labels` and for none.
   *
   * @throws RpcError NotFound, InvalidArgument for another path
   */
  update(namespace: Namespace, info: Info, paths?: readonly string[]): Promise<Info>;

  /** What a snapshot takes: measured now for an active one, by its files. @throws RpcError NotFound */
  usage(namespace: Namespace, key: string, signal?: AbortSignal): Promise<Usage>;

  /**
   * Removes a snapshot. Its files go in the background.
   *
   * @throws RpcError NotFound, FailedPrecondition when it has children
   */
  remove(namespace: Namespace, key: string, lease?: string): Promise<void>;

  /** Resolves when the files of everything that was removed before are gone, as far as the disk allows. */
  cleanup(): Promise<void>;

  close(): Promise<void>;
}
