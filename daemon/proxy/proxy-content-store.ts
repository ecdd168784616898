/**
 * A content store whose blobs another process has. What is being written lies here until it is whole, so that it is resumed, checked
 * and locked as always, and is sent over then; what is read comes over into a file that nobody sees, since layers are unpacked from
 * files. Which blobs a namespace has is the daemon's affair.
 */
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  ContentDefinition,
  WriteAction,
  type WriteContentRequest,
} from '../../proto/gen/containerd/services/content.ts';
import { Code, dataLoss, isCode, unknown } from '../../ttrpc/errors.ts';
import type { CallOptions, PartialMessage, ServiceClient } from '../../ttrpc/service.ts';
import { Blob } from '../content/blob.ts';
import type { Digest } from '../content/digest.ts';
import { storageError } from '../content/storage-error.ts';
import { ContentStore } from '../content/store.ts';
import type { PluginConnection } from './plugin-connection.ts';

/** Blobs belong to no namespace, but a call has to come from one. */
const NAMESPACE = 'default';
const PIECE = 1 << 20;

export class ProxyContentStore extends ContentStore {
  readonly #plugin: PluginConnection;
  readonly #remote: ServiceClient<typeof ContentDefinition>;
  readonly #spool: string;

  private constructor(directory: string, plugin: PluginConnection) {
    super(directory);
    this.#plugin = plugin;
    this.#remote = plugin.service(ContentDefinition);
    this.#spool = join(directory, 'spool');
  }

  /** @param directory for what is on its way, made when it is not there. @throws RpcError */
  static async openProxy(directory: string, plugin: PluginConnection): Promise<ProxyContentStore> {
    const store = new ProxyContentStore(directory, plugin);
    for (const path of [store.#spool, join(directory, 'ingest')]) {
      await mkdir(path, { recursive: true, mode: 0o700 }).catch((error: unknown) => {
        throw storageError('make', path, error);
      });
    }
    // What was coming over when an earlier daemon ended.
    for (const name of await readdir(store.#spool)) await rm(join(store.#spool, name), { force: true });
    return store;
  }

  override path(digest: Digest): string {
    return `${this.#plugin.name}:${digest}`;
  }

  override async openBlob(digest: Digest): Promise<Blob> {
    const path = join(this.#spool, randomUUID());
    try {
      await this.#fetch(digest, path);
      return await Blob.open(digest, path);
    } finally {
      await rm(path, { force: true });
    }
  }

  override async size(digest: Digest): Promise<number | undefined> {
    try {
      const { info } = await this.#quick((options) => this.#remote.info({ digest }, options));
      return Number(info!.size);
    } catch (error) {
      if (isCode(error, Code.NotFound)) return undefined;
      throw error;
    }
  }

  /** Nothing: what else is there may be somebody else's. */
  override async *digests(): AsyncGenerator<Digest, void, undefined> {}

  override async copyToIngest(digest: Digest, id: string): Promise<void> {
    const path = this.ingestPath(id);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await this.#fetch(digest, path);
  }

  override async promote(id: string, digest: Digest): Promise<void> {
    await this.#work(async (options) => {
      // The digest names the bytes, so that a part that is there already is the same.
      const sent = this.#sent(this.ingestPath(id), digest, await this.#begun(digest));
      try {
        for await (const { action, digest: found } of this.#remote.write(sent, options)) {
          if (action !== WriteAction.COMMIT) continue;
          if (found === digest) return;
          throw dataLoss(`plugin ${this.#plugin.name}: has ${found} for ${digest}`);
        }
        throw unknown(`plugin ${this.#plugin.name}: does not say that it has ${digest}`);
      } catch (error) {
        if (!isCode(error, Code.AlreadyExists)) throw error;
      }
    });
    await this.removeIngest(id);
  }

  protected override async unlink(digest: Digest): Promise<boolean> {
    try {
      await this.#quick((options) => this.#remote.delete({ digest }, options));
    } catch (error) {
      if (!isCode(error, Code.NotFound)) throw error;
    }
    return true;
  }

  /** How much of it the plugin has from an attempt before. */
  async #begun(digest: Digest): Promise<number> {
    try {
      const { status } = await this.#quick((options) => this.#remote.status({ ref: refOf(digest) }, options));
      return Number(status?.offset ?? 0n);
    } catch (error) {
      if (isCode(error, Code.NotFound)) return 0;
      throw error;
    }
  }

  async *#sent(
    file: string,
    digest: Digest,
    start: number,
  ): AsyncGenerator<PartialMessage<WriteContentRequest>> {
    const ref = refOf(digest);
    let offset = start;
    for await (const data of createReadStream(file, { start, highWaterMark: PIECE })) {
      yield { action: WriteAction.WRITE, ref, offset: BigInt(offset), data: data as Buffer };
      offset += (data as Buffer).length;
    }
    yield {
      action: WriteAction.COMMIT,
      ref,
      offset: BigInt(offset),
      total: BigInt(offset),
      expected: digest,
    };
  }

  async #fetch(digest: Digest, path: string): Promise<void> {
    await this.#work(async (options) => {
      const file = await open(path, 'w', 0o600);
      try {
        for await (const { data } of this.#remote.read({ digest }, options)) await file.writeFile(data);
      } finally {
        await file.close();
      }
    });
  }

  #quick<T>(action: (options: CallOptions) => Promise<T>): Promise<T> {
    return this.#plugin.quick({ namespace: NAMESPACE }, action);
  }

  #work<T>(action: (options: CallOptions) => Promise<T>): Promise<T> {
    return this.#plugin.work({ namespace: NAMESPACE }, action);
  }
}

const refOf = (digest: Digest): string => `moor-${digest}`;
