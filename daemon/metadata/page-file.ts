/**
 * The database's file as it lies on disk, read without LMDB: that trusts what it finds, and ends the whole process where it should not
 * have. Layout: mdb.c of lmdb 3.5.6, data version 2, little-endian machines.
 *
 * A page has a header of 24 bytes (number, transaction, padding, flags, bounds). Pages 0 and 1 say where the trees begin, the newer of
 * them counts. Branches and leaves have offsets of their nodes behind the header; a large value has pages of its own.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { checkHeader } from './header.ts';

const HEADER = 24;
const NODE = 8;
/** A page's number, a transaction and a count of pages. */
const LARGE_VALUE = 24;
const TREE = 48;
const NO_PAGE = 0xffff_ffff_ffff_ffffn;
const DATA_VERSION = 2;
/** Deeper trees than any file can hold have a circle in them. */
const MAX_DEPTH = 32;

const PageKind = { Branch: 0x01, Leaf: 0x02, Overflow: 0x04, Meta: 0x08 } as const;
const LARGE = 0x01;

/** A record as LMDB has it. */
export interface RawRecord {
  readonly key: Buffer;
  readonly value: Buffer;
}

/** What is wrong with the file, and where. */
export interface Damage {
  readonly page: number;
  readonly problem: string;
}

/** A state of the database: what one transaction has left. */
export interface Snapshot {
  readonly transaction: bigint;
  /** How many records there should be. */
  readonly entries: number;
  readonly records: readonly RawRecord[];
  readonly damages: readonly Damage[];
}

interface Tree {
  readonly entries: number;
  readonly root: number | undefined;
}

interface Meta {
  readonly transaction: bigint;
  readonly free: Tree;
  readonly main: Tree;
}

/** Reads the file when nobody writes it: the newest state, and the one before it. @throws Error when there is none, or it cannot be read */
export class PageFile {
  readonly #bytes: Buffer;
  readonly #pageSize: number;
  readonly #metas: readonly Meta[];
  /** Wrong with both first pages; nothing else can be read then. */
  readonly #headDamages: readonly Damage[];

  private constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#pageSize = bytes.length < HEADER + NODE + 20 ? 0 : bytes.readUInt32LE(HEADER + 24);
    const damages: Damage[] = [];
    const metas: Meta[] = [];
    for (const number of [0, 1]) {
      const meta = this.#meta(number);
      if (typeof meta === 'string') damages.push({ page: number, problem: meta });
      else metas.push(meta);
    }
    this.#metas = metas.sort((a, b) => Number(b.transaction - a.transaction));
    this.#headDamages = damages;
  }

  /**
   * @returns undefined when there is no database yet
   * @throws Error for a file that is something else, and what the file system says
   */
  static read(directory: string): PageFile | undefined {
    if (!checkHeader(directory)) return undefined;
    const fd = openSync(`${directory}/data.mdb`, 'r');
    try {
      // All that is in use, which the first pages say, and not the room that is kept behind it.
      const heads = Buffer.alloc(2 * 65536);
      readSync(fd, heads, 0, heads.length, 0);
      const pageSize = heads.readUInt32LE(HEADER + 24);
      const last = Math.max(...[0, pageSize].map((at) => lastPage(heads, at)));
      const { size } = fstatSync(fd);
      const wanted = Number.isSafeInteger(last) ? Math.min(size, (last + 1) * pageSize) : size;
      const bytes = Buffer.allocUnsafeSlow(wanted);
      return new PageFile(bytes.subarray(0, readSync(fd, bytes, 0, wanted, 0)));
    } finally {
      closeSync(fd);
    }
  }

  /** What the last transaction left. */
  newest(): Snapshot {
    return this.#snapshot(this.#metas[0], this.#headDamages);
  }

  /** What the one before it left; undefined when there was none. */
  previous(): Snapshot | undefined {
    return this.#metas[1] && this.#snapshot(this.#metas[1], []);
  }

  #snapshot(meta: Meta | undefined, damages: readonly Damage[]): Snapshot {
    if (meta === undefined) return { transaction: 0n, entries: 0, records: [], damages };
    const walk = new Walk(this.#bytes, this.#pageSize, meta.transaction);
    walk.tree(meta.free, 'numbers');
    const records = walk.tree(meta.main, 'bytes');
    return {
      transaction: meta.transaction,
      entries: meta.main.entries,
      records,
      damages: [...damages, ...walk.damages],
    };
  }

  #meta(number: number): Meta | string {
    const bytes = this.#bytes;
    const size = this.#pageSize;
    if (size < 512 || size > 65536 || (size & (size - 1)) !== 0) return 'the size of its pages cannot be';
    const at = number * size;
    if (bytes.length < at + size) return 'the file ends before it';
    if ((bytes.readUInt16LE(at + 18) & PageKind.Meta) === 0) return 'it is not what a database begins with';
    if (bytes.readUInt32LE(at + HEADER) !== 0xbeefc0de) return 'it is not what a database begins with';
    const version = bytes.readUInt32LE(at + HEADER + 4) & 0xffff;
    if (version !== DATA_VERSION) return `its layout is of version ${version}, not ${DATA_VERSION}`;
    return {
      transaction: bytes.readBigUInt64LE(at + HEADER + 24 + 2 * TREE + 8),
      free: readTree(bytes, at + HEADER + 24),
      main: readTree(bytes, at + HEADER + 24 + TREE),
    };
  }
}

