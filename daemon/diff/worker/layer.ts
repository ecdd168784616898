import { closeSync, constants, ftruncateSync, openSync, symlinkSync, writeSync } from 'node:fs';
import {
  type Attributes,
  type ByteString,
  mknod,
  S_IF,
  setAttributes,
  writeNewFile,
} from '../../../native/native.ts';
import { invalidArgument, messageOf, resourceExhausted, RpcError, unknown } from '../../../ttrpc/errors.ts';
import { displayName, type Entry, type EntryKind } from '../archive/entry.ts';
import type { ArchiveSink } from '../archive/reader.ts';
import { type Limits, NAME_BYTES } from '../limits.ts';
import type { Folder, Tree } from './tree.ts';
import { setXattrs } from './xattrs.ts';

/** Marks of the image specification (opencontainers/image-spec, layer.md, "Whiteouts"), which come from aufs. */
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** Aufs's own books (`.wh..wh.plnk`, `.wh..wh.aufs`), which old images have. */
const BOOKS = '.wh..wh.';

const TYPES: Readonly<Record<Exclude<EntryKind, 'link'>, number>> = {
  file: S_IF.REG,
  directory: S_IF.DIR,
  symlink: S_IF.LNK,
  'character-device': S_IF.CHR,
  'block-device': S_IF.BLK,
  fifo: S_IF.FIFO,
};

interface OpenFile {
  readonly fd: number;
  readonly entry: Entry;
  readonly path: ByteString;
  end: number;
}

/** Puts the entries of a layer's archive into a tree. */
export class Layer implements ArchiveSink {
  readonly #tree: Tree;
  readonly #limits: Limits;
  #entries = 0;
  #open: OpenFile | undefined;

  constructor(tree: Tree, limits: Limits) {
    this.#tree = tree;
    this.#limits = limits;
  }

