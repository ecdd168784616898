/**
 * Header blocks of SPDY/3: names and values with their lengths, all blocks of one direction compressed as one zlib stream.
 *
 * Each block ends with an empty stored block (Z_SYNC_FLUSH), before which Go's inflate hands nothing out. That makes a block a piece of
 * deflate's own, byte by byte, which needs of what was before it only the last 32 KiB as its dictionary: no stream has to be kept open,
 * nothing waits, and what a block may grow to is bounded.
 */
import { constants, deflateRawSync, deflateSync, inflateRawSync } from 'node:zlib';
import { DICTIONARY } from './dictionary.ts';

export type Headers = ReadonlyMap<string, string>;

/** What a block may hold; the ones of Kubernetes have some hundred bytes. */
const MAX_PLAIN = 64 << 10;
const WINDOW = 32 << 10;
/** CMF and FLG, and the checksum of the dictionary (RFC 1950, section 2.2). */
const PREFIX = deflateSync('', { dictionary: DICTIONARY }).subarray(0, 6);
const FINISH = constants.Z_SYNC_FLUSH;

/** Why a header block cannot be read. The compressor's state is lost with it, and so the connection. */
export class HeaderBlockError extends Error {
  override readonly name = 'HeaderBlockError';
}

export class HeaderWriter {
  #window: Buffer = DICTIONARY;
  #begun = false;

  write(headers: Headers): Buffer {
    const plain = encode(headers);
    const block = deflateRawSync(plain, { dictionary: this.#window, finishFlush: FINISH });
    this.#window = slid(this.#window, plain);
    if (this.#begun) return block;
    this.#begun = true;
    return Buffer.concat([PREFIX, block]);
  }
}

export class HeaderReader {
  #window: Buffer = DICTIONARY;
  #begun = false;

  /** @throws HeaderBlockError for what is no block, or one that grows too large */
  read(block: Buffer): Headers {
    let compressed = block;
    if (!this.#begun) {
      compressed = block.subarray(PREFIX.length);
      checkPrefix(block);
      this.#begun = true;
    }
    let plain: Buffer;
    try {
      const options = { dictionary: this.#window, finishFlush: FINISH, maxOutputLength: MAX_PLAIN };
      plain = inflateRawSync(compressed, options);
    } catch (error) {
      throw new HeaderBlockError(`a header block cannot be inflated: ${(error as Error).message}`);
    }
    this.#window = slid(this.#window, plain);
    return decode(plain);
  }
}

function slid(window: Buffer, plain: Buffer): Buffer {
  return Buffer.concat([window, plain]).subarray(-WINDOW);
}

function checkPrefix(block: Buffer): void {
  const [method = 0, flags = 0] = block;
  const isZlib = (method & 0x0f) === 8 && ((method << 8) | flags) % 31 === 0;
  // Bit 5: a dictionary follows.
  if (!isZlib || (flags & 0x20) === 0 || !block.subarray(2, 6).equals(PREFIX.subarray(2)))
    throw new HeaderBlockError('the first header block is not compressed with the dictionary of SPDY/3');
}

function encode(headers: Headers): Buffer {
  const parts = [word(headers.size)];
  for (const pair of headers) {
    for (const text of pair) {
      const bytes = Buffer.from(text);
      parts.push(word(bytes.length), bytes);
    }
  }
  return Buffer.concat(parts);
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function decode(plain: Buffer): Headers {
  let offset = 0;
  const number = (): number => {
    if (offset + 4 > plain.length) throw new HeaderBlockError('a header block ends too early');
    offset += 4;
    return plain.readUInt32BE(offset - 4);
  };
  const text = (): string => {
    const length = number();
    if (offset + length > plain.length) throw new HeaderBlockError('a header block ends too early');
    offset += length;
    return plain.toString('utf8', offset - length, offset);
  };
  const headers = new Map<string, string>();
  for (let left = number(); left > 0; left -= 1) {
    // Names are compared without regard to case in HTTP; SPDY wants them small, but Go's client has not always done so.
    const name = text().toLowerCase();
    if (name === '' || headers.has(name)) throw new HeaderBlockError(`a header is doubled or has no name`);
    headers.set(name, text());
  }
  return headers;
}
