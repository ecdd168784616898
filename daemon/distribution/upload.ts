/** One blob on its way to a registry, in pieces, which goes on where it broke off (distribution-spec, "Pushing a blob in chunks"). */
import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '../../ttrpc/errors.ts';
import type { Registry } from './registry.ts';
import { RegistryError, pauseAfter } from './retry.ts';
import { type Answer, locationOf } from './transport.ts';

/** Bytes sent in one request; a blob that is larger goes in several. */
const CHUNK = 8 << 20;

export interface Source {
  readonly digest: string;
  readonly size: number;
  read(buffer: Buffer, offset: number): Promise<number>;
}

export class Upload {
  readonly #registry: Registry;
  readonly #source: Source;
  readonly #signal: AbortSignal;
  #location: URL;
  /** Bytes that the registry has, as far as is known. */
  #offset = 0;

  /** @param location where the registry wants to be sent the blob */
  constructor(registry: Registry, source: Source, location: URL, signal: AbortSignal) {
    this.#registry = registry;
    this.#source = source;
    this.#location = location;
    this.#signal = signal;
  }

  /**
   * Sends all of it.
   *
   * @param tell is told how many bytes have gone, before each piece
   * @throws RegistryError; one that is transient means that it may succeed from the beginning
   */
  async send(tell: (offset: number) => void): Promise<void> {
    for (let failures = 0; ;) {
      const before = this.#offset;
      try {
        await this.#send(tell);
        return;
      } catch (error) {
        this.#signal.throwIfAborted();
        failures = this.#offset > before ? 1 : failures + 1;
        const pause = pauseAfter(resumable(error), failures, this.#registry.retries);
        if (pause === undefined) throw error;
        await delay(pause, undefined, { signal: this.#signal });
        await this.#find(error);
      }
    }
  }

  async #send(tell: (offset: number) => void): Promise<void> {
    const { digest, size } = this.#source;
    const headers = { 'content-type': 'application/octet-stream' };
    while (size - this.#offset > CHUNK) {
      tell(this.#offset);
      const body = await this.#read(CHUNK);
      const end = this.#offset + CHUNK;
      const range = { ...headers, 'content-range': `${this.#offset}-${end - 1}` };
      const request = { method: 'PATCH', headers: range, body } as const;
      const answer = await this.#request(request, [201, 202, 204]);
      this.#location = uploadLocation(answer);
      this.#offset = end;
    }
    tell(this.#offset);
    const body = await this.#read(size - this.#offset);
    await this.#request({ method: 'PUT', query: { digest }, headers, body }, [201, 204]);
  }

  /** Asks how much has arrived. @throws the failure that made it necessary when the registry does not know this upload any more */
  async #find(failure: unknown): Promise<void> {
    const answer = await this.#request({ method: 'GET' }, [202, 204, 404]);
    // The same request may also have come to its end after all, which the beginning finds out.
    if (answer.status === 404) throw failure;
    const range = /^(?:bytes=)?0-(\d+)$/.exec(answer.headers.range ?? '');
    // Nothing and one byte are told by the same words.
    const offset = range === null || range[1] === '0' ? 0 : Number(range[1]) + 1;
    if (offset > this.#source.size) throw failure;
    this.#offset = offset;
    if (answer.headers.location !== undefined) this.#location = uploadLocation(answer);
  }

  async #request(
    request: Omit<Parameters<Registry['push']>[0], 'path' | 'signal'>,
    accepted: readonly number[],
  ): Promise<Answer> {
    const whole = { ...request, path: this.#location, signal: this.#signal };
    // Bytes are not sent again blindly: some of them may have arrived.
    const answer = await this.#registry.push(whole, accepted, {
      attempts: request.body === undefined ? undefined : 1,
    });
    answer.body.destroy();
    return answer;
  }

  async #read(length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(length);
    await this.#source.read(buffer, this.#offset);
    return buffer;
  }
}

/** A registry that wants other bytes than it was sent tells by 416 that some had arrived. */
function resumable(error: unknown): unknown {
  if (!(error instanceof RegistryError) || error.status !== 416) return error;
  return new RegistryError(error.code, error.message, { status: 416, isTransient: true, cause: error });
}

/** Where the next piece goes. @throws RegistryError */
export function uploadLocation({ headers, url }: Answer): URL {
  const location = headers.location === undefined ? undefined : locationOf(headers.location, url);
  if (location !== undefined) return location;
  throw new RegistryError(Code.Unavailable, `${url.origin}: the registry does not say where to send a blob`);
}
