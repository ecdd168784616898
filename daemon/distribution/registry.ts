/** A repository of a registry, at whichever of its hosts answers (distribution-spec). */
import { createHash } from 'node:crypto';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Code, dataLoss, failedPrecondition, isCode, messageOf, toRpcError } from '../../ttrpc/errors.ts';
import { type Digest, isDigest, sha256Digest } from '../content/digest.ts';
import type { CredentialSource } from './auth.ts';
import { HostClient, type HostRequest } from './host-client.ts';
import { type Capability, type HostOptions, hostsOf } from './hosts.ts';
import { ACCEPT, isManifestKind } from './media-types.ts';
import { type Reference, nameOf, objectOf } from './reference.ts';
import { RegistryError, type RetryPolicy, defaultRetries, withRetries } from './retry.ts';
import type { Answer, Headers, Trace } from './transport.ts';

export interface RegistryOptions extends HostOptions {
  readonly credentials?: CredentialSource | undefined;
  readonly headers?: Headers;
  readonly retries?: RetryPolicy;
  readonly trace?: Trace | undefined;
}

/** Bytes of a manifest at most, as other clients have it. */
export const MAX_MANIFEST = 4 << 20;

/** Content as it arrives. */
export interface Opened {
  /** Where the bytes begin: at the offset asked for, or at 0 when the registry knows no ranges. */
  readonly offset: number;
  readonly body: AsyncIterable<Buffer>;
}

export class Registry implements AsyncDisposable {
  readonly reference: Reference;
  readonly retries: RetryPolicy;
  readonly #clients: readonly HostClient[];

  private constructor(reference: Reference, clients: readonly HostClient[], retries: RetryPolicy) {
    this.reference = reference;
    this.#clients = clients;
    this.retries = retries;
  }

  /** @throws RpcError InvalidArgument for a broken `hosts.toml` */
  static async open(reference: Reference, options: RegistryOptions = {}): Promise<Registry> {
    const { credentials, headers = {}, retries = defaultRetries, trace } = options;
    const hosts = await hostsOf(reference.host, options);
    const clients = hosts.map((host) => new HostClient(host, headers, credentials, retries, trace));
    return new Registry(reference, clients, retries);
  }

  /**
   * Finds out what the reference names.
   *
   * @throws RegistryError, NotFound among them; DataLoss for an answer that contradicts the digest asked for
   */
  resolve(signal?: AbortSignal): Promise<Descriptor> {
    const object = objectOf(this.reference);
    const path = `${this.reference.repository}/manifests/${object}`;
    return this.#anyHost('resolve', signal, async (client) => {
      const request = { path, headers: { accept: ACCEPT }, scopes: this.scopes('pull'), signal };
      const head = await client.send({ ...request, method: 'HEAD' }, [200, 405]);
      head.body.destroy();
      const seen = head.status === 200 ? descriptorOf(head, this.reference.digest) : undefined;
      if (seen !== undefined) return checked(seen, this.reference, object);
      const answer = await client.send({ ...request, method: 'GET' }, [200]);
      const bytes = await whole(answer);
      const found = descriptorFrom(answer, bytes);
      return checked(found, this.reference, object);
    });
  }

  /**
   * Opens a manifest or a blob. Breaks of the connection while the body is read are the reader's to deal with.
   *
   * @throws RegistryError
   */
  open(descriptor: Descriptor, offset: number, signal?: AbortSignal): Promise<Opened> {
    const kind = isManifestKind(descriptor.mediaType) ? 'manifests' : 'blobs';
    const path = `${this.reference.repository}/${kind}/${descriptor.digest}`;
    const headers: Headers = {
      accept: `${descriptor.mediaType}, */*`,
      // Ranges are of the bytes as they are stored.
      'accept-encoding': 'identity',
      ...(offset > 0 && { range: `bytes=${offset}-` }),
    };
    return this.#anyHost('pull', signal, async (client) => {
      const request = { method: 'GET', path, headers, scopes: this.scopes('pull'), signal } as const;
      const answer = await client.send(request, [200, 206, 416]);
      if (answer.status === 416) {
        answer.body.destroy();
        throw new RegistryError(
          Code.OutOfRange,
          `${path}: the registry has less than ${offset} bytes of it`,
          {
            status: 416,
          },
        );
      }
      return { offset: startOf(answer, offset), body: answer.body };
    });
  }

  /**
   * Finds content by its digest, of whatever kind: a blob, or else a manifest.
   *
   * @throws RegistryError, NotFound among them
   */
  find(digest: Digest, signal?: AbortSignal): Promise<Descriptor> {
    return this.#anyHost('pull', signal, async (client) => {
      const look = async (kind: string, accept: string, accepted: readonly number[]): Promise<Answer> => {
        const path = `${this.reference.repository}/${kind}/${digest}`;
        const scopes = this.scopes('pull');
        const answer = await client.send(
          { method: 'HEAD', path, headers: { accept }, scopes, signal },
          accepted,
        );
        answer.body.destroy();
        return answer;
      };
      const blob = await look('blobs', '*/*', [200, 404]);
      const answer = blob.status === 200 ? blob : await look('manifests', ACCEPT, [200]);
      const size = Number(answer.headers['content-length'] ?? -1);
      if (!(size >= 0)) throw dataLoss(`${answer.url.origin}: it does not say how long ${digest} is`);
      return { mediaType: typeOf(answer), digest, size: BigInt(size), annotations: {} };
    });
  }

  /** The host that is pushed to: the first that may be. @throws RpcError FailedPrecondition */
  get pushHost(): HostClient {
    const client = this.#clients.find(({ host }) => host.capabilities.has('push'));
    if (client === undefined) throw failedPrecondition(`no host of ${this.reference.host} may be pushed to`);
    return client;
  }

  /**
   * Sends one request to the host that is pushed to, again if that may help.
   *
   * @param options another repository that is read for it; how often it is sent at most, if not as often as anything is
   */
  push(
    request: Omit<HostRequest, 'scopes'>,
    accepted: readonly number[],
    { from, attempts = this.retries.attempts }: { from?: string; attempts?: number | undefined } = {},
  ): Promise<Answer> {
    const scopes = [...this.scopes('pull,push'), ...(from === undefined ? [] : [`repository:${from}:pull`])];
    const client = this.pushHost;
    const retries = { ...this.retries, attempts };
    return withRetries(retries, request.signal, () => client.send({ ...request, scopes }, accepted));
  }

  scopes(actions: string): string[] {
    return [`repository:${this.reference.repository}:${actions}`];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()));
  }

  async #anyHost<T>(
    capability: Capability,
    signal: AbortSignal | undefined,
    action: (client: HostClient) => Promise<T>,
  ): Promise<T> {
    const failures: Error[] = [];
    const clients = this.#clients.filter(({ host }) => host.capabilities.has(capability));
    for (const [index, client] of clients.entries()) {
      // A mirror that does not answer is passed over: the next host may be well.
      const retries = index < clients.length - 1 ? { ...this.retries, attempts: 1 } : this.retries;
      try {
        return await withRetries(retries, signal, () => action(client));
      } catch (error) {
        signal?.throwIfAborted();
        failures.push(toRpcError(error));
      }
    }
    const last = failures.at(-1);
    if (last === undefined)
      throw failedPrecondition(`no host of ${this.reference.host} may be asked to ${capability}`);
    if (!isCode(last, Code.NotFound) || failures.length === 1) throw last;
    const telling = failures.find((failure) => !isCode(failure, Code.NotFound));
    throw telling ?? last;
  }
}

