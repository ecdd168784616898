import { addon } from './addon.ts';

/** What a tree of files takes: bytes of blocks on the disk, and inodes, the root's among them. */
export interface TreeUsage {
  readonly size: number;
  readonly inodes: number;
}

/**
 * What the tree at `path` takes, each inode counted once. What is mounted in it is not part of it, and what vanishes meanwhile is
 * not counted. Runs on a thread of its own.
 *
 * @param base a tree that this one began as, in the filesystem's own snapshot: what has not changed since is not counted
 * @throws the kernel's error; the signal's reason
 */
export function treeUsage(path: string, base?: string, signal?: AbortSignal): Promise<TreeUsage> {
  return run((cancel) => addon().treeUsage(path, base ?? '', cancel), signal);
}

/**
 * Removes the tree at `path`, however deep; nothing there is fine. Links are not followed, and what is mounted in it stays and fails
 * the removal. Runs on a thread of its own.
 *
 * @throws the kernel's error, EXDEV or EBUSY for a mount; the signal's reason. The tree is half gone then
 */
export async function removeTree(path: string, signal?: AbortSignal): Promise<void> {
  await run((cancel) => addon().removeTree(path, cancel), signal);
}

/**
 * Copies what is in the folder `from`, and its attributes, to the empty folder `to`: owners, modes, times, extended attributes, hard
 * links, devices, holes. Data is shared where the filesystem can (FICLONE). Runs on a thread of its own.
 *
 * @throws the kernel's error; the signal's reason. Something of it is at `to` then
 */
export async function copyTree(from: string, to: string, signal?: AbortSignal): Promise<void> {
  await run((cancel) => addon().copyTree(from, to, cancel), signal);
}

/** Runs a job of the addon, which looks at `cancel` now and then. */
export async function run<T>(start: (cancel: Uint8Array) => Promise<T>, signal?: AbortSignal): Promise<T> {
  signal?.throwIfAborted();
  const cancel = new Uint8Array(1);
  const abort = (): void => void Atomics.store(cancel, 0, 1);
  signal?.addEventListener('abort', abort, { once: true });
  try {
    return await start(cancel);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}
