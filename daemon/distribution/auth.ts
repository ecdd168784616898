/** Showing a registry who we are: basic authentication and bearer tokens (distribution, spec/auth/token.md and oauth.md). */
import { text } from 'node:stream/consumers';
import { Code } from '../../ttrpc/errors.ts';
import { RegistryError, type RetryPolicy, parseRetryAfter, withRetries } from './retry.ts';
import type { Answer, Call, Headers, Transport } from './transport.ts';

export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly secret: string }
  /** An identity token, which access tokens are made from. */
  | { readonly kind: 'refresh'; readonly secret: string }
  /** Sent as it is. */
  | { readonly kind: 'header'; readonly value: string };

/** @param challenges what the registry has asked for */
export type CredentialSource = (
  host: string,
  challenges: readonly string[],
  signal: AbortSignal | undefined,
) => Promise<Credentials | undefined>;

export interface Challenge {
  /** In lower case. */
  readonly scheme: string;
  readonly parameters: { readonly [name: string]: string };
}

/** Reads `WWW-Authenticate` (RFC 9110, section 11.6.1); what cannot be read is left out. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  const part =
    /\s*,?\s*(?:([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([A-Za-z0-9_-]+)(?=\s|,|$))/y;
  for (let match = part.exec(header); match !== null; match = part.exec(header)) {
    const [, name, quoted, bare, scheme] = match;
    if (scheme !== undefined) challenges.push({ scheme: scheme.toLowerCase(), parameters: {} });
    else {
      const value = quoted?.replaceAll(/\\(.)/g, '$1') ?? bare ?? '';
      Object.assign(challenges.at(-1)?.parameters ?? {}, { [name!.toLowerCase()]: value });
    }
  }
  return challenges;
}

const MAX_TOKEN_ANSWER = 1 << 20;
/** Milliseconds a token is good for when its maker does not say; and how long before its end it is not used any more. */
const TOKEN_LIFE = 60_000;
const TOKEN_MARGIN = 5000;

type Held = { readonly header: string; readonly until: number };

/** What has been found out about one host. */
export class Authorizer {
  readonly #host: string;
  readonly #source: CredentialSource | undefined;
  readonly #transport: Transport;
  readonly #retries: RetryPolicy;
  readonly #held = new Map<string, Held>();
  #credentials: Promise<Credentials | undefined> | undefined;
  #asking: { readonly key: string; readonly answer: Promise<void> } | undefined;

  constructor(
    host: string,
    source: CredentialSource | undefined,
    transport: Transport,
    retries: RetryPolicy,
  ) {
    this.#host = host;
    this.#source = source;
    this.#transport = transport;
    this.#retries = retries;
  }

  /** What to send with a request for these scopes, as far as known. */
  headers(scopes: readonly string[]): Headers {
    const held = this.#held.get(keyOf(scopes));
    return held !== undefined && held.until > performance.now() ? { authorization: held.header } : {};
  }

