/** Serves metrics to Prometheus, by plain HTTP. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { messageOf, type RpcError, unavailable } from '../../ttrpc/errors.ts';
import type { Logger } from 'pino';
import { CallCounts } from './calls.ts';
import { CONTENT_TYPE, type Family, expose } from './exposition.ts';
import { Scrape, type Sources } from './scrape.ts';
import { type MetricsSettings, parseAddress } from './settings.ts';

const PATH = '/v1/metrics';

/** Scrapers keep a connection or two; this is for a network that anybody can send to. */
const MAX_CONNECTIONS = 64;
const REQUEST_TIMEOUT_MS = 10_000;
/** An answer that its reader does not take. */
const IDLE_TIMEOUT_MS = 30_000;

export class MetricsEndpoint implements AsyncDisposable {
  /** Undefined when there is no endpoint, so that nobody counts for nothing. */
  readonly calls: CallCounts | undefined;
  readonly #settings: MetricsSettings;
  readonly #log: Logger;
  #server: Server | undefined;
  #failure: RpcError | undefined;

  /** @param settings with an empty address for an endpoint that is nowhere and costs nothing */
  constructor(settings: MetricsSettings, log: Logger) {
    this.#settings = settings;
    this.#log = log;
    this.calls = settings.address === '' ? undefined : new CallCounts(settings.grpc_histogram);
  }

  /** Why nobody can reach it, when that is so. */
  get failure(): RpcError | undefined {
    return this.#failure;
  }

  /** `HOST:PORT` as it is listened at; empty when it is not. */
  get address(): string {
    const at = this.#server?.address() as AddressInfo | null | undefined;
    if (at === null || at === undefined) return '';
    return `${at.family === 'IPv6' ? `[${at.address}]` : at.address}:${at.port}`;
  }

  /** Begins to serve, if it is to be anywhere. Never rejects: see `failure`. */
  async open(sources: Omit<Sources, 'calls' | 'log'>): Promise<void> {
    const { calls } = this;
    if (calls === undefined) return;
    const { address } = this.#settings;
    const scrape = new Scrape({ ...sources, calls, log: this.#log });
    try {
      const { createServer } = await import('node:http');
      const timeouts = { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS };
      const server = createServer(
        timeouts,
        (request, response) => void this.#answer(scrape, request, response),
      );
      server.maxConnections = MAX_CONNECTIONS;
      server.setTimeout(IDLE_TIMEOUT_MS);
      await listening(server, address);
      server.on('error', (error) => this.#log.error({ err: error }, 'the metrics endpoint failed'));
      // Its connections are no reason for the daemon to stay.
      server.unref();
      this.#server = server;
      this.#log.info({ address: this.address, path: PATH }, 'serving metrics');
    } catch (error) {
      this.#failure = unavailable(`metrics cannot be served at ${address}: ${messageOf(error)}`, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    server.close(() => resolve());
    server.closeAllConnections();
    await promise;
  }

  async #answer(scrape: Scrape, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const refusal = refusalOf(request);
    if (refusal !== undefined) {
      const [status, text] = refusal;
      const allow = status === 405 ? { allow: 'GET, HEAD' } : {};
      response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', ...allow }).end(`${text}\n`);
      return;
    }
    try {
      const families = await scrape.read();
      response.setHeader('content-type', CONTENT_TYPE);
      if (request.method === 'HEAD') response.end();
      else await send(families, request, response);
    } catch (error) {
      // A scraper that left before its answer is none of ours.
      if (response.destroyed) return;
      this.#log.warn({ err: error }, 'metrics cannot be told');
      if (response.headersSent) response.destroy();
      else
        response.writeHead(500, { 'content-type': 'text/plain; charset=utf-8' }).end(`${messageOf(error)}\n`);
    }
  }
}

async function listening(server: Server, address: string): Promise<void> {
  const { host, port } = parseAddress(address)!;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ host, port }, resolve);
  await promise;
  server.off('error', reject);
}

function refusalOf({ method, url = '' }: IncomingMessage): [status: number, text: string] | undefined {
  if (url.replace(/\?.*$/s, '') !== PATH) return [404, `metrics are at ${PATH}`];
  return method === 'GET' || method === 'HEAD' ? undefined : [405, 'metrics can only be read'];
}

async function send(
  families: Iterable<Family>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const text = Readable.from(expose(families), { objectMode: false });
  if (!/\bgzip\b/.test(request.headers['accept-encoding'] ?? '')) return pipeline(text, response);
  const { createGzip } = await import('node:zlib');
  response.setHeader('content-encoding', 'gzip');
  // Compressed by another thread, at the least effort: a hundred containers are a megabyte of text that repeats itself.
  await pipeline(text, createGzip({ level: 1 }), response);
}
