/** Requests that wait for their client, by the token in the URL. */
import { randomBytes } from 'node:crypto';
import { resourceExhausted } from '../../../ttrpc/errors.ts';

/** The kubelet comes at once; a URL is a key, and keys should not lie about. */
const LIFE_MS = 60_000;
const MAX_WAITING = 1000;
/** Nobody guesses so many. */
const TOKEN_BYTES = 24;

interface Waiting<T> {
  readonly request: T;
  readonly until: number;
}

export class Tokens<T> {
  readonly #now: () => number;
  /** In the order in which they expire. */
  readonly #waiting = new Map<string, Waiting<T>>();

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** @throws RpcError ResourceExhausted when too many wait already */
  issue(request: T): string {
    this.#expire();
    if (this.#waiting.size >= MAX_WAITING)
      throw resourceExhausted(`${MAX_WAITING} streaming requests wait for their clients: too many`);
    const token = randomBytes(TOKEN_BYTES).toString('base64url');
    this.#waiting.set(token, { request, until: this.#now() + LIFE_MS });
    return token;
  }

  /** What was asked for under the token, once; undefined when there is no such token, or no longer. */
  take(token: string): T | undefined {
    this.#expire();
    const waiting = this.#waiting.get(token);
    this.#waiting.delete(token);
    return waiting?.request;
  }

  #expire(): void {
    for (const [token, { until }] of this.#waiting) {
      if (until > this.#now()) return;
      this.#waiting.delete(token);
    }
  }
}
