/** The files that a log has been, one after the other, so that a reader misses none however fast they are replaced. */
import type { BigIntStats } from 'node:fs';
import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** What kubelet makes of older ones, and while it does. Their lines were in a file that is known. */
const COMPRESSED = /\.(?:gz|tmp)$/;
/** Bytes of the time that a line begins with, and more. */
const TIME_LENGTH = 40;

interface LogFile {
  readonly path: string;
  readonly identity: string;
  /** When its first line was written; undefined while it has none. */
  readonly began: string | undefined;
}

/**
 * A file that is moved away stays in its directory for a while. Which have been read is known by their inodes, and by when these were
 * made, since a file system gives their numbers anew; in which order they are to be read, by the times of their first lines.
 */
export class Rotation {
  readonly #path: string;
  /** Files that have been read, or were older when that began. */
  readonly #known = new Set<string>();
  #current = '';

  private constructor(path: string) {
    this.#path = path;
  }

  /** @param file the one that is read first, and that the path has named */
  static async from(path: string, file: FileHandle): Promise<Rotation> {
    const rotation = new Rotation(path);
    await rotation.#reads(file);
    const files = await rotation.#files();
    const first = files.find(({ identity }) => identity === rotation.#current);
    for (const each of files)
      if (each.path !== path && (first === undefined || inOrder(each, first) < 0))
        rotation.#known.add(each.identity);
    return rotation;
  }

  async #reads(file: FileHandle): Promise<void> {
    this.#current = identityOf(await file.stat({ bigint: true }));
    this.#known.add(this.#current);
  }

  /** Whether another file has the name by now. While it is being replaced there may be none. */
  async isReplaced(): Promise<boolean> {
    const now = await identityAt(this.#path);
    return now !== undefined && now !== this.#current;
  }

  /** The one to be read after the current one; undefined when that has gone before it could be opened. */
  async next(): Promise<FileHandle | undefined> {
    const unread = (await this.#files()).filter(({ identity }) => !this.#known.has(identity));
    const found = unread
      .filter(({ began, path }) => began !== undefined || path === this.#path)
      .sort(inOrder)[0];
    if (found === undefined) return undefined;
    const file = await open(found.path, 'r').catch(() => undefined);
    if (file === undefined) return undefined;
    if (identityOf(await file.stat({ bigint: true })) !== found.identity) {
      // It has been moved away since it was listed.
      await file.close();
      return undefined;
    }
    await this.#reads(file);
    return file;
  }

  /** Those that there are, whatever has been read. */
  async #files(): Promise<LogFile[]> {
    const directory = dirname(this.#path);
    const name = basename(this.#path);
    const names = (await readdir(directory).catch(() => [])).filter(
      (each) => each === name || (each.startsWith(`${name}.`) && !COMPRESSED.test(each)),
    );
    const files = await Promise.all(names.map((each) => fileAt(join(directory, each))));
    return files.filter((file) => file !== undefined);
  }
}

async function fileAt(path: string): Promise<LogFile | undefined> {
  const file = await open(path, 'r').catch(() => undefined);
  if (file === undefined) return undefined;
  try {
    const identity = identityOf(await file.stat({ bigint: true }));
    const { buffer, bytesRead } = await file.read(Buffer.alloc(TIME_LENGTH), 0, TIME_LENGTH, 0);
    const [began = ''] = buffer.toString('latin1', 0, bytesRead).split(' ');
    return { path, identity, began: bytesRead === 0 ? undefined : began };
  } finally {
    await file.close();
  }
}

async function identityAt(path: string): Promise<string | undefined> {
  return await stat(path, { bigint: true }).then(identityOf, () => undefined);
}

function identityOf({ dev, ino, birthtimeNs }: BigIntStats): string {
  return [dev, ino, birthtimeNs].join(':');
}

/** One without a line is the newest. Fractions of seconds may have fewer digits where their last ones are zero (RFC 3339). */
function inOrder(a: LogFile, b: LogFile): number {
  if (a.began === undefined || b.began === undefined)
    return Number(a.began === undefined) - Number(b.began === undefined);
  const [first, second] = [sortable(a.began), sortable(b.began)];
  return first < second ? -1 : Number(first > second);
}

function sortable(time: string): string {
  return time.replace(
    /(?:\.(\d+))?Z$/,
    (_, fraction: string | undefined) => `.${(fraction ?? '').padEnd(9, '0')}Z`,
  );
}