function startOf(answer: Answer, offset: number): number {
  if (answer.status === 200) return 0;
  const range = /^bytes (\d+)-/.exec(answer.headers['content-range'] ?? '');
  if (range !== null && Number(range[1]) === offset) return offset;
  answer.body.destroy();
  throw dataLoss(`${answer.url.origin}: answered with another range than was asked for`);
}

function typeOf({ headers }: Answer): string {
  return (headers['content-type'] ?? '').split(';')[0]!.trim();
}

function descriptorOf(answer: Answer, known: Digest | undefined): Descriptor | undefined {
  const told = answer.headers['docker-content-digest'];
  const digest = typeof told === 'string' && isDigest(told) ? told : known;
  const size = Number(answer.headers['content-length'] ?? -1);
  if (digest === undefined || !(size > 0)) return undefined;
  const mediaType = typeOf(answer);
  return mediaType === '' ? undefined : { mediaType, digest, size: BigInt(size), annotations: {} };
}

async function whole(answer: Answer): Promise<Buffer> {
  const tooLarge = (): Error =>
    failedPrecondition(`${answer.url.origin}: a manifest has more than ${MAX_MANIFEST} bytes`);
  if (Number(answer.headers['content-length'] ?? 0) > MAX_MANIFEST) {
    answer.body.destroy();
    throw tooLarge();
  }
  const pieces: Buffer[] = [];
  let size = 0;
  try {
    for await (const piece of answer.body as AsyncIterable<Buffer>) {
      size += piece.length;
      if (size > MAX_MANIFEST) throw tooLarge();
      pieces.push(piece);
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && typeof error.code === 'number') throw error;
    throw new RegistryError(Code.Unavailable, `${answer.url.origin}: ${messageOf(error)}`, {
      isTransient: true,
      cause: error,
    });
  }
  return Buffer.concat(pieces);
}

function descriptorFrom(answer: Answer, bytes: Buffer): Descriptor {
  const digest = sha256Digest(createHash('sha256').update(bytes).digest('hex'));
  return { mediaType: typeOf(answer), digest, size: BigInt(bytes.length), annotations: {} };
}

function checked(found: Descriptor, reference: Reference, object: string): Descriptor {
  if (reference.digest !== undefined && found.digest !== reference.digest)
    throw dataLoss(`${nameOf(reference)}: asked for ${object}, the registry answered with ${found.digest}`);
  if (Number(found.size) > MAX_MANIFEST)
    throw failedPrecondition(`${nameOf(reference)}: a manifest of ${found.size} bytes is too large`);
  return found;
}
