import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { pipe } from '../../native/native.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import { reached } from '../failpoint.ts';
import type { Archive, Job } from './job.ts';
import { defaultLimits, type Limits } from './limits.ts';
import { ARCHIVE, checkLayerType, compressionFor } from './media-type.ts';
import { DifferPool } from './pool.ts';

/** A blob to read, as the content store opens it. */
export interface OpenBlob {
  /** A regular file; its position does not matter and is not changed. */
  readonly fd: number;
  close(): void | Promise<void>;
}

/** What an unpacked layer was. */
export interface Applied {
  /** Of the uncompressed archive. */
  readonly mediaType: string;
  /** The diff id. */
  readonly digest: string;
  /** Bytes of the uncompressed archive. */
  readonly size: number;
}

export interface ApplyOptions {
  readonly openBlob: (layer: Descriptor) => Promise<OpenBlob>;
  readonly signal?: AbortSignal;
  /** Return only when everything is on the disk. */
  readonly sync?: boolean;
}

export interface CompareOptions {
  /** The layer's type, and so its compression; gzip when empty. */
  readonly mediaType?: string;
  /** Takes the layer's bytes, one piece after the other. */
  readonly write: (piece: Buffer) => Promise<void>;
  readonly signal?: AbortSignal;
  /** Seconds since 1970 that no time in the layer is later than (SOURCE_DATE_EPOCH). */
  readonly latest?: number;
}

/** A layer that was made; its digest and size are known to who took the bytes. */
export interface Compared {
  readonly mediaType: string;
  readonly diffId: string;
}

export interface DifferOptions {
  /** An existing folder, in which nothing is ever kept: processes hang their mounts under it, each in its own view. */
  readonly folder: string;
  readonly limits?: Partial<Limits>;
  /** The program that does the work and its arguments before the folder; the one beside this file unless given. */
  readonly command?: readonly [string, ...string[]];
}

/** Unpacks layers and makes them, in processes of its own that are cut off from the host. */
export class Differ {
  readonly #pool: DifferPool;
  readonly #limits: Limits;

  constructor({ folder, limits, command }: DifferOptions) {
    this.#limits = { ...defaultLimits, ...limits };
    const [program, ...args] = command ?? ownCommand();
    this.#pool = new DifferPool([program, ...args, folder]);
  }

  /**
   * Unpacks a layer into what the mounts make. A failure leaves some of it there: the snapshot is of no use any more.
   *
   * @throws RpcError Unimplemented for what is no layer, InvalidArgument for a broken one naming the entry, ResourceExhausted beyond
   *         a limit or on a full disk, FailedPrecondition when the mounts fail, Cancelled
   */
  async apply(layer: Descriptor, mounts: readonly Mount[], options: ApplyOptions): Promise<Applied> {
    checkLayerType(layer.mediaType);
    const blob = await options.openBlob(layer);
    try {
      const job: Job = { job: 'apply', mounts, limits: this.#limits, sync: options.sync ?? false };
      const { diffId, size } = await this.#pool.run(job, blob.fd, options.signal);
      reached('layer-applied');
      return { mediaType: ARCHIVE, digest: diffId, size };
    } finally {
      await blob.close();
    }
  }

  /**
   * Makes the layer that leads from one tree to another. Equal trees give equal bytes.
   *
   * @throws RpcError Unimplemented for a media type that cannot be made, FailedPrecondition when the mounts fail or files change
   *         while they are read, Cancelled
   */
  async compare(left: readonly Mount[], right: readonly Mount[], options: CompareOptions): Promise<Compared> {
    const mediaType = options.mediaType || `${ARCHIVE}+gzip`;
    const job: Job = {
      job: 'compare',
      left,
      right,
      compression: compressionFor(mediaType),
      latest: options.latest,
    };
    const { diffId } = await this.#receive(job, options);
    return { mediaType, diffId };
  }

  /** Ends all processes; what they are doing fails. */
  async close(): Promise<void> {
    await this.#pool.close();
  }

  async #receive(job: Job, { write, signal }: CompareOptions): Promise<Archive> {
    const stop = new AbortController();
    const { read, write: end } = pipe();
    const source = new Socket({ fd: read, readable: true, writable: false });
    // The first is the cause of the other.
    const failures: unknown[] = [];
    const taking = take(source, write).catch((error: unknown) => {
      failures.push(error);
      stop.abort();
    });
    const running = this.#pool
      .run(job, end, signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]))
      .catch((error: unknown) => {
        failures.push(error);
        source.destroy();
      })
      // Only the process keeps the end that is written to, so that the pipe ends with it.
      .finally(() => closeSync(end));
    // Both: who takes the pieces may rely on none coming afterwards.
    const [archive] = await Promise.all([running, taking]);
    if (archive === undefined || failures.length > 0) throw failures[0];
    return archive;
  }
}

async function take(source: Socket, write: (piece: Buffer) => Promise<void>): Promise<void> {
  for await (const piece of source) await write(piece as Buffer);
}

/** The worker is a bundle beside the daemon's, or a source below this one. */
function ownCommand(): [string, ...string[]] {
  const isSource = import.meta.url.endsWith('.ts');
  const path = fileURLToPath(new URL(isSource ? './worker/main.ts' : './differ.js', import.meta.url));
  return [process.execPath, '--disable-warning=ExperimentalWarning', '--max-old-space-size=1024', path];
}
