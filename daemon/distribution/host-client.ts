/** One host of a registry: its requests with what it wants to be shown, and its failures in our terms. */
import { Code, type RpcError } from '../../ttrpc/errors.ts';
import { Authorizer, type CredentialSource } from './auth.ts';
import type { Host } from './hosts.ts';
import { RegistryError, type RetryPolicy, parseRetryAfter } from './retry.ts';
import { type Answer, type Call, type Headers, type Trace, Transport, describe } from './transport.ts';

export interface HostRequest extends Omit<Call, 'url' | 'headers'> {
  /** Below the API's prefix, or an address that the host has given. */
  readonly path: string | URL;
  readonly headers?: Headers;
  readonly query?: { readonly [name: string]: string };
  readonly scopes: readonly string[];
}

/** Bytes of an error's text that are read. */
const MAX_ERROR = 16 << 10;

export class HostClient {
  readonly host: Host;
  readonly #headers: Headers;
  readonly #transport: Transport;
  readonly #authorizer: Authorizer;

  constructor(
    host: Host,
    headers: Headers,
    credentials: CredentialSource | undefined,
    retries: RetryPolicy,
    trace?: Trace,
  ) {
    this.host = host;
    this.#headers = { ...headers, ...host.headers };
    this.#transport = new Transport(host.tls, trace);
    this.#authorizer = new Authorizer(new URL(host.base).host, credentials, this.#transport, retries);
  }

  /**
   * Sends a request, authorized as the host wants it.
   *
   * @param accepted statuses that are not failures
   * @throws RegistryError, NotFound among them; what the signal was aborted with
   */
  async send(request: HostRequest, accepted: readonly number[]): Promise<Answer> {
    for (let attempt = 0; ; attempt += 1) {
      const call = this.#call(request);
      const answer = await this.#transport.send(call);
      const sameHost = answer.url.origin === call.url.origin;
      // A body that is a stream cannot be sent again; who streams has been authorized before.
      const isRepeatable = request.body === undefined || Buffer.isBuffer(request.body);
      if (answer.status === 401 && sameHost && isRepeatable && attempt < 2) {
        answer.body.destroy();
        await this.#authorizer.meet(answer, request.scopes, call.headers['authorization'], request.signal);
        continue;
      }
      if (accepted.includes(answer.status)) return answer;
      throw await failureOf(call, answer);
    }
  }

  #call({ path, query = {}, scopes, headers = {}, ...rest }: HostRequest): Call {
    const url = typeof path === 'string' ? new URL(`${this.host.base}/${path}`) : new URL(path);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    const { mirrorOf, base } = this.host;
    // A mirror of several registries has to know which one is meant.
    if (mirrorOf !== undefined && new URL(base).host !== mirrorOf && rest.method !== 'PUT')
      url.searchParams.set('ns', mirrorOf);
    const isOwn = url.origin === new URL(base).origin;
    const shown = isOwn ? { ...this.#headers, ...this.#authorizer.headers(scopes) } : {};
    return { ...rest, url, headers: { 'user-agent': 'moor', ...shown, ...headers } };
  }

  close(): Promise<void> {
    return this.#transport.close();
  }
}

/** An answer that is none of those hoped for. */
async function failureOf(call: Call, answer: Answer): Promise<RpcError> {
  const { status } = answer;
  const told = call.method === 'HEAD' ? '' : await errorText(answer);
  // Not imported: for an import Node looks at all that the module exports, and loads its own fetch and WebSocket by that.
  const { STATUS_CODES } = process.getBuiltinModule('node:http');
  const meaning = told === '' ? STATUS_CODES[status]?.toLowerCase() : told;
  const message = `${describe(call)}: status ${status}${meaning === undefined ? '' : `: ${meaning}`}`;
  const retryAfter = parseRetryAfter(answer.headers['retry-after']);
  if (call.method === 'HEAD') answer.body.destroy();
  return new RegistryError(codeOf(status), message, { status, isTransient: isTransient(status), retryAfter });
}

function isTransient(status: number): boolean {
  return status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505);
}

function codeOf(status: number): Code {
  switch (status) {
    case 401:
      return Code.Unauthenticated;
    case 403:
      return Code.PermissionDenied;
    case 404:
    case 410:
      return Code.NotFound;
    case 429:
      return Code.Unavailable;
    default:
      return status >= 500 ? Code.Unavailable : Code.Unknown;
  }
}

/** What the registry says of its failure (distribution-spec, "Error Codes"), made safe to print. */
async function errorText({ body }: Answer): Promise<string> {
  const pieces: Buffer[] = [];
  let size = 0;
  try {
    for await (const piece of body as AsyncIterable<Buffer>) {
      pieces.push(piece);
      size += piece.length;
      if (size > MAX_ERROR) break;
    }
    const { errors = [] } = JSON.parse(Buffer.concat(pieces).toString()) as {
      errors?: { code?: string; message?: string }[];
    };
    const texts = errors.map(({ code = '', message = '' }) => `${code}: ${message}`).join('; ');
    return texts.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 512);
  } catch {
    return '';
  } finally {
    body.destroy();
  }
}
