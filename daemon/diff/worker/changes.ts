import { closeSync, constants, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import { type ByteString, getXattr, lstat, S_IF, type Status } from '../../../native/native.ts';
import { recordedXattrs } from './xattrs.ts';

/** Where the enclosure shows the two trees, and the upper folder of the right one where that is an overlay over the left. */
export const LEFT = 'left';
export const RIGHT = 'right';
export const GUIDE = 'guide';

/** What leads from the left tree to the right one, at one path. */
export type Change =
  | { readonly kind: 'removed'; readonly path: ByteString }
  | { readonly kind: 'made' | 'same'; readonly path: ByteString; readonly status: Status };

/** What is looked at below a folder: all of both trees; of the right one only; or only where the guide has something. */
type Scope = 'both' | 'right' | 'guided';

/**
 * Walks both trees and tells what is different, sorted by name, folders before what they hold. `same` is told of files that
 * have several names, one of which may have been made.
 */
export function* changes(hasGuide: boolean): Generator<Change> {
  yield* below('', hasGuide ? 'guided' : 'both');
}

function* below(folder: ByteString, scope: Scope): Generator<Change> {
  for (const name of names(folder, scope)) {
    const path = folder === '' ? name : `${folder}/${name}`;
    const left = scope === 'right' ? undefined : lstatFile(`${LEFT}/${path}`);
    const right = lstatFile(`${RIGHT}/${path}`);
    if (right === undefined) {
      if (left !== undefined) yield { kind: 'removed', path };
      continue;
    }
    const isSame = left !== undefined && same(path, left, right, scope === 'guided');
    if (!isSame) yield { kind: 'made', path, status: right };
    if (isFolder(right)) yield* below(path, scopeBelow(path, scope, left));
    else if (isSame && right.links > 1) yield { kind: 'same', path, status: right };
  }
}

function names(folder: ByteString, scope: Scope): ByteString[] {
  if (scope === 'guided') return list(GUIDE, folder).sort();
  if (scope === 'right') return list(RIGHT, folder).sort();
  return [...new Set([...list(LEFT, folder), ...list(RIGHT, folder)])].sort();
}

function list(tree: string, folder: ByteString): ByteString[] {
  return readdirSync(raw(folder === '' ? tree : `${tree}/${folder}`), 'latin1');
}

/**
 * The upper folder tells where to look as long as it adds to the folder below. Where it hides that (opaque) or stands for another
 * one (redirect), the trees themselves are compared; so are its marks never taken for more than a hint.
 */
function scopeBelow(path: ByteString, scope: Scope, left: Status | undefined): Scope {
  if (left === undefined || !isFolder(left)) return 'right';
  if (scope !== 'guided') return scope;
  const guide = lstat(`${GUIDE}/${path}`);
  if (guide === undefined || !isFolder(guide)) return 'both';
  const marks = ['opaque', 'redirect'].flatMap((mark) => [`trusted.overlay.${mark}`, `user.overlay.${mark}`]);
  return marks.some((mark) => getXattr(`${GUIDE}/${path}`, mark) !== undefined) ? 'both' : 'guided';
}

/** Sockets are nothing: they mean something only to the process that made them. */
function lstatFile(path: ByteString): Status | undefined {
  const status = lstat(path);
  return status === undefined || (status.mode & S_IF.MT) === S_IF.SOCK ? undefined : status;
}

/**
 * Whether nothing has changed at this path.
 *
 * @param isSuspect compare the content however alike the attributes are
 */
function same(path: ByteString, left: Status, right: Status, isSuspect: boolean): boolean {
  const isAlike =
    left.mode === right.mode &&
    left.uid === right.uid &&
    left.gid === right.gid &&
    left.major === right.major &&
    left.minor === right.minor &&
    left.mtime.seconds === right.mtime.seconds &&
    left.mtime.nanos === right.mtime.nanos;
  const [one, other] = [`${LEFT}/${path}`, `${RIGHT}/${path}`];
  if (!isAlike || !sameXattrs(one, other)) return false;
  if (isFolder(right)) return true;
  if (left.size !== right.size) return false;
  if ((right.mode & S_IF.MT) === S_IF.LNK) return readLink(one) === readLink(other);
  if ((right.mode & S_IF.MT) !== S_IF.REG || right.size === 0) return true;
  // Whole seconds may come from an archive that knew no more, and be equal by chance.
  return (!isSuspect && right.mtime.nanos !== 0) || sameContent(one, other);
}

function sameXattrs(one: ByteString, other: ByteString): boolean {
  const [left, right] = [recordedXattrs(one), recordedXattrs(other)];
  if (left.size !== right.size) return false;
  for (const [name, value] of left) if (right.get(name)?.equals(value) !== true) return false;
  return true;
}

const PIECE = 64 * 1024;
const pieces = [Buffer.alloc(PIECE), Buffer.alloc(PIECE)] as const;

function sameContent(one: ByteString, other: ByteString): boolean {
  const left = openFile(one);
  try {
    const right = openFile(other);
    try {
      for (let position = 0; ; position += PIECE) {
        const count = readSync(left, pieces[0], 0, PIECE, position);
        if (readSync(right, pieces[1], 0, PIECE, position) !== count) return false;
        if (pieces[0].compare(pieces[1], 0, count, 0, count) !== 0) return false;
        if (count < PIECE) return true;
      }
    } finally {
      closeSync(right);
    }
  } finally {
    closeSync(left);
  }
}

/** Opens a file for reading; a link or FIFO that has taken its place since it was looked at neither leads away nor blocks. */
export function openFile(path: ByteString): number {
  return openSync(raw(path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
}

export function readLink(path: ByteString): ByteString {
  return readlinkSync(raw(path), 'latin1');
}

export function isFolder({ mode }: Status): boolean {
  return (mode & S_IF.MT) === S_IF.DIR;
}

function raw(path: ByteString): Buffer {
  return Buffer.from(path, 'latin1');
}
