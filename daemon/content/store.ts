/**
 * Content on disk: blobs by their digest, and ingests, which are blobs in the making. Knows nothing of namespaces and records.
 *
 *     blobs/<algorithm>/<hex>   whole, on the disk before it appeared here, never changed
 *     ingest/<id>/data          as far as it has come; resumed by the next writer, also of a later daemon
 */
import {
  chmod,
  constants,
  copyFile,
  mkdir,
  open,
  opendir,
  readdir,
  rename,
  rm,
  stat,
  unlink,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { reached } from '../failpoint.ts';
import { type Digest, algorithms, isDigest, splitDigest } from './digest.ts';
import { Blob } from './blob.ts';
import { IngestFile } from './ingest-file.ts';
import { RefLocks } from './ref-lock.ts';
import { isMissing, storageError } from './storage-error.ts';

/** Layers may hold secrets: nobody but the daemon looks into them. */
const MODE = 0o700;

export interface IngestProgress {
  /** Bytes that are there. */
  readonly offset: number;
  readonly updatedAt: Date;
}

export class ContentStore {
  readonly locks = new RefLocks();
  readonly #directory: string;
  /** How many are counting on a blob's file to stay while they make a record of it. */
  readonly #holds = new Map<Digest, number>();
  readonly #removals = new Map<Digest, Promise<boolean>>();

  protected constructor(directory: string) {
    this.#directory = directory;
  }

  /** @param directory made when it is not there. @throws RpcError */
  static async open(directory: string): Promise<ContentStore> {
    const store = new ContentStore(directory);
    for (const path of [join(directory, 'blobs', 'sha256'), join(directory, 'ingest')]) {
      await mkdir(path, { recursive: true, mode: MODE }).catch((error: unknown) => {
        throw storageError('make', path, error);
      });
    }
    return store;
  }

  /** Where the blob is, or would be. */
  path(digest: Digest): string {
    const { algorithm, encoded } = splitDigest(digest);
    return join(this.#directory, 'blobs', algorithm, encoded);
  }

  /** @throws RpcError NotFound that says where the blob should be */
  openBlob(digest: Digest): Promise<Blob> {
    return Blob.open(digest, this.path(digest));
  }

  /** The blob's size in bytes; undefined when there is none. */
  async size(digest: Digest): Promise<number | undefined> {
    const path = this.path(digest);
    try {
      return (await stat(path)).size;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw storageError('stat', path, error);
    }
  }

  /** Keeps a blob's file, there or not yet, from being removed until the hold is disposed of. */
  async hold(digest: Digest): Promise<Disposable> {
    for (let removal = this.#removals.get(digest); removal; removal = this.#removals.get(digest))
      await removal;
    this.#holds.set(digest, (this.#holds.get(digest) ?? 0) + 1);
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        const left = this.#holds.get(digest)! - 1;
        if (left === 0) this.#holds.delete(digest);
        else this.#holds.set(digest, left);
      },
    };
  }

  /**
   * Removes a blob's file if nothing needs it.
   *
   * @param needed whether there is a record that names it; asked when no new one can come up unseen
   * @returns false when it was kept because somebody holds it, who may yet leave it without a record
   * @throws RpcError
   */
  remove(digest: Digest, needed: () => boolean): Promise<boolean> {
    if (this.#holds.has(digest)) return Promise.resolve(false);
    if (needed()) return Promise.resolve(true);
    const running = this.#removals.get(digest);
    if (running !== undefined) return running;
    const removal = this.unlink(digest).finally(() => this.#removals.delete(digest));
    this.#removals.set(digest, removal);
    return removal;
  }

  protected async unlink(digest: Digest): Promise<boolean> {
    const path = this.path(digest);
    try {
      await unlink(path);
      reached('blob-removed');
    } catch (error) {
      if (!isMissing(error)) throw storageError('remove', path, error);
    }
    return true;
  }

  /** The digest of every blob there is. */
  async *digests(): AsyncGenerator<Digest, void, undefined> {
    for (const algorithm of algorithms) {
      const path = join(this.#directory, 'blobs', algorithm);
      const directory = await opendir(path).catch((error: unknown) => {
        if (isMissing(error)) return undefined;
        throw storageError('list', path, error);
      });
      if (directory === undefined) continue;
      for await (const { name } of directory) {
        const digest = `${algorithm}:${name}`;
        if (isDigest(digest)) yield digest;
      }
    }
  }

  /** Opens an ingest's file, whose lock the caller has. @throws RpcError */
  async openIngest(id: string, signal?: AbortSignal): Promise<IngestFile> {
    const path = this.ingestPath(id);
    await mkdir(dirname(path), { recursive: true, mode: MODE }).catch((error: unknown) => {
      throw storageError('make', dirname(path), error);
    });
    return IngestFile.open(path, signal);
  }

  /** Puts the bytes of a blob into an ingest, shared with it by file systems that can. @throws RpcError */
  async copyToIngest(digest: Digest, id: string): Promise<void> {
    const path = this.ingestPath(id);
    try {
      await mkdir(dirname(path), { recursive: true, mode: MODE });
      await copyFile(this.path(digest), path, constants.COPYFILE_FICLONE);
      await chmod(path, 0o600);
    } catch (error) {
      throw storageError('write', path, error);
    }
  }

  /** How far an ingest has come; undefined when there is no file. */
  async progress(id: string): Promise<IngestProgress | undefined> {
    const path = this.ingestPath(id);
    try {
      const { size, mtime } = await stat(path);
      return { offset: size, updatedAt: mtime };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw storageError('stat', path, error);
    }
  }

  /**
   * Makes an ingest a blob; it must be whole and synced. When the promise resolves, the blob survives a crash of the machine.
   * The caller holds the digest and has the ingest's lock.
   *
   * @throws RpcError
   */
  async promote(id: string, digest: Digest): Promise<void> {
    const target = this.path(digest);
    try {
      await rename(this.ingestPath(id), target);
      reached('blob-renamed');
      await syncDirectory(dirname(target));
    } catch (error) {
      throw storageError('write', target, error);
    }
    await this.removeIngest(id);
  }

  /** Removes what there is of an ingest, whose lock the caller has. @throws RpcError */
  async removeIngest(id: string): Promise<void> {
    const path = dirname(this.ingestPath(id));
    await rm(path, { recursive: true, force: true }).catch((error: unknown) => {
      throw storageError('remove', path, error);
    });
  }

  /** The ids of all ingests there are files of. */
  async ingests(): Promise<string[]> {
    const path = join(this.#directory, 'ingest');
    return readdir(path).catch((error: unknown) => {
      throw storageError('list', path, error);
    });
  }

  protected ingestPath(id: string): string {
    return join(this.#directory, 'ingest', id, 'data');
  }
}

/** A renamed file is only there after a crash when its directory has been synced (fsync(2)). */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
