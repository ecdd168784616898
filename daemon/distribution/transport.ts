/** HTTP to one registry host: connections, their TLS, redirects. */
import { type SecureContext, createSecureContext, getCACertificates } from 'node:tls';
import type { IncomingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import type { Agent, Dispatcher, buildConnector } from 'undici';
import { Code, messageOf } from '../../ttrpc/errors.ts';
import { RegistryError, connectionError } from './retry.ts';

export interface Tls {
  readonly ca: readonly Buffer[];
  readonly client: readonly { readonly cert: Buffer; readonly key: Buffer }[];
  readonly skipVerify: boolean;
}

export interface Headers {
  readonly [name: string]: string;
}

export interface Call {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly url: URL;
  readonly headers: Headers;
  readonly body?: Buffer | Readable;
  readonly signal?: AbortSignal | undefined;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** To be read to its end or destroyed. */
  readonly body: Readable;
  /** Where the answer came from, after redirects. */
  readonly url: URL;
}

/** Is told of every exchange, for whoever looks for what is wrong with a registry. */
export type Trace = (exchange: Exchange) => void;

export interface Exchange {
  /** `GET https://registry.example/v2/`. */
  readonly request: string;
  readonly sent: Headers;
  readonly milliseconds: number;
  /** What went wrong, when there is no answer. */
  readonly failure?: string;
  readonly status?: number;
  readonly received?: IncomingHttpHeaders;
}

const MAX_REDIRECTS = 10;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** Milliseconds. A body may take any time as long as some of it arrives within this. */
const CONNECT_TIMEOUT = 15_000;
const IDLE_TIMEOUT = 60_000;

/** Loaded when the first image is moved: it is almost half of the daemon's program, which should start soon and stay small. */
const loadUndici = () => import('undici');

export class Transport {
  readonly #tls: Tls | undefined;
  readonly #trace: Trace | undefined;
  #agent: Agent | undefined;
  #isClosed = false;

  constructor(tls?: Tls, trace?: Trace) {
    this.#tls = tls;
    this.#trace = trace;
  }

  /**
   * Sends a request. GET and HEAD follow redirects; credentials stay with the host they are for.
   *
   * @throws RegistryError when there is no answer, or redirects lead nowhere; what the signal was aborted with
   */
  async send(call: Call): Promise<Answer> {
    let { url, headers } = call;
    for (let redirects = 0; ; redirects += 1) {
      const answer = await this.#once({ ...call, url, headers });
      const { location } = answer.headers;
      const follows = call.method === 'GET' || call.method === 'HEAD';
      if (!follows || !REDIRECTS.has(answer.status) || location === undefined) return { ...answer, url };
      answer.body.destroy();
      if (redirects === MAX_REDIRECTS) {
        throw new RegistryError(
          Code.Unavailable,
          `${describe(call)}: redirected more than ${MAX_REDIRECTS} times`,
        );
      }
      const next = locationOf(location, url);
      if (next === undefined || !/^https?:$/.test(next.protocol))
        throw new RegistryError(Code.Unavailable, `${describe(call)}: redirected to a malformed address`);
      if (next.origin !== url.origin) headers = forStrangers(headers);
      url = next;
    }
  }

  async #once(call: Call): Promise<Omit<Answer, 'url'>> {
    const { url, method, headers, body, signal } = call;
    const { Agent, buildConnector, request } = await loadUndici();
    if (this.#isClosed) throw connectionError(describe(call), new Error('the transport is closed'));
    this.#agent ??= new Agent({
      connect: connectorOf(buildConnector, this.#tls),
      headersTimeout: IDLE_TIMEOUT,
      bodyTimeout: IDLE_TIMEOUT,
      connections: 16,
    });
    const options = {
      dispatcher: this.#agent,
      method: method as Dispatcher.HttpMethod,
      headers,
      ...(body && { body }),
      ...(signal && { signal }),
    };
    const began = performance.now();
    const exchange = { request: describe(call), sent: headers };
    const milliseconds = (): number => performance.now() - began;
    try {
      const { statusCode: status, headers: received, body } = await request(url, options);
      // What is destroyed early must not end the process.
      body.on('error', () => undefined);
      this.#trace?.({ ...exchange, milliseconds: milliseconds(), status, received });
      return { status, headers: received, body };
    } catch (error) {
      signal?.throwIfAborted();
      this.#trace?.({ ...exchange, milliseconds: milliseconds(), failure: messageOf(error) });
      throw connectionError(describe(call), error);
    }
  }

  /** Ends all connections; what is under way fails. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#agent?.destroy();
  }
}

/** For messages: queries may hold signatures. */
export function describe({ method, url }: Pick<Call, 'method' | 'url'>): string {
  return `${method} ${url.origin}${url.pathname}`;
}

export function locationOf(location: string | string[], base: URL): URL | undefined {
  const text = Array.isArray(location) ? location[0]! : location;
  return URL.parse(text, base) ?? undefined;
}

/** Only what the request is about: any other header may be a secret that a host was configured with. */
const HARMLESS = new Set(['accept', 'accept-encoding', 'range', 'user-agent']);

function forStrangers(headers: Headers): Headers {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => HARMLESS.has(name.toLowerCase())));
}

/** Connects, and reads certificates only once there is something to check with them. */
function connectorOf(build: typeof buildConnector, tls: Tls | undefined): buildConnector.connector {
  const timeout = CONNECT_TIMEOUT;
  const plain = build({ timeout });
  let secure: buildConnector.connector | undefined;
  return (options, callback) => {
    if (options.protocol !== 'https:') return plain(options, callback);
    secure ??= build({
      timeout,
      ...(tls && { secureContext: contextOf(tls), rejectUnauthorized: !tls.skipVerify }),
    });
    return secure(options, callback);
  };
}

/** Named one by one: what is read by default does not include Node's own in a daemon (bin/moord). */
const SOURCES = ['bundled', 'extra', 'system'] as const;

let authorities: readonly string[] | undefined;
let ordinary: SecureContext | undefined;

/**
 * One for all connections of a transport, or of all that have no certificates of their own: to read the host's hundreds of
 * certificates takes a third of a second in which the daemon does nothing else.
 */
function contextOf({ ca, client }: Tls): SecureContext {
  // Given certificates come beside the host's own. Most of those are in both lists.
  authorities ??= [...new Set(SOURCES.flatMap((source) => getCACertificates(source)))];
  if (ca.length === 0 && client.length === 0)
    return (ordinary ??= createSecureContext({ ca: [...authorities] }));
  return createSecureContext({
    ca: [...authorities, ...ca],
    ...(client.length > 0 && { cert: client.map(({ cert }) => cert), key: client.map(({ key }) => key) }),
  });
}
