import { constants, mount } from './mount.ts';

/** What mount(2) wants, from options as /etc/fstab has them. */
export interface MountOptions {
  /** MS_* or'ed together. */
  readonly flags: number;
  /** The filesystem's own options. */
  readonly data: readonly string[];
  /** The source is to be attached to a loop device first. */
  readonly loop: boolean;
}

const SET: Readonly<Record<string, number>> = {
  bind: constants.MS_BIND,
  rbind: constants.MS_BIND | constants.MS_REC,
  remount: constants.MS_REMOUNT,
  ro: constants.MS_RDONLY,
  nosuid: constants.MS_NOSUID,
  nodev: constants.MS_NODEV,
  noexec: constants.MS_NOEXEC,
  sync: constants.MS_SYNCHRONOUS,
  dirsync: constants.MS_DIRSYNC,
  mand: constants.MS_MANDLOCK,
  noatime: constants.MS_NOATIME,
  nodiratime: constants.MS_NODIRATIME,
  relatime: constants.MS_RELATIME,
  strictatime: constants.MS_STRICTATIME,
  nosymfollow: constants.MS_NOSYMFOLLOW,
  shared: constants.MS_SHARED,
  rshared: constants.MS_SHARED | constants.MS_REC,
  private: constants.MS_PRIVATE,
  rprivate: constants.MS_PRIVATE | constants.MS_REC,
  slave: constants.MS_SLAVE,
  rslave: constants.MS_SLAVE | constants.MS_REC,
  unbindable: constants.MS_UNBINDABLE,
  runbindable: constants.MS_UNBINDABLE | constants.MS_REC,
};

const CLEAR: Readonly<Record<string, number>> = {
  defaults: 0,
  rw: constants.MS_RDONLY,
  suid: constants.MS_NOSUID,
  dev: constants.MS_NODEV,
  exec: constants.MS_NOEXEC,
  async: constants.MS_SYNCHRONOUS,
  nomand: constants.MS_MANDLOCK,
  atime: constants.MS_NOATIME,
  diratime: constants.MS_NODIRATIME,
  norelatime: constants.MS_RELATIME,
  nostrictatime: constants.MS_STRICTATIME,
};

/** Reads options as mount(8) names them; what is not one of its flags belongs to the filesystem. The last one wins. */
export function parseMountOptions(options: readonly string[]): MountOptions {
  let flags = 0;
  let loop = false;
  const data: string[] = [];
  for (const option of options) {
    if (Object.hasOwn(SET, option)) flags |= SET[option]!;
    else if (Object.hasOwn(CLEAR, option)) flags &= ~CLEAR[option]!;
    else if (option === 'loop') loop = true;
    else data.push(option);
  }
  return { flags, data, loop };
}

/** Lower directories of an overlay, relative to a folder that all of them are in. */
export interface CompactedData {
  readonly folder: string;
  readonly data: readonly string[];
}

const LOWER = 'lowerdir=';

/**
 * Shortens an overlay's lower directories, which do not fit into the one page that mount(2) takes when an image has many
 * layers: mounted from `folder` as working directory, their names need not repeat it.
 *
 * @returns undefined when there is nothing to shorten
 */
export function compactLowerDirectories(data: readonly string[]): CompactedData | undefined {
  const option = data.find((each) => each.startsWith(LOWER));
  if (option === undefined) return undefined;
  const paths = option.slice(LOWER.length).split(':');
  const folder = commonFolder(paths);
  if (folder === undefined) return undefined;
  const relative = paths.map((path) => path.slice(folder.length + 1)).join(':');
  return { folder, data: data.map((each) => (each === option ? LOWER + relative : each)) };
}

/** The deepest folder, other than the root, that holds all the absolute paths. */
function commonFolder(paths: readonly string[]): string | undefined {
  const [first, ...others] = paths.map((path) => path.split('/'));
  if (first === undefined || others.length === 0 || first[0] !== '') return undefined;
  const shortest = Math.min(first.length, ...others.map((other) => other.length)) - 1;
  let depth = 0;
  while (depth < shortest && others.every((other) => other[depth] === first[depth])) depth++;
  return depth > 1 ? first.slice(0, depth).join('/') : undefined;
}

const PROPAGATION = constants.MS_SHARED | constants.MS_PRIVATE | constants.MS_SLAVE | constants.MS_UNBINDABLE;
/** mount(2) reads at most a page of data. The reserve is containerd's. */
const MOST_DATA = 4096 - 512;

/**
 * Mounts as mount(8) would, what needs no program of its own.
 *
 * @throws the kernel's error
 */
export function mountByKernel(
  type: string,
  source: string,
  target: string,
  { flags, data }: MountOptions,
): void {
  const plain = flags & ~PROPAGATION;
  const isPropagationOnly = (flags & constants.MS_REMOUNT) !== 0 && data.length === 0;
  if (!isPropagationOnly) mountWithData(type, source, target, plain, data);
  if ((flags & PROPAGATION) !== 0)
    mount('', target, '', flags & (PROPAGATION | constants.MS_REC | constants.MS_SILENT), '');
  const readOnlyBind = constants.MS_BIND | constants.MS_RDONLY;
  // A bind takes the flags of what it binds; only mounting it once more changes them (mount(2)).
  if ((plain & readOnlyBind) === readOnlyBind) mount('', target, '', plain | constants.MS_REMOUNT, '');
}

function mountWithData(
  type: string,
  source: string,
  target: string,
  flags: number,
  data: readonly string[],
): void {
  const isLong = type === 'overlay' && Buffer.byteLength(data.join(',')) > MOST_DATA;
  const compacted = isLong ? compactLowerDirectories(data) : undefined;
  if (compacted === undefined) return mount(source, target, type, flags, data.join(','));
  const before = process.cwd();
  process.chdir(compacted.folder);
  try {
    mount(source, target, type, flags, compacted.data.join(','));
  } finally {
    process.chdir(before);
  }
}