  /**
   * Meets the challenge of an answer 401.
   *
   * @param used the header that has been refused
   * @throws RegistryError when there is nothing new to show
   */
  async meet(
    answer: Answer,
    scopes: readonly string[],
    used: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const key = keyOf(scopes);
    const held = this.#held.get(key);
    // Another request has been faster.
    if (held !== undefined && held.header !== used && held.until > performance.now()) return;
    if (this.#asking?.key !== key) {
      const promise = this.#ask(answer, scopes, signal).finally(() => (this.#asking = undefined));
      this.#asking = { key, answer: promise };
    }
    await this.#asking.answer;
    if (this.#held.get(key)?.header === used) throw this.#refused('the credentials were refused');
  }

  async #ask(answer: Answer, scopes: readonly string[], signal: AbortSignal | undefined): Promise<void> {
    const raw = [answer.headers['www-authenticate'] ?? []].flat();
    const challenges = raw.flatMap(parseChallenges);
    const credentials = await this.#find(raw, signal);
    const keep = (header: string, life = Infinity): void => {
      this.#held.set(keyOf(scopes), { header, until: performance.now() + life });
    };
    if (credentials?.kind === 'header') return keep(credentials.value);
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer !== undefined) {
      const { token, life } = await this.#token(bearer, scopes, credentials, signal);
      return keep(`Bearer ${token}`, life);
    }
    if (!challenges.some(({ scheme }) => scheme === 'basic'))
      throw this.#refused('it asks for no authentication that is known here');
    if (credentials?.kind !== 'password') throw this.#refused('no basic auth credentials');
    keep(basic(credentials));
  }

  #find(challenges: readonly string[], signal: AbortSignal | undefined): Promise<Credentials | undefined> {
    this.#credentials ??= this.#source?.(this.#host, challenges, signal) ?? Promise.resolve(undefined);
    return this.#credentials;
  }

  async #token(
    { parameters }: Challenge,
    scopes: readonly string[],
    credentials: Credentials | undefined,
    signal: AbortSignal | undefined,
  ): Promise<{ token: string; life: number }> {
    const realm = URL.parse(parameters['realm'] ?? '');
    if (realm === null || !/^https?:$/.test(realm.protocol))
      throw this.#refused('it names no address to get a token from');
    const wanted = [...new Set([...scopes, ...(parameters['scope']?.split(' ') ?? [])])].filter(Boolean);
    const call = tokenCall(realm, parameters['service'], wanted, credentials, signal);
    try {
      return await withRetries(this.#retries, signal, async () =>
        readToken(await this.#transport.send(call)),
      );
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      // It has been tried often enough: the request that needs the token is not to be tried again for this.
      throw new RegistryError(error.code, error.message, { cause: error });
    }
  }

  #refused(why: string): RegistryError {
    return new RegistryError(Code.Unauthenticated, `authorization at ${this.#host} failed: ${why}`, {
      status: 401,
    });
  }
}

function tokenCall(
  realm: URL,
  service: string | undefined,
  scopes: readonly string[],
  credentials: Credentials | undefined,
  signal: AbortSignal | undefined,
): Call {
  if (credentials?.kind === 'refresh') {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      client_id: 'moor',
      refresh_token: credentials.secret,
      scope: scopes.join(' '),
      ...(service !== undefined && { service }),
    });
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    return { method: 'POST', url: realm, headers, body: Buffer.from(form.toString()), signal };
  }
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set('service', service);
  for (const scope of scopes) url.searchParams.append('scope', scope);
  const headers: Headers = credentials?.kind === 'password' ? { authorization: basic(credentials) } : {};
  return { method: 'GET', url, headers, signal };
}

async function readToken({ status, headers, body, url }: Answer): Promise<{ token: string; life: number }> {
  const where = `token endpoint ${url.origin}${url.pathname}`;
  if (status !== 200) {
    body.destroy();
    const isTransient = status === 429 || status >= 500;
    const code = isTransient ? Code.Unavailable : Code.Unauthenticated;
    const retryAfter = parseRetryAfter(headers['retry-after']);
    throw new RegistryError(code, `${where} answered ${status}`, { status, isTransient, retryAfter });
  }
  if (Number(headers['content-length'] ?? 0) > MAX_TOKEN_ANSWER) {
    body.destroy();
    throw new RegistryError(Code.Unavailable, `${where}: the answer is too long`);
  }
  const answer = parseJson(await text(limited(body, where)));
  const token = answer['token'] ?? answer['access_token'];
  // A line feed would let the endpoint write headers.
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token))
    throw new RegistryError(Code.Unavailable, `${where}: the answer holds no token`);
  const seconds = Number(answer['expires_in'] ?? 0);
  const life = seconds > 0 ? seconds * 1000 : TOKEN_LIFE;
  return { token, life: Math.max(life - TOKEN_MARGIN, TOKEN_MARGIN) };
}

async function* limited(body: AsyncIterable<Buffer>, where: string): AsyncGenerator<Buffer> {
  let size = 0;
  for await (const piece of body) {
    size += piece.length;
    if (size > MAX_TOKEN_ANSWER)
      throw new RegistryError(Code.Unavailable, `${where}: the answer is too long`);
    yield piece;
  }
}

function parseJson(json: string): { readonly [key: string]: unknown } {
  try {
    return (JSON.parse(json) ?? {}) as { readonly [key: string]: unknown };
  } catch {
    return {};
  }
}

function basic({ username, secret }: { readonly username: string; readonly secret: string }): string {
  return `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`;
}

function keyOf(scopes: readonly string[]): string {
  return [...scopes].sort().join(' ');
}
