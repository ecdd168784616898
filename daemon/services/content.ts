import {
  WriteAction,
  type WriteContentRequest,
  type WriteContentResponse,
} from '../../proto/gen/containerd/services/content.ts';
import { ContentDelete } from '../../proto/gen/containerd/events/content.ts';
import {
  RpcError,
  alreadyExists,
  invalidArgument,
  isCode,
  Code,
  outOfRange,
  toRpcError,
} from '../../ttrpc/errors.ts';
import type { CallContext, PartialMessage } from '../../ttrpc/service.ts';
import { type Digest, parseDigest, parseExpected } from '../content/digest.ts';
import type { Info, NamespacedContent } from '../content/namespaced-content.ts';
import type { ContentWriter, WriterStatus } from '../content/writer.ts';
import type { Exchange } from '../events/exchange.ts';
import { pack } from '../events/pack.ts';
import { leaseOf, namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import type { Namespace } from '../identifiers.ts';
import { definition } from './content-wire.ts';

/** Infos in one message of a list. */
const BLOCK = 100;

export function contentService(content: NamespacedContent, exchange: Pick<Exchange, 'publish'>): Service {
  return service(definition, {
    info: async ({ digest }, context) => ({
      info: content.info(namespaceOf(context), parseDigest(digest)),
    }),

    async update({ info: requested, updateMask = [] }, context) {
      const info = given(requested);
      parseDigest(info.digest);
      return { info: await content.update(namespaceOf(context), info, updateMask) };
    },

    async *list({ filters }, context) {
      const infos = content.list(namespaceOf(context), filters);
      for (let start = 0; start < infos.length; start += BLOCK)
        yield { info: infos.slice(start, start + BLOCK) };
    },

    async delete({ digest }, context) {
      const namespace = namespaceOf(context);
      await content.delete(namespace, parseDigest(digest), leaseOf(context));
      exchange.publish(namespace, '/content/delete', pack('ContentDelete', ContentDelete, { digest }));
      return {};
    },

    async *read({ digest, offset, size }, context) {
      await using blob = await content.openBlob(namespaceOf(context), parseDigest(digest));
      const start = Math.max(Number(offset), 0);
      if (start > blob.size) throw outOfRange(`read past object length ${blob.size} bytes`);
      const length = Number(size);
      const end = length > 0 ? Math.min(start + length, blob.size) : blob.size;
      // Counted from where the reading began, as containerd does.
      let sent = 0;
      for await (const data of blob.chunks(start, end)) {
        yield { offset: BigInt(sent), data };
        sent += data.length;
      }
    },

    async status({ ref }, context) {
      const namespace = namespaceOf(context);
      try {
        return { status: statusMessage(await content.status(namespace, ref)) };
      } catch (error) {
        const { code, message } = toRpcError(error);
        throw new RpcError(code, `could not get status for ref ${JSON.stringify(ref)}: ${message}`, {
          cause: error,
        });
      }
    },

    listStatuses: async ({ filters }, context) => ({
      statuses: (await content.statuses(namespaceOf(context), filters)).map(statusMessage),
    }),

    write: (requests, context) => write(content, requests, context),

    async abort({ ref }, context) {
      await content.abort(namespaceOf(context), ref, leaseOf(context));
      return {};
    },
  });
}

type Response = PartialMessage<WriteContentResponse>;

/** One writer, from the first message, which names what is written, to the one that commits it. */
async function* write(
  content: NamespacedContent,
  requests: AsyncIterable<WriteContentRequest>,
  context: CallContext,
): AsyncGenerator<Response, void, undefined> {
  const namespace = namespaceOf(context);
  const lease = leaseOf(context);
  let session: Session | undefined;
  try {
    for await (const request of requests) {
      session ??= await Session.open(content, namespace, lease, request, context.signal);
      yield await session.answer(request);
      if (request.action === WriteAction.COMMIT) return;
    }
  } finally {
    await session?.writer.close();
  }
}

class Session {
  readonly writer: ContentWriter;
  readonly #content: NamespacedContent;
  #total: number;
  #expected: Digest | undefined;

  private constructor(
    content: NamespacedContent,
    writer: ContentWriter,
    total: number,
    expected: Digest | undefined,
  ) {
    this.#content = content;
    this.writer = writer;
    this.#total = total;
    this.#expected = expected;
  }

  static async open(
    content: NamespacedContent,
    namespace: Namespace,
    lease: string | undefined,
    request: WriteContentRequest,
    signal: AbortSignal,
  ): Promise<Session> {
    if (request.ref === '') throw invalidArgument('first message must have a reference');
    const expected = parseExpected(request.expected);
    const total = Math.max(Number(request.total), 0);
    const writer = await content.writer(namespace, request.ref, { lease, total, expected, signal });
    return new Session(content, writer, total, expected);
  }

  async answer(request: WriteContentRequest): Promise<Response> {
    await this.#learn(request);
    switch (request.action) {
      case WriteAction.WRITE:
        return this.#write(request);
      case WriteAction.COMMIT:
        return this.#commit(request);
      case WriteAction.STAT:
        return this.#stat();
      default:
        throw invalidArgument(`unknown write action ${String(request.action)}`);
    }
  }

  /** Size and digest may be told at any time; the last word counts. */
  async #learn({ expected, total }: WriteContentRequest): Promise<void> {
    if (total > 0n) this.#total = Number(total);
    const digest = parseExpected(expected);
    if (digest === undefined) return;
    this.#expected = digest;
    const { namespace, ref, lease } = this.writer.ingest;
    if (!(await this.#content.has(namespace, digest))) return;
    // Somebody else was faster.
    await this.writer.close();
    await this.#content.abort(namespace, ref, lease).catch((error: unknown) => {
      if (!isCode(error, Code.NotFound)) throw error;
    });
    throw alreadyExists(`blob with expected digest ${digest} exists`);
  }

  #stat(): Response {
    const { offset, startedAt, updatedAt } = this.writer.status;
    const { digest } = this.writer;
    return {
      action: WriteAction.STAT,
      offset: BigInt(offset),
      total: BigInt(this.#total),
      digest,
      startedAt,
      updatedAt,
    };
  }

  async #write(request: WriteContentRequest): Promise<Response> {
    await this.#take(request);
    return { action: WriteAction.WRITE, offset: BigInt(this.writer.offset), digest: this.writer.digest };
  }

  async #commit(request: WriteContentRequest): Promise<Response> {
    await this.#take(request);
    const { labels } = request;
    const { digest, size } = await this.writer.commit({
      size: this.#total,
      expected: this.#expected,
      labels,
    });
    return { action: WriteAction.COMMIT, offset: size, digest };
  }

  /** Takes a message's bytes: at the end, or from the beginning again, which offset 0 says. */
  async #take({ offset, data }: WriteContentRequest): Promise<void> {
    const { writer } = this;
    const at = Number(offset);
    if (at > 0 && at !== writer.offset) {
      throw outOfRange(`write @${at} must occur at current offset ${writer.offset}`);
    }
    if (at === 0 && writer.offset > 0) await writer.truncate();
    await writer.write(data);
    // The answer says how much is safe with us when the client is gone.
    await writer.flush();
  }
}

function statusMessage({ ref, offset, total, startedAt, updatedAt, expected = '' as Digest }: WriterStatus) {
  return { ref, offset: BigInt(offset), total: BigInt(total), startedAt, updatedAt, expected };
}

function given(info: Info | undefined): Info {
  if (info === undefined) throw invalidArgument('info must be set: invalid argument');
  return info;
}
