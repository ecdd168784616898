/** Reads header blocks (RFC 7541). */
import { ConnectionError, ErrorCode } from '../frame.ts';
import { unpack } from './huffman.ts';
import { type Field, STATIC_TABLE } from './static-table.ts';

/** Bytes that the table may have, counted as section 4.1 does; the value that both sides begin with. */
const TABLE_BYTES = 4096;
/** What a field counts beside its texts. */
export const FIELD_OVERHEAD = 32;

/** Bytes of a number: 32 bits of value have no more. */
const NUMBER_BYTES = 5;

/** Bytes of a text that are unpacked without allocating. */
const SCRATCH_BYTES = 4096;

const scratch = Buffer.allocUnsafe(SCRATCH_BYTES);

/** The table of one connection, and what of a block has been read. Blocks must be read in the order they come in, each to its end. */
export class HeaderDecoder {
  /** The latest at the end. */
  #table: Field[] = [];
  #tableBytes = 0;
  #tableLimit = TABLE_BYTES;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;

  /** @throws ConnectionError for what is no block; the tables of the two sides differ from then on */
  decode(block: Buffer, take: (name: string, value: string) => void): void {
    this.#block = block;
    this.#at = 0;
    let mayResize = true;
    while (this.#at < block.length) {
      const first = block[this.#at]!;
      if ((first & 0xe0) === 0x20) {
        if (!mayResize) throw malformed('a change of the table’s size behind a field');
        this.#resize(this.#number(5));
        continue;
      }
      mayResize = false;
      const field = this.#field(first);
      take(field.name, field.value);
    }
  }

  #field(first: number): Field {
    if ((first & 0x80) !== 0) return this.#find(this.#number(7));
    const isKept = (first & 0x40) !== 0;
    const index = this.#number(isKept ? 6 : 4);
    const name = index === 0 ? this.#text() : this.#find(index).name;
    const field = { name, value: this.#text() };
    if (isKept) this.#keep(field);
    return field;
  }

  #find(index: number): Field {
    const field =
      index <= STATIC_TABLE.length
        ? STATIC_TABLE[index - 1]
        : this.#table[this.#table.length + STATIC_TABLE.length - index];
    if (field === undefined) throw malformed(`no field has the number ${index}`);
    return field;
  }

  #keep(field: Field): void {
    const size = sizeOf(field);
    this.#evict(this.#tableLimit - size);
    if (size > this.#tableLimit) return;
    this.#table.push(field);
    this.#tableBytes += size;
  }

  #resize(limit: number): void {
    if (limit > TABLE_BYTES) throw malformed(`a table of ${limit} bytes`);
    this.#tableLimit = limit;
    this.#evict(limit);
  }

  /** The oldest go until no more bytes are left. */
  #evict(bytes: number): void {
    let count = 0;
    for (; this.#tableBytes > bytes && count < this.#table.length; count += 1)
      this.#tableBytes -= sizeOf(this.#table[count]!);
    if (count > 0) this.#table.splice(0, count);
  }

  #text(): string {
    const isPacked = ((this.#block[this.#at] ?? 0) & 0x80) !== 0;
    const length = this.#number(7);
    const end = this.#at + length;
    if (end > this.#block.length) throw malformed('a text beyond the end');
    const start = this.#at;
    this.#at = end;
    if (!isPacked) return this.#block.toString('latin1', start, end);
    const packed = this.#block.subarray(start, end);
    const size = unpack(packed, scratch);
    if (size < 0) throw malformed('a text that cannot be unpacked');
    if (size <= scratch.length) return scratch.toString('latin1', 0, size);
    const large = Buffer.allocUnsafe(size);
    unpack(packed, large);
    return large.toString('latin1');
  }

  /** A number in the last bits of a byte and the bytes behind it (section 5.1). */
  #number(bits: number): number {
    const most = 2 ** bits - 1;
    let value = this.#byte() & most;
    if (value < most) return value;
    for (let count = 0; count < NUMBER_BYTES; count += 1) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** (7 * count);
      if ((byte & 0x80) === 0) return value;
    }
    throw malformed('a number that does not end');
  }

  #byte(): number {
    const byte = this.#block[this.#at];
    if (byte === undefined) throw malformed('a block that is cut off');
    this.#at += 1;
    return byte;
  }
}

export const sizeOf = ({ name, value }: Field): number => name.length + value.length + FIELD_OVERHEAD;

function malformed(what: string): ConnectionError {
  return new ConnectionError(ErrorCode.CompressionError, `headers have ${what}`);
}
