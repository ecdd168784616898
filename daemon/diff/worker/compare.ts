import { closeSync, fstatSync, readSync } from 'node:fs';
import { type ByteString, lstat, S_IF, type Status, type Time } from '../../../native/native.ts';
import type { Mount } from '../../../proto/gen/containerd/types/mount.ts';
import { failedPrecondition, messageOf, RpcError, unknown } from '../../../ttrpc/errors.ts';
import { displayName, type Entry, type EntryKind, NO_XATTRS } from '../archive/entry.ts';
import { encodeEntry, END_OF_ARCHIVE, paddingOf } from '../archive/writer.ts';
import type { Archive, CompareJob } from '../job.ts';
import { layersOf, overlayLayers, readOnlyMounts } from '../overlay.ts';
import { type Change, changes, GUIDE, LEFT, openFile, readLink, RIGHT } from './changes.ts';
import type { Enclosure } from './enclosure.ts';
import { Output } from './output.ts';
import { recordedXattrs } from './xattrs.ts';

const PIECE = 256 * 1024;
const WHITEOUT = '.wh.';
const EPOCH: Time = { seconds: 0, nanos: 0 };

/**
 * Writes the layer that leads from one tree to another.
 *
 * @returns the archive's digest and size before compression
 * @throws RpcError naming the file and the cause
 */
export async function compare(job: CompareJob, file: number, enclosure: Enclosure): Promise<Archive> {
  const trees = treesOf(job);
  return enclosure.within(trees, async () => {
    const output = new Output(file, job.compression);
    try {
      const layer = new LayerWriter(output, job.latest ?? Infinity);
      for (const change of changes(GUIDE in trees)) await layer.add(change);
      return await layer.end();
    } finally {
      output.destroy();
    }
  });
}

/**
 * Both trees, neither of which can be written to: an overlay with an upper folder is shown as one of that folder over the others,
 * as two mounts with one upper folder would get in each other's way (kernel documentation, filesystems/overlayfs.rst).
 */
function treesOf({ left, right }: CompareJob): Record<string, readonly Mount[]> {
  const trees: Record<string, readonly Mount[]> = { [LEFT]: readOnly(left), [RIGHT]: readOnly(right) };
  const [over, under] = [layersOf(right), layersOf(left)];
  const [upper, ...lowers] = over ?? [];
  const isOver = upper !== undefined && lowers.length > 0 && lowers.join(':') === under?.join(':');
  return isOver ? { ...trees, [GUIDE]: readOnlyMounts([upper]) } : trees;
}

function readOnly(mounts: readonly Mount[]): readonly Mount[] {
  const layers = overlayLayers(mounts);
  if (layers?.upper !== undefined) return readOnlyMounts([layers.upper, ...layers.lowers], layers.others);
  return mounts.map((each) => ({
    ...each,
    options: [...each.options.filter((option) => option !== 'rw'), 'ro'],
  }));
}

const KINDS: Readonly<Record<number, EntryKind>> = {
  [S_IF.REG]: 'file',
  [S_IF.DIR]: 'directory',
  [S_IF.LNK]: 'symlink',
  [S_IF.CHR]: 'character-device',
  [S_IF.BLK]: 'block-device',
  [S_IF.FIFO]: 'fifo',
};

/** Turns changes into the entries of a layer. */
class LayerWriter {
  readonly #output: Output;
  readonly #latest: number;
  /** Folders that have an entry. */
  readonly #folders = new Set<ByteString>(['']);
  /** The first name of every file with several, and names that would be links to it if it were in the layer. */
  readonly #firstNames = new Map<string, ByteString>();
  readonly #otherNames = new Map<string, [ByteString, Status][]>();

  /** @param latest seconds since 1970 after which no time in the layer is */
  constructor(output: Output, latest: number) {
    this.#output = output;
    this.#latest = latest;
  }

  async add(change: Change): Promise<void> {
    try {
      if (change.kind === 'removed') await this.#whiteOut(change.path);
      else if (change.kind === 'made') await this.#make(change.path, change.status);
      else await this.#keep(change.path, change.status);
    } catch (error) {
      const what = `cannot read ${displayName(change.path)}: ${messageOf(error)}`;
      throw error instanceof RpcError
        ? new RpcError(error.code, what, { cause: error })
        : unknown(what, error);
    }
  }

  async end(): Promise<Archive> {
    await this.#output.write(END_OF_ARCHIVE);
    return this.#output.end();
  }

