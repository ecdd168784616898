import type { ByteString, Time } from '../../../native/native.ts';

export type EntryKind =
  'file' | 'link' | 'symlink' | 'character-device' | 'block-device' | 'directory' | 'fifo';

/** One member of a tar archive, whatever dialect said so. */
export interface Entry {
  /** As the archive has it; a directory's may end in a slash. */
  readonly name: ByteString;
  readonly kind: EntryKind;
  /** Permissions with setuid, setgid and sticky; the type is `kind`. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of content, holes included; 0 for everything but files. */
  readonly size: number;
  readonly mtime: Time;
  /** Where the archive has none, it is that of the last change. */
  readonly atime: Time;
  /** What a link or a symlink points to, else empty. */
  readonly linkName: ByteString;
  /** The number of a device, else 0. */
  readonly major: number;
  readonly minor: number;
  readonly xattrs: ReadonlyMap<ByteString, Uint8Array>;
}

/** Bytes of a file that are there; what lies between extents is a hole. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

export const NO_XATTRS: ReadonlyMap<ByteString, Uint8Array> = new Map();

/** A name for people: as UTF-8, quoted, with what would upset a terminal or a log escaped, and not too long. */
export function displayName(name: ByteString): string {
  const text = Buffer.from(name, 'latin1').toString('utf8');
  return JSON.stringify(text.length <= 160 ? text : `${text.slice(0, 120)}…${text.slice(-30)}`);
}
