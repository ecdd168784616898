import {
  copyFileSync,
  constants,
  linkSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs';
import {
  type Attributes,
  type ByteString,
  getXattr,
  lstat,
  mknod,
  S_IF,
  setAttributes,
  setXattr,
  type Status,
} from '../../../native/native.ts';
import { invalidArgument } from '../../../ttrpc/errors.ts';
import { displayName } from '../archive/entry.ts';
import { setXattrs, xattrsOf } from './xattrs.ts';

/** As many links as the kernel follows on its way to a file (MAXSYMLINKS, path_resolution(7)). */
const MOST_LINKS = 40;
const OPAQUE = 'trusted.overlay.opaque';

/** Where the enclosure shows the tree that is written to, and what lies below it when that is an overlay's upper folder. */
export const ROOT = 'root';
export const LOWER = 'lower';

/** A folder of the tree by its real path, links resolved: `` is the root, `usr/bin` a folder in it. */
export type Folder = ByteString;

/**
 * The tree that a layer is unpacked into. Names are resolved as if the tree were mounted and the root of everything; only
 * the bottom of it, in an overlay, is a folder that cannot be written to, so that what is changed there appears in the upper
 * folder: copied, or hidden as overlayfs has it (kernel documentation, filesystems/overlayfs.rst, "whiteouts and opaque
 * directories"). Writing to the upper folder itself is faster by far than through the mount.
 */
export class Tree {
  readonly #hasLower: boolean;
  /** What the layer has made or gone through: nothing that a whiteout in the same layer may take. */
  readonly #own = new Set<ByteString>();
  /** Folders known to be there, and whether what the lower tree has in them shows through. */
  readonly #folders = new Map<Folder, boolean>();
  /** Real folders by the names they were reached with. */
  readonly #resolved = new Map<ByteString, Folder>();
  /** Links that names were resolved through. */
  readonly #followed = new Set<ByteString>();
  /** What folders are to look like in the end: making files in them changes their times. */
  readonly #pending = new Map<
    Folder,
    { attributes: Attributes; xattrs: ReadonlyMap<ByteString, Uint8Array> }
  >();

  constructor(hasLower: boolean) {
    this.#hasLower = hasLower;
    this.#forgetFolders();
    const status = lstat(ROOT);
    if (status !== undefined) this.#pending.set('', { attributes: status, xattrs: new Map() });
  }

  /** The path to use in calls. */
  path(folder: Folder, name: ByteString): ByteString {
    return folder === '' ? `${ROOT}/${name}` : `${ROOT}/${folder}/${name}`;
  }

  /**
   * Finds the folder of that name, through links; makes what is missing.
   *
   * @throws RpcError InvalidArgument when the way leads over something that is no folder
   */
  folder(components: readonly ByteString[]): Folder {
    const key = components.join('/');
    const known = this.#resolved.get(key);
    if (known !== undefined) return known;
    const rest = components.toReversed();
    let at: Folder = '';
    let links = 0;
    while (rest.length > 0) {
      const component = rest.pop()!;
      if (component === '' || component === '.') continue;
      if (component === '..') {
        at = parentOf(at);
        continue;
      }
      const next = at === '' ? component : `${at}/${component}`;
      const link = this.#enter(at, next);
      if (link === undefined) {
        at = next;
        continue;
      }
      this.#followed.add(next);
      if (++links > MOST_LINKS) throw invalidArgument(`${displayName(key)} goes through too many links`);
      if (link.startsWith('/')) at = '';
      rest.push(...link.split('/').reverse());
    }
    this.#resolved.set(key, at);
    return at;
  }

  /** Notes that the layer has made this. */
  own(folder: Folder, name: ByteString): void {
    const path = join(folder, name);
    this.#own.add(path);
    // It may stand in front of a link in the tree below.
    if (this.#followed.has(path)) this.#forgetFolders();
  }

  /** Removes what stands where something else is to be made. */
  clear(folder: Folder, name: ByteString): void {
    const path = join(folder, name);
    const status = lstat(`${ROOT}/${path}`);
    if (status === undefined) return;
    this.#remove(path, status);
    this.#own.delete(path);
  }

  /** Makes a folder, or takes the one that is there, and gives it its attributes in the end. */
  makeFolder(
    folder: Folder,
    name: ByteString,
    attributes: Attributes,
    xattrs: ReadonlyMap<ByteString, Uint8Array>,
  ): void {
    const path = join(folder, name);
    const status = lstat(`${ROOT}/${path}`);
    if (status === undefined) {
      this.#mkdir(path);
    } else if (!isFolder(status)) {
      const below = this.#lowerStatus(folder, path);
      this.#remove(path, status);
      this.#mkdir(path);
      // What stood here has hidden the folder below, and so must what replaces it.
      if (below !== undefined) this.#hide(path);
    }
    this.#pending.set(path, { attributes, xattrs });
    this.own(folder, name);
  }

  /** Makes another name for a file that is there, or in the tree below. */
  link(folder: Folder, name: ByteString, target: readonly ByteString[]): void {
    const targetName = target.at(-1);
    if (targetName === undefined) throw invalidArgument('it links to the root');
    const targetFolder = this.folder(target.slice(0, -1));
    const [from, to] = [join(targetFolder, targetName), join(folder, name)];
    let status = lstat(`${ROOT}/${from}`);
    if (status === undefined || (this.#hasLower && isWhiteout(status))) {
      const below = status === undefined ? this.#lowerStatus(targetFolder, from) : undefined;
      if (below === undefined) throw invalidArgument(`it links to ${displayName(from)}, which is not there`);
      if (!isFolder(below)) this.#copyUp(from, below);
      status = below;
    }
    if (isFolder(status)) throw invalidArgument(`it links to ${displayName(from)}, which is a folder`);
    if (from === to) return;
    this.clear(folder, name);
    linkSync(bytes(from), bytes(to));
  }

  /** Removes what lower layers have of that name; what this one has made stays. */
  whiteOut(folder: Folder, name: ByteString): void {
    const path = join(folder, name);
    const status = lstat(`${ROOT}/${path}`);
    if (status !== undefined && this.#own.has(path)) {
      if (isFolder(status)) this.makeOpaque(path);
      return;
    }
    const below = this.#lowerStatus(folder, path);
    if (status !== undefined) this.#remove(path, status);
    if (below !== undefined) mknod(`${ROOT}/${path}`, S_IF.CHR, 0, 0);
    if (this.#followed.has(path)) this.#forgetFolders();
  }

  /** Removes everything that lower layers have in the folder; what this one has made stays. */
  makeOpaque(folder: Folder): void {
    for (const name of readdirSync(bytes(folder), 'latin1')) {
      const path = join(folder, name);
      const status = lstat(`${ROOT}/${path}`);
      if (status === undefined) continue;
      if (!this.#own.has(path)) this.#remove(path, status);
      else if (isFolder(status)) this.makeOpaque(path);
    }
    if (this.#folders.get(folder) !== false) this.#hide(folder);
  }

  /** Gives the folders their attributes. */
  finish(): void {
    for (const [folder, { attributes, xattrs }] of this.#pending) {
      const path = folder === '' ? ROOT : `${ROOT}/${folder}`;
      setAttributes(path, attributes);
      setXattrs(path, xattrs);
    }
  }

  /** Goes one step down. Returns the target instead when there is a link. */
  #enter(parent: Folder, path: Folder): ByteString | undefined {
    if (this.#folders.has(path)) return undefined;
    const status = lstat(`${ROOT}/${path}`);
    const isHidden = status !== undefined && this.#hasLower && isWhiteout(status);
    const below = this.#lowerStatus(parent, path);
    if (status === undefined || isHidden) {
      if (isHidden) unlinkSync(bytes(path));
      if (!isHidden && below !== undefined && isLink(below)) return readLink(`${LOWER}/${path}`);
      if (!isHidden && below !== undefined && !isFolder(below)) throw notAFolder(path);
      this.#mkdir(path);
      const copied = isHidden ? undefined : below;
      if (isHidden && below !== undefined) this.#hide(path);
      const xattrs = copied === undefined ? new Map() : xattrsOf(`${LOWER}/${path}`);
      this.#pending.set(path, { attributes: copied ?? impliedFolder(), xattrs });
    } else if (isLink(status)) {
      return readLink(`${ROOT}/${path}`);
    } else if (!isFolder(status)) {
      throw notAFolder(path);
    } else if (!this.#pending.has(path)) {
      this.#pending.set(path, { attributes: status, xattrs: new Map() });
    }
    const showsLower =
      below !== undefined && isFolder(below) && getXattr(`${ROOT}/${path}`, OPAQUE) === undefined;
    this.#folders.set(path, showsLower);
    this.#own.add(path);
    return undefined;
  }

  /** What the tree below has there, unless something above it hides that. `folder` is known and holds `path`. */
  #lowerStatus(folder: Folder, path: ByteString): Status | undefined {
    if (this.#folders.get(folder) !== true) return undefined;
    return lstat(`${LOWER}/${path}`);
  }

  /** Keeps what the tree below has in this folder from showing through. */
  #hide(folder: Folder): void {
    if (!this.#hasLower) return;
    setXattr(`${ROOT}/${folder}`, OPAQUE, Buffer.from('y'));
    this.#forgetFolders();
  }

  #mkdir(path: Folder): void {
    mkdirSync(bytes(path), 0o700);
  }

  #remove(path: ByteString, status: Status): void {
    if (!isFolder(status)) {
      unlinkSync(bytes(path));
      if (isLink(status)) this.#forgetFolders();
      return;
    }
    this.#removeFolder(path);
    this.#forgetFolders();
  }

  /** Not recursive: a hostile layer can be deeper than the stack. */
  #removeFolder(folder: Folder): void {
    const stack: Folder[] = [folder];
    while (stack.length > 0) {
      const at = stack.at(-1)!;
      const below: Folder[] = [];
      for (const entry of readdirSync(bytes(at), { withFileTypes: true, encoding: 'latin1' })) {
        const path = join(at, entry.name);
        if (entry.isDirectory()) below.push(path);
        else unlinkSync(bytes(path));
        this.#own.delete(path);
      }
      if (below.length > 0) stack.push(...below);
      else {
        rmdirSync(bytes(at));
        this.#pending.delete(at);
        stack.pop();
      }
    }
  }

  #copyUp(path: ByteString, status: Status): void {
    const [from, to] = [`${LOWER}/${path}`, `${ROOT}/${path}`];
    switch (status.mode & S_IF.MT) {
      case S_IF.REG:
        copyFileSync(raw(from), raw(to), constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
        break;
      case S_IF.LNK:
        symlinkSync(raw(readLink(from)), raw(to));
        break;
      default:
        mknod(to, status.mode, status.major, status.minor);
    }
    setAttributes(to, status);
    setXattrs(to, xattrsOf(from));
  }

  #forgetFolders(): void {
    this.#resolved.clear();
    this.#followed.clear();
    this.#folders.clear();
    this.#folders.set('', this.#hasLower && getXattr(ROOT, OPAQUE) === undefined);
  }
}

function impliedFolder(): Attributes {
  const now = { seconds: Math.floor(Date.now() / 1000), nanos: 0 };
  return { mode: S_IF.DIR | 0o755, uid: 0, gid: 0, atime: now, mtime: now };
}

function isFolder({ mode }: Status): boolean {
  return (mode & S_IF.MT) === S_IF.DIR;
}

function isLink({ mode }: Status): boolean {
  return (mode & S_IF.MT) === S_IF.LNK;
}

function isWhiteout({ mode, major, minor }: Status): boolean {
  return (mode & S_IF.MT) === S_IF.CHR && major === 0 && minor === 0;
}

function notAFolder(path: ByteString): Error {
  return invalidArgument(`${displayName(path)} is no folder`);
}

function join(folder: Folder, name: ByteString): ByteString {
  return folder === '' ? name : `${folder}/${name}`;
}

function parentOf(folder: Folder): Folder {
  const slash = folder.lastIndexOf('/');
  return slash === -1 ? '' : folder.slice(0, slash);
}

function readLink(path: ByteString): ByteString {
  return readlinkSync(raw(path), 'latin1');
}

/** A path in the tree, for Node's own calls. */
function bytes(path: ByteString): Buffer {
  return raw(path === '' ? ROOT : `${ROOT}/${path}`);
}

function raw(path: ByteString): Buffer {
  return Buffer.from(path, 'latin1');
}
