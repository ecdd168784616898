/**
 * What the daemon and its unpacking processes say to each other: one JSON object a line, requests on the process's stdin,
 * answers on its stdout. The file that a job reads or writes is sent before it over the socket that is descriptor 3.
 */
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import type { Limits } from './limits.ts';

/** Unpack the layer in the file into what the mounts make. */
export interface ApplyJob {
  readonly job: 'apply';
  readonly mounts: readonly Mount[];
  readonly limits: Limits;
  /** Answer only when everything is on the disk. */
  readonly sync: boolean;
}

/** Write into the file, a pipe, the layer that leads from `left` to `right`. */
export interface CompareJob {
  readonly job: 'compare';
  readonly left: readonly Mount[];
  readonly right: readonly Mount[];
  readonly compression: Compression;
  /** Seconds since 1970 that no time in the layer is later than (SOURCE_DATE_EPOCH). */
  readonly latest?: number;
}

export type Compression = 'none' | 'gzip' | 'zstd';
export type Job = ApplyJob | CompareJob;

/** The tar archive inside the layer: its digest is the layer's diff id. */
export interface Archive {
  readonly diffId: string;
  /** Bytes. */
  readonly size: number;
}

export type Answer =
  { readonly done: Archive } | { readonly failed: { readonly code: number; readonly message: string } };

/**
 * Reads a line from the other side.
 *
 * @throws Error when it is no answer
 */
export function parseAnswer(line: string): Answer {
  const value = JSON.parse(line) as {
    done?: Partial<Archive>;
    failed?: { code?: unknown; message?: unknown };
  };
  const { done, failed } = value;
  if (typeof done?.diffId === 'string' && typeof done.size === 'number') {
    return { done: { diffId: done.diffId, size: done.size } };
  }
  if (typeof failed?.code === 'number' && typeof failed.message === 'string') {
    return { failed: { code: failed.code, message: failed.message } };
  }
  throw new Error(`not an answer: ${line.slice(0, 200)}`);
}

/**
 * Reads a line from the other side, which is the daemon and sends what it has checked: only that it is one of the two is made
 * sure here.
 *
 * @throws Error when it is no job
 */
export function parseJob(line: string): Job {
  const value = JSON.parse(line) as Partial<Job>;
  if (value.job === 'apply' && Array.isArray(value.mounts) && value.limits !== undefined)
    return value as ApplyJob;
  if (value.job === 'compare' && Array.isArray(value.left) && Array.isArray(value.right))
    return value as CompareJob;
  throw new Error(`not a job: ${line.slice(0, 200)}`);
}