  async #whiteOut(path: ByteString): Promise<void> {
    await this.#parents(path);
    const slash = path.lastIndexOf('/') + 1;
    const name = `${path.slice(0, slash)}${WHITEOUT}${path.slice(slash)}`;
    await this.#put({
      name,
      kind: 'file',
      mode: 0,
      uid: 0,
      gid: 0,
      size: 0,
      ...NOTHING,
      mtime: EPOCH,
      atime: EPOCH,
    });
  }

  async #make(path: ByteString, status: Status): Promise<void> {
    if (path.startsWith(WHITEOUT, path.lastIndexOf('/') + 1)) {
      throw failedPrecondition(`a layer cannot have names that begin with ${WHITEOUT}`);
    }
    const kind = KINDS[status.mode & S_IF.MT];
    if (kind === undefined) return;
    await this.#parents(path);
    if (kind === 'directory') {
      this.#folders.add(path);
      return this.#put(this.#entry(path, kind, status));
    }
    if (status.links > 1) {
      const first = this.#firstNames.get(status.identity);
      if (first !== undefined) return this.#link(path, status, first);
      this.#firstNames.set(status.identity, path);
    }
    if (kind === 'file') await this.#file(path, status);
    else await this.#put(this.#entry(path, kind, status));
    for (const [other, itsStatus] of this.#otherNames.get(status.identity) ?? []) {
      await this.#parents(other);
      await this.#link(other, itsStatus, path);
    }
    this.#otherNames.delete(status.identity);
  }

  /** Nothing has changed here, but the same file may be in the layer under another name. */
  async #keep(path: ByteString, status: Status): Promise<void> {
    const first = this.#firstNames.get(status.identity);
    if (first !== undefined) {
      await this.#parents(path);
      return this.#link(path, status, first);
    }
    const others = this.#otherNames.get(status.identity);
    if (others === undefined) this.#otherNames.set(status.identity, [[path, status]]);
    else others.push([path, status]);
  }

  /** Folders come before what they hold, changed or not, so that the layer does not depend on what is below it. */
  async #parents(path: ByteString): Promise<void> {
    for (let slash = path.indexOf('/'); slash !== -1; slash = path.indexOf('/', slash + 1)) {
      const folder = path.slice(0, slash);
      if (this.#folders.has(folder)) continue;
      this.#folders.add(folder);
      const status = lstat(`${RIGHT}/${folder}`);
      if (status === undefined) throw failedPrecondition('its folder has gone meanwhile');
      await this.#put(this.#entry(folder, 'directory', status));
    }
  }

  async #link(path: ByteString, status: Status, linkName: ByteString): Promise<void> {
    await this.#put({ ...this.#entry(path, 'link', status), linkName });
  }

  async #file(path: ByteString, status: Status): Promise<void> {
    const fd = openFile(`${RIGHT}/${path}`);
    try {
      const now = fstatSync(fd);
      if (!now.isFile()) throw failedPrecondition('it has been replaced meanwhile');
      await this.#put({ ...this.#entry(path, 'file', status), size: now.size });
      for (let position = 0; position < now.size;) {
        const piece = Buffer.allocUnsafe(Math.min(PIECE, now.size - position));
        const count = readSync(fd, piece, 0, piece.length, position);
        if (count === 0) throw failedPrecondition('it has become shorter meanwhile');
        position += count;
        await this.#output.write(piece.subarray(0, count));
      }
      await this.#output.write(paddingOf(now.size));
    } finally {
      closeSync(fd);
    }
  }

  #entry(path: ByteString, kind: EntryKind, status: Status): Entry {
    const isLate = status.mtime.seconds >= this.#latest;
    const mtime = isLate ? { seconds: this.#latest, nanos: 0 } : status.mtime;
    return {
      ...NOTHING,
      name: kind === 'directory' ? `${path}/` : path,
      kind,
      mode: status.mode & 0o7777,
      uid: status.uid,
      gid: status.gid,
      size: 0,
      mtime,
      atime: mtime,
      linkName: kind === 'symlink' ? readLink(`${RIGHT}/${path}`) : '',
      major: status.major,
      minor: status.minor,
      xattrs: recordedXattrs(`${RIGHT}/${path}`),
    };
  }

  async #put(entry: Entry): Promise<void> {
    await this.#output.write(encodeEntry(entry));
  }
}

const NOTHING = { linkName: '', major: 0, minor: 0, xattrs: NO_XATTRS } as const;
