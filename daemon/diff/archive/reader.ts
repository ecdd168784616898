import type { ByteString } from '../../../native/native.ts';
import { invalidArgument } from '../../../ttrpc/errors.ts';
import { displayName, NO_XATTRS, type Entry, type Extent } from './entry.ts';
import { type Extension, readExtension } from './extension.ts';
import { type Header, isZeroBlock, KINDS, readHeader } from './header.ts';
import { Malformed } from './malformed.ts';
import {
  BLOCK,
  checkExtents,
  readOldSparse,
  readSparsePrefix,
  readSparseRecords,
  type Sparse,
} from './sparse.ts';

/** What is done with the members of an archive, one after the other. */
export interface ArchiveSink {
  /** A member. With `content`, that is all of it; else `data` follows, and `finish`. */
  entry(entry: Entry, content: Uint8Array | undefined): void;
  /** More of the content of the last entry, to be at `position` in the file. The memory is lent for the call. */
  data(chunk: Uint8Array, position: number): void;
  /** The content of the last entry is complete. A hole may be left at its end. */
  finish(): void;
}

/** Content up to this size is collected and given in one piece: making such a file takes a single call. */
const SMALL = 128 * 1024;
/** Extensions and long names beyond this are refused, as Go's archive/tar does. */
const MOST_EXTENSION = 1024 * 1024;

/** Steps of the parser ask for exactly so many bytes, or with a negative number for at most so many. */
type Steps<T = void> = Generator<number, T, Buffer>;

/**
 * Reads an archive that is pushed in pieces, and calls a sink, all synchronously. What follows the end of the archive is
 * ignored, as in Go's archive/tar. Global extension headers are skipped: they have no meaning in layers, and containerd does
 * not follow them either.
 */
export class ArchiveReader {
  readonly #sink: ArchiveSink;
  readonly #steps: Steps;
  #want: number;
  #partial: Buffer | undefined;
  #filled = 0;
  #isBetweenEntries = true;
  #isDone = false;
  #current: ByteString | undefined;

  constructor(sink: ArchiveSink) {
    this.#sink = sink;
    this.#steps = this.#read();
    this.#want = this.#steps.next().value as number;
  }

  /**
   * @throws RpcError InvalidArgument naming the entry when the archive is malformed
   * @throws what the sink throws
   */
  push(chunk: Buffer): void {
    let offset = 0;
    while (offset < chunk.length && !this.#isDone) {
      const left = chunk.length - offset;
      if (this.#want < 0) {
        const taken = Math.min(-this.#want, left);
        this.#step(chunk.subarray(offset, offset + taken));
        offset += taken;
      } else if (this.#filled === 0 && this.#want <= left) {
        const taken = this.#want;
        this.#step(chunk.subarray(offset, offset + taken));
        offset += taken;
      } else {
        offset += this.#collect(chunk, offset);
      }
    }
  }

  /** @throws RpcError InvalidArgument when the archive ends in the middle of something */
  end(): void {
    // Archives without the two blocks of zeros at the end are common enough that everybody accepts them.
    const isComplete = this.#isDone || (this.#isBetweenEntries && this.#filled === 0);
    if (!isComplete) throw this.#explain(new Malformed('the archive is cut off'));
  }

  #collect(chunk: Buffer, offset: number): number {
    this.#partial ??= Buffer.allocUnsafe(this.#want);
    const taken = chunk.copy(this.#partial, this.#filled, offset);
    this.#filled += taken;
    if (this.#filled === this.#want) {
      const whole = this.#partial;
      this.#partial = undefined;
      this.#filled = 0;
      this.#step(whole);
    }
    return taken;
  }

  #step(bytes: Buffer): void {
    try {
      const { value, done } = this.#steps.next(bytes);
      if (done === true) this.#isDone = true;
      else this.#want = value;
    } catch (error) {
      throw this.#explain(error);
    }
  }

