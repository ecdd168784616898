import type { Kind, Mount, Usage } from './snapshotter.ts';

/** A snapshot as its backend knows it: numbers, which are unique among all namespaces and never given again. */
export interface Place {
  readonly id: number;
  readonly kind: Kind;
  /** Of the committed snapshots below it, its parent first. */
  readonly ancestors: readonly number[];
}

/**
 * Keeps the files of snapshots, and knows nothing of their names. Everything of a snapshot is in the folder of its number in the
 * root, so that a folder whose number no record has is what a crash or a removal has left, and can go.
 */
export interface Backend {
  readonly root: string;

  /** Makes the files of an active snapshot or a view. When it fails, what it has made is left behind. */
  create(place: Place, signal?: AbortSignal): Promise<void>;

  /** Mounts for an active snapshot or a view. */
  mounts(place: Place): Mount[];

  /** Labels that clients see beside those they have given. */
  labels?(place: Place): { readonly [key: string]: string };

  /** What an active snapshot takes beside its ancestors. */
  usage(place: Place, signal?: AbortSignal): Promise<Usage>;

  /** Makes sure that a committed snapshot is not written to any more. Can be repeated. */
  seal?(id: number): Promise<void>;

  /** Whether the snapshot has a folder of its own. */
  hasFolder(place: Place): boolean;

  /** Removes what there is of a snapshot; nothing is fine. Can be repeated after it failed. */
  remove(id: number, signal?: AbortSignal): Promise<void>;
}
