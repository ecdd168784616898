import { addon } from './addon.ts';

/**
 * A name or path as the kernel has it: bytes, one character each ('latin1'). Names in archives and directories need not be
 * UTF-8, and a string of UTF-16 would not give them back.
 */
export type ByteString = string;

/** A moment: whole seconds since 1970, negative before, and nanoseconds from 0 to 999,999,999 after it. */
export interface Time {
  readonly seconds: number;
  readonly nanos: number;
}

/** What the kernel keeps of a file beside its content. `mode` holds the type (S_IFMT) as well as the permissions. */
export interface Attributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly atime: Time;
  readonly mtime: Time;
}

export interface Status extends Attributes {
  readonly size: number;
  readonly links: number;
  /** Device and inode: equal for two names of one file. */
  readonly identity: string;
  /** The number of a device node; 0 for anything else. */
  readonly major: number;
  readonly minor: number;
}

/** The type's part of a mode and its values, as inode(7) has them. */
export const S_IF = {
  MT: 0o170000,
  SOCK: 0o140000,
  LNK: 0o120000,
  REG: 0o100000,
  BLK: 0o060000,
  DIR: 0o040000,
  CHR: 0o020000,
  FIFO: 0o010000,
} as const;

// One array for all calls: they are synchronous, and making an object per call across Node-API costs more than the call.
const status = new Float64Array(14);
const attributes = new Float64Array(7);

/**
 * The status of `path` itself, links not followed.
 *
 * @returns undefined when there is nothing of that name
 */
export function lstat(path: ByteString): Status | undefined {
  if (!addon().lstat(path, status)) return undefined;
  return {
    mode: status[0]!,
    uid: status[1]!,
    gid: status[2]!,
    size: status[3]!,
    atime: { seconds: status[4]!, nanos: status[5]! },
    mtime: { seconds: status[6]!, nanos: status[7]! },
    links: status[8]!,
    identity: `${status[11]!}:${status[9]!}:${status[10]!}`,
    major: status[12]!,
    minor: status[13]!,
  };
}

function pack(from: Attributes): Float64Array {
  attributes[0] = from.mode;
  attributes[1] = from.uid;
  attributes[2] = from.gid;
  attributes[3] = from.atime.seconds;
  attributes[4] = from.atime.nanos;
  attributes[5] = from.mtime.seconds;
  attributes[6] = from.mtime.nanos;
  return attributes;
}

/**
 * Sets owner, permissions and times of `path` itself. Changing the owner clears `security.capability`: set that afterwards
 * (capabilities(7)). A mode that says symbolic link leaves the permissions alone.
 */
export function setAttributes(path: ByteString, to: Attributes): void {
  addon().setAttributes(path, pack(to));
}

/**
 * Makes a file that was not there, with its whole content and its attributes, in one go.
 *
 * @throws EEXIST when there is anything of that name, a dangling link included
 */
export function writeNewFile(path: ByteString, data: Uint8Array, to: Attributes): void {
  addon().writeFile(path, data, pack(to));
}

/** Makes a device, FIFO or socket; `mode` holds its type. The umask applies. */
export function mknod(path: ByteString, mode: number, major: number, minor: number): void {
  addon().mknod(path, mode, major, minor);
}

/**
 * Sets an extended attribute of `path` itself.
 *
 * @throws ENOTSUP when the filesystem has none of this kind, EPERM for `user.` ones of what is neither file nor directory
 */
export function setXattr(path: ByteString, name: ByteString, value: Uint8Array): void {
  addon().setXattr(path, name, value);
}

/** An extended attribute of `path` itself; undefined when it is not set or the filesystem has none. */
export function getXattr(path: ByteString, name: ByteString): Buffer | undefined {
  return addon().getXattr(path, name);
}

/** The names of the extended attributes of `path` itself, in the filesystem's order. */
export function listXattrs(path: ByteString): ByteString[] {
  const names = addon().listXattr(path);
  return names.length === 0 ? [] : names.toString('latin1', 0, names.length - 1).split('\0');
}