/** One way through all pages of a state. */
class Walk {
  readonly damages: Damage[] = [];
  readonly #bytes: Buffer;
  readonly #size: number;
  readonly #transaction: bigint;
  readonly #seen = new Set<number>();
  #isOrdered = true;

  constructor(bytes: Buffer, size: number, transaction: bigint) {
    this.#bytes = bytes;
    this.#size = size;
    this.#transaction = transaction;
  }

  /** @param keys what they are: records' are bytes, in the order of bytes; those of the list of free pages are numbers */
  tree({ root, entries }: Tree, keys: 'numbers' | 'bytes'): RawRecord[] {
    const records: RawRecord[] = [];
    if (root === undefined) return records;
    this.#isOrdered = keys === 'bytes';
    const before = this.damages.length;
    this.#page(root, records, 0);
    if (this.damages.length === before && records.length !== entries)
      this.#damaged(root, `${records.length} of ${entries} records are below it`);
    return records;
  }

  #damaged(page: number, problem: string): void {
    this.damages.push({ page, problem });
  }

  #page(number: number, records: RawRecord[], depth: number): void {
    const problem = this.#mistakeInHead(number, PageKind.Branch | PageKind.Leaf);
    if (problem !== undefined || depth > MAX_DEPTH)
      return this.#damaged(number, problem ?? 'it is part of a circle');
    const at = number * this.#size;
    const isLeaf = (this.#bytes.readUInt16LE(at + 18) & PageKind.Leaf) !== 0;
    const lower = this.#bytes.readUInt16LE(at + 20);
    const upper = this.#bytes.readUInt16LE(at + 22);
    const end = this.#size - HEADER;
    if (lower % 2 !== 0 || lower > upper || upper > end || (!isLeaf && lower === 0))
      return this.#damaged(number, `its bounds are ${lower} and ${upper} of ${end}`);
    let last: Buffer | undefined;
    for (let index = 0; index < lower / 2; index += 1) {
      const offset = this.#bytes.readUInt16LE(at + HEADER + 2 * index);
      if (offset < upper || offset + NODE > end)
        return this.#damaged(number, `its record ${index} begins at ${offset}`);
      const node = at + HEADER + offset;
      const keyLength = this.#bytes.readUInt16LE(node + 6);
      if (offset + NODE + keyLength > end)
        return this.#damaged(number, `the key of its record ${index} does not end`);
      const key = this.#bytes.subarray(node + NODE, node + NODE + keyLength);
      // The first key of a branch is not used.
      if (last !== undefined && this.#isOrdered && Buffer.compare(last, key) >= 0)
        return this.#damaged(number, `the keys of its records are not in order at ${index}`);
      if (isLeaf || index > 0) last = key;
      if (!isLeaf) {
        const child = this.#bytes.readUIntLE(node, 6);
        this.#page(child, records, depth + 1);
        continue;
      }
      const value = this.#value(number, index, node, keyLength, offset);
      if (value !== undefined) records.push({ key, value });
    }
  }

  #value(page: number, index: number, node: number, keyLength: number, offset: number): Buffer | undefined {
    const bytes = this.#bytes;
    const length = bytes.readUInt32LE(node);
    const flags = bytes.readUInt16LE(node + 4);
    const start = node + NODE + keyLength;
    const isLarge = (flags & LARGE) !== 0;
    if (offset + NODE + keyLength + (isLarge ? LARGE_VALUE : length) > this.#size - HEADER) {
      this.#damaged(page, `the value of its record ${index} does not end`);
      return undefined;
    }
    if (!isLarge) return bytes.subarray(start, start + length);
    const first = Number(bytes.readBigUInt64LE(start));
    const problem = this.#mistakeInHead(first, PageKind.Overflow);
    const from = first * this.#size + HEADER;
    if (problem !== undefined || from + length > bytes.length) {
      this.#damaged(first, problem ?? 'the file ends within the value that begins there');
      return undefined;
    }
    return bytes.subarray(from, from + length);
  }

  /** Why a page cannot be what it should be. */
  #mistakeInHead(number: number, kinds: number): string | undefined {
    const at = number * this.#size;
    if (!(at + this.#size <= this.#bytes.length)) return 'the file ends before it';
    if (this.#seen.has(number)) return 'it is part of two things';
    this.#seen.add(number);
    const itself = this.#bytes.readBigUInt64LE(at);
    if (itself !== BigInt(number)) return `it says to be page ${itself}`;
    const transaction = this.#bytes.readBigUInt64LE(at + 8);
    if (transaction > this.#transaction) return `it is of transaction ${transaction}, which is yet to come`;
    const flags = this.#bytes.readUInt16LE(at + 18);
    return (flags & kinds) === 0 || (flags & ~kinds) !== 0 ? `its kind is ${flags}` : undefined;
  }
}

function lastPage(bytes: Buffer, meta: number): number {
  const at = meta + HEADER + 24 + 2 * TREE;
  return at + 8 <= bytes.length ? Number(bytes.readBigUInt64LE(at)) : Number.NaN;
}

function readTree(bytes: Buffer, at: number): Tree {
  const root = bytes.readBigUInt64LE(at + 40);
  return {
    entries: Number(bytes.readBigUInt64LE(at + 32)),
    root: root === NO_PAGE ? undefined : Number(root),
  };
}
