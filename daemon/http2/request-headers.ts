/** What a request says before its data (RFC 9113, section 8.3). */
import { ErrorCode, StreamError } from './frame.ts';
import { sizeOf } from './hpack/decoder.ts';

/** Bytes of all fields of a request, and how many of them, at most. */
const MOST_BYTES = 64 << 10;
const MOST_FIELDS = 128;

/** Fields that are of one connection of HTTP/1, and of no request (section 8.2.2). */
const FOREIGN = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade']);

const PSEUDO = new Set([':method', ':scheme', ':path', ':authority']);

export class RequestHeaders {
  /** By name, in lower case; without those that begin with a colon. */
  readonly fields = new Map<string, string[]>();
  readonly #pseudo = new Map<string, string>();
  #bytes = 0;
  #count = 0;
  #fault: StreamError | undefined;

  /** To be called for each field in their order. What is wrong is said by `complete`, as the block has to be read to its end. */
  add(name: string, value: string): void {
    this.#bytes += sizeOf({ name, value });
    this.#count += 1;
    if (this.#bytes > MOST_BYTES || this.#count > MOST_FIELDS) {
      this.#fault ??= new StreamError(ErrorCode.EnhanceYourCalm, 'headers beyond all measure');
    } else if (name.startsWith(':')) {
      if (!PSEUDO.has(name) || this.#pseudo.has(name) || this.fields.size > 0) this.#malformed(name);
      this.#pseudo.set(name, value);
    } else if (/[^!#$%&'*+\-.^_`|~0-9a-z]|^$/.test(name) || FOREIGN.has(name) || /[\0\r\n]/.test(value)) {
      this.#malformed(name);
    } else {
      const values = this.fields.get(name);
      if (values === undefined) this.fields.set(name, [value]);
      else values.push(value);
    }
  }

  /** @throws StreamError for a request that is none */
  complete(): void {
    if (!this.#pseudo.has(':method') || !this.#pseudo.has(':path')) this.#malformed('no method or no path');
    if (this.#fault !== undefined) throw this.#fault;
  }

  get path(): string {
    return this.#pseudo.get(':path') ?? '';
  }

  /** The value of a field that comes once; undefined for none, and for several. */
  one(name: string): string | undefined {
    const values = this.fields.get(name);
    return values?.length === 1 ? values[0] : undefined;
  }

  #malformed(what: string): void {
    this.#fault ??= new StreamError(ErrorCode.ProtocolError, `malformed headers: ${JSON.stringify(what)}`);
  }
}