  /** @throws RpcError naming the entry: InvalidArgument for what cannot be, ResourceExhausted beyond a limit or a full disk */
  entry(entry: Entry, content: Uint8Array | undefined): void {
    this.#attempt(entry, () => {
      if (++this.#entries > this.#limits.entries) {
        throw resourceExhausted(`the layer has more than ${this.#limits.entries} entries`);
      }
      const components = this.#components(entry.name);
      const name = components.pop();
      // The root's attributes belong to the snapshotter, as with containerd.
      if (name === undefined) return;
      const folder = this.#tree.folder(components);
      if (name.startsWith(WHITEOUT)) this.#whiteOut(folder, name);
      else this.#make(folder, name, entry, content);
    });
  }

  data(chunk: Uint8Array, position: number): void {
    const open = this.#open;
    if (open === undefined) return;
    this.#attempt(open.entry, () => {
      for (let written = 0; written < chunk.length;) {
        written += writeSync(open.fd, chunk, written, chunk.length - written, position + written);
      }
      open.end = position + chunk.length;
    });
  }

  finish(): void {
    const open = this.#open;
    if (open === undefined) return;
    this.#attempt(open.entry, () => {
      if (open.end < open.entry.size) ftruncateSync(open.fd, open.entry.size);
      this.#open = undefined;
      closeSync(open.fd);
      setAttributes(open.path, attributesOf(open.entry, S_IF.REG));
      setXattrs(open.path, open.entry.xattrs);
    });
  }

  /** Gives up: nothing stays open. */
  close(): void {
    if (this.#open !== undefined) closeSync(this.#open.fd);
    this.#open = undefined;
  }

  #whiteOut(folder: Folder, name: ByteString): void {
    if (name === OPAQUE) return this.#tree.makeOpaque(folder);
    if (name.startsWith(BOOKS)) return;
    const hidden = name.slice(WHITEOUT.length);
    if (hidden === '' || hidden === '.' || hidden === '..') throw invalidArgument('it is no valid whiteout');
    this.#tree.whiteOut(folder, hidden);
  }

  #make(folder: Folder, name: ByteString, entry: Entry, content: Uint8Array | undefined): void {
    const { kind } = entry;
    if (kind === 'link') this.#tree.link(folder, name, this.#components(entry.linkName));
    else if (kind === 'directory') {
      return this.#tree.makeFolder(folder, name, attributesOf(entry, S_IF.DIR), entry.xattrs);
    } else {
      const path = this.#tree.path(folder, name);
      try {
        this.#makeNew(path, kind, entry, content);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        this.#tree.clear(folder, name);
        this.#makeNew(path, kind, entry, content);
      }
      if (this.#open === undefined && entry.xattrs.size > 0) setXattrs(path, entry.xattrs);
    }
    // A link's header repeats the file's attributes, and may lack those that a header does not always have.
    this.#tree.own(folder, name);
  }

  #makeNew(
    path: ByteString,
    kind: Exclude<EntryKind, 'link' | 'directory'>,
    entry: Entry,
    content: Uint8Array | undefined,
  ): void {
    const attributes = attributesOf(entry, TYPES[kind]);
    if (kind === 'file') {
      if (content !== undefined) writeNewFile(path, content, attributes);
      else this.#open = { fd: this.#openNew(path, entry), entry, path, end: 0 };
      return;
    }
    if (kind === 'symlink') {
      symlinkSync(Buffer.from(this.#target(entry), 'latin1'), Buffer.from(path, 'latin1'));
    } else {
      mknod(path, TYPES[kind] | 0o600, entry.major, entry.minor);
    }
    setAttributes(path, attributes);
  }

  #openNew(path: ByteString, { size }: Entry): number {
    if (size > this.#limits.bytes) throw resourceExhausted(`it has more than ${this.#limits.bytes} bytes`);
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    return openSync(Buffer.from(path, 'latin1'), flags, 0o600);
  }

  #target({ linkName }: Entry): ByteString {
    if (linkName === '') throw invalidArgument('it links to nothing');
    if (linkName.includes('\0') || linkName.length >= this.#limits.pathBytes)
      throw invalidArgument('its link is too long');
    return linkName;
  }

  /** A name's parts, from the root. Absolute names mean the root of the layer. */
  #components(name: ByteString): ByteString[] {
    if (name.includes('\0')) throw invalidArgument('its name has a null byte');
    if (name.length > this.#limits.pathBytes) {
      throw invalidArgument(`a name of ${name.length} bytes is longer than ${this.#limits.pathBytes}`);
    }
    const components: ByteString[] = [];
    for (const part of name.split('/')) {
      if (part === '' || part === '.') continue;
      if (part.length > NAME_BYTES)
        throw invalidArgument(`a part of a name is longer than ${NAME_BYTES} bytes`);
      if (part !== '..') components.push(part);
      else if (components.pop() === undefined) throw invalidArgument('its name leads out of the layer');
    }
    if (components.length > this.#limits.depth)
      throw invalidArgument(`it is deeper than ${this.#limits.depth} folders`);
    return components;
  }

  #attempt(entry: Entry, work: () => void): void {
    try {
      work();
    } catch (error) {
      throw explain(entry, error);
    }
  }
}

function attributesOf({ mode, uid, gid, atime, mtime }: Entry, type: number): Attributes {
  // As containerd does: something unpacked later than it was read was not read before it was changed.
  const isRead =
    atime.seconds > mtime.seconds || (atime.seconds === mtime.seconds && atime.nanos > mtime.nanos);
  return { mode: type | mode, uid, gid, atime: isRead ? atime : mtime, mtime };
}

const FULL = new Set(['ENOSPC', 'EDQUOT', 'EMLINK']);
/** What only the layer can be to blame for. */
const WRONG = new Set([
  'ENAMETOOLONG',
  'ENOTDIR',
  'EISDIR',
  'ENOENT',
  'ELOOP',
  'EINVAL',
  'EEXIST',
  'ENOTEMPTY',
  'ERANGE',
]);

function explain(entry: Entry, error: unknown): RpcError {
  const what = `cannot unpack ${displayName(entry.name)}: ${messageOf(error)}`;
  if (error instanceof RpcError) return new RpcError(error.code, what, { cause: error });
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (FULL.has(code)) return resourceExhausted(what, error);
  return WRONG.has(code) ? invalidArgument(what, error) : unknown(what, error);
}