  #explain(error: unknown): unknown {
    if (!(error instanceof Malformed)) return error;
    const where = this.#current === undefined ? 'at its start' : `at or after ${displayName(this.#current)}`;
    return invalidArgument(`invalid layer archive ${where}: ${error.message}`, error);
  }

  *#read(): Steps {
    let extension: Extension = {};
    for (;;) {
      const block: Buffer = yield BLOCK;
      if (isZeroBlock(block)) {
        const second: Buffer = yield BLOCK;
        if (!isZeroBlock(second)) throw new Malformed('a block of zeros stands alone');
        return;
      }
      this.#isBetweenEntries = false;
      const header = readHeader(block);
      switch (header.type) {
        case 'x':
          extension = { ...extension, ...readExtension(yield* this.#extension(header)) };
          break;
        case 'L':
          extension.path = untilNull(yield* this.#extension(header));
          break;
        case 'K':
          extension.linkPath = untilNull(yield* this.#extension(header));
          break;
        case 'g':
          yield* this.#extension(header);
          this.#isBetweenEntries = true;
          break;
        default:
          yield* this.#member(header, block, extension);
          extension = {};
          this.#isBetweenEntries = true;
      }
    }
  }

  *#extension({ size }: Header): Steps<Buffer> {
    if (size > MOST_EXTENSION) throw new Malformed(`an extension of ${size} bytes is too large`);
    if (size === 0) return Buffer.alloc(0);
    // Copied, as the parser may be given memory that is used again for the next piece.
    const data: Buffer = Buffer.from(yield size);
    yield* this.#padding(size);
    return data;
  }

  *#padding(size: number): Steps {
    if (size % BLOCK !== 0) yield BLOCK - (size % BLOCK);
  }

  *#member(header: Header, block: Buffer, extension: Extension): Steps {
    const name = extension.path ?? header.name;
    this.#current = name;
    const isPlain = header.type === '0' || header.type === '\0';
    // Before there was a type for directories, a slash at the end said so. The name in the header may be a stand-in.
    const kind = isPlain && name.endsWith('/') ? 'directory' : KINDS[header.type];
    if (kind === undefined)
      throw new Malformed(`entries of type ${JSON.stringify(header.type)} are not known`);
    // `block` is not valid any more after the next yield; what is needed of it has been read by then.
    const sparse =
      header.type === 'S'
        ? yield* readOldSparse(block, BLOCK)
        : extension.sparse && readSparseRecords(extension.sparse);
    const stored = kind === 'file' ? (extension.size ?? header.size) : 0;
    if (stored < 0) throw new Malformed('its size is negative');
    const mtime = extension.mtime ?? { seconds: header.mtime, nanos: 0 };
    const entry: Entry = {
      name: sparse?.name ?? name,
      kind,
      mode: header.mode & 0o7777,
      uid: extension.uid ?? header.uid,
      gid: extension.gid ?? header.gid,
      size: sparse?.size ?? stored,
      mtime,
      atime: extension.atime ?? mtime,
      linkName: extension.linkPath ?? header.linkName,
      major: header.major,
      minor: header.minor,
      xattrs: extension.xattrs ?? NO_XATTRS,
    };
    this.#current = entry.name;
    yield* this.#content(entry, stored, sparse);
  }

  *#content(entry: Entry, stored: number, sparse: Sparse | undefined): Steps {
    if (sparse !== undefined) yield* this.#sparseContent(entry, stored, sparse);
    else if (stored <= SMALL) this.#sink.entry(entry, stored === 0 ? Buffer.alloc(0) : yield stored);
    else {
      this.#sink.entry(entry, undefined);
      yield* this.#extent({ offset: 0, length: stored });
      this.#sink.finish();
    }
    yield* this.#padding(stored);
  }

  *#sparseContent(entry: Entry, stored: number, sparse: Sparse): Steps {
    let extents = sparse.extents;
    let left = stored;
    if (extents === undefined) {
      const prefix = yield* readSparsePrefix(BLOCK, stored);
      extents = prefix.extents;
      left -= prefix.bytes;
    }
    checkExtents(extents, entry.size, left);
    this.#sink.entry(entry, undefined);
    for (const extent of extents) yield* this.#extent(extent);
    this.#sink.finish();
  }

  *#extent({ offset, length }: Extent): Steps {
    for (let position = 0; position < length;) {
      const chunk: Buffer = yield position - length;
      this.#sink.data(chunk, offset + position);
      position += chunk.length;
    }
  }
}

function untilNull(data: Buffer): ByteString {
  const end = data.indexOf(0);
  return data.toString('latin1', 0, end === -1 ? data.length : end);
}
