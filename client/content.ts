import { type Hash, createHash } from 'node:crypto';
import {
  ContentDefinition,
  type Info as ContentInfo,
  type Status as Ingest,
  WriteAction,
  type WriteContentRequest,
} from '../proto/gen/containerd/services/content.ts';
import { Code, internal, isCode, resourceExhausted } from '../ttrpc/errors.ts';
import type { CallOptions, PartialMessage, ServiceClient } from '../ttrpc/service.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import type { Labels } from './namespace.ts';

export type { ContentInfo, Ingest };

/** Bytes of one message of a write. */
const PIECE_BYTES = 1 << 20;

/** What `readAll` takes into memory unless told otherwise: more than any manifest or configuration has. */
const DEFAULT_LIMIT_BYTES = 8 << 20;

export interface ReadOptions extends CallOptions {
  /** Where to begin, in bytes. Default: 0. */
  readonly offset?: number;
  /** How much to read, in bytes. Default: to the end. */
  readonly size?: number;
}

export interface WriteOptions extends CallOptions {
  /** The digest that the bytes must have. Default: any. */
  readonly expected?: string;
  /** How many bytes there must be. Default: any number. */
  readonly size?: number;
  /** Labels of the content. Without a lease, only labels and what refers to it keep it from the garbage collector. */
  readonly labels?: Labels;
}

export type Bytes = Uint8Array | AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** The content of a namespace: bytes by their digest. */
export class Content {
  readonly #service: ServiceClient<typeof ContentDefinition>;

  constructor(connection: Connection, headers: Headers) {
    this.#service = connection.service(ContentDefinition, headers);
  }

  /** @throws RpcError NotFound, InvalidArgument for a malformed digest */
  async info(digest: string, options?: CallOptions): Promise<ContentInfo> {
    return present((await this.#service.info({ digest }, options)).info, digest);
  }

  /** All at once; `walk` takes them as they come. @param filters alternatives: `labels."a"==b,size>1000` */
  async list(filters: readonly string[] = [], options?: CallOptions): Promise<ContentInfo[]> {
    return await Array.fromAsync(this.walk(filters, options));
  }

  /** @param filters as for `list` */
  async *walk(filters: readonly string[] = [], options?: CallOptions): AsyncGenerator<ContentInfo> {
    for await (const { info } of this.#service.list({ filters: [...filters] }, options)) yield* info;
  }

  /**
   * The bytes, in pieces, as the loop takes them; leaving it ends the reading.
   *
   * @throws RpcError NotFound, OutOfRange for an offset behind the end
   */
  async *read(digest: string, options: ReadOptions = {}): AsyncGenerator<Buffer> {
    const { offset = 0, size = 0, ...call } = options;
    const request = { digest, offset: BigInt(offset), size: BigInt(size) };
    for await (const { data } of this.#service.read(request, call)) yield data;
  }

  /**
   * The bytes as a whole.
   *
   * @param options `limit`: the most bytes to take into memory; 8 MiB unless given
   * @throws RpcError NotFound, ResourceExhausted when there are more than the limit
   */
  async readAll(digest: string, options: ReadOptions & { limit?: number } = {}): Promise<Buffer> {
    const { limit = DEFAULT_LIMIT_BYTES, ...read } = options;
    const pieces: Buffer[] = [];
    let length = 0;
    for await (const piece of this.read(digest, read)) {
      length += piece.length;
      if (length > limit) throw resourceExhausted(`content ${digest} has more than ${limit} bytes`);
      pieces.push(piece);
    }
    return Buffer.concat(pieces, length);
  }

  /**
   * Stores bytes. A write that was broken off goes on where it stopped when it is made again under the same name with the
   * same bytes. Content that is there already is no error, and gets the labels.
   *
   * @param ref names the write for as long as it lasts
   * @returns the digest
   * @throws RpcError FailedPrecondition when the bytes are not what was expected, Unavailable when another writes `ref`
   */
  async write(ref: string, bytes: Bytes, options: WriteOptions = {}): Promise<string> {
    const { expected = '', size, labels = {}, ...call } = options;
    const common = { ref, expected, total: BigInt(size ?? 0) };
    const begun = Promise.withResolvers<number>();
    // Nobody waits for it when the call fails before anything was sent.
    begun.promise.catch(() => {});
    // To know what is there already when only its end shows what it is.
    const hash = expected === '' ? createHash('sha256') : undefined;
    async function* requests(): AsyncGenerator<PartialMessage<WriteContentRequest>> {
      yield { ...common, action: WriteAction.STAT };
      let offset = await begun.promise;
      for await (const data of piecesOf(bytes, offset, hash)) {
        yield { ...common, action: WriteAction.WRITE, offset: BigInt(offset), data: Buffer.from(data) };
        offset += data.length;
      }
      yield {
        ...common,
        action: WriteAction.COMMIT,
        offset: BigInt(offset),
        total: BigInt(size ?? offset),
        labels,
      };
    }
    try {
      for await (const { action, offset, digest } of this.#service.write(requests(), call)) {
        begun.resolve(Number(offset));
        if (action === WriteAction.COMMIT) return digest;
      }
      throw internal(`the daemon did not say that ${ref} is stored`);
    } catch (error) {
      if (!isCode(error, Code.AlreadyExists)) throw error;
      const digest = hash === undefined ? expected : `sha256:${hash.digest('hex')}`;
      if (Object.keys(labels).length > 0) await this.label(digest, labels, call);
      return digest;
    } finally {
      begun.reject(new Error('the write is over'));
    }
  }

  /** Sets the given labels and leaves the others; an empty value clears one. @returns all of them */
  async label(digest: string, labels: Labels, options?: CallOptions): Promise<Labels> {
    const updateMask = Object.keys(labels).map((key) => `labels.${key}`);
    const { info } = await this.#service.update({ info: { digest, labels }, updateMask }, options);
    return present(info, digest).labels;
  }

  /** Forgets content in this namespace. @throws RpcError NotFound */
  async delete(digest: string, options?: CallOptions): Promise<void> {
    await this.#service.delete({ digest }, options);
  }

  /** How far a write has come. @throws RpcError NotFound */
  async status(ref: string, options?: CallOptions): Promise<Ingest> {
    const { status } = await this.#service.status({ ref }, options);
    if (status === undefined) throw internal(`the daemon sent no status of ${ref}`);
    return status;
  }

  /** The writes that have not been committed. @param filters alternatives: `ref~=^layer-` */
  async statuses(filters: readonly string[] = [], options?: CallOptions): Promise<Ingest[]> {
    return (await this.#service.listStatuses({ filters: [...filters] }, options)).statuses;
  }

  /** Gives up a write and what it has stored. @throws RpcError NotFound */
  async abort(ref: string, options?: CallOptions): Promise<void> {
    await this.#service.abort({ ref }, options);
  }
}

/** What comes after the first `skip` bytes, in pieces that fit into a message. */
async function* piecesOf(bytes: Bytes, skip: number, hash: Hash | undefined): AsyncGenerator<Uint8Array> {
  for await (const chunk of bytes instanceof Uint8Array ? [bytes] : bytes) {
    hash?.update(chunk);
    const known = Math.min(skip, chunk.length);
    skip -= known;
    for (let start = known; start < chunk.length; start += PIECE_BYTES) {
      yield chunk.subarray(start, start + PIECE_BYTES);
    }
  }
}

function present(info: ContentInfo | undefined, digest: string): ContentInfo {
  if (info === undefined) throw internal(`the daemon sent nothing of content ${digest}`);
  return info;
}
