import { closeSync, constants, fstatSync, openSync, readFileSync, readlinkSync } from 'node:fs';
import { mountAside, parseMountOptions } from '../native/native.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { failedPrecondition, invalidArgument, messageOf } from '../ttrpc/errors.ts';

/** As many symbolic links as the kernel follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/** Of a file that is read as a whole. */
const MAX_BYTES = 16 << 20;

/** From linux/fcntl.h, the same on every architecture that Node runs on; Node does not name it. */
const O_PATH = 0o10000000;

/**
 * A container's root filesystem, from which files are read as the container would read them. It is hostile: no link in it leads
 * out of it, whatever changes meanwhile, and nothing but a regular file is opened.
 */
export class RootDirectory implements Disposable {
  readonly #root: number;

  private constructor(root: number) {
    this.#root = root;
  }

  /** @throws RpcError InvalidArgument when there is no such directory */
  static open(path: string): RootDirectory {
    try {
      return new RootDirectory(openSync(path, O_PATH | constants.O_DIRECTORY));
    } catch (error) {
      throw invalidArgument(`the root filesystem ${path} cannot be opened: ${messageOf(error)}`, error);
    }
  }

  /**
   * A snapshot's, mounted where only this object reaches it. Needs the rights of root.
   *
   * @throws RpcError FailedPrecondition when it cannot be mounted here
   */
  static mount(mounts: readonly Mount[]): RootDirectory {
    const [first, ...others] = mounts;
    if (first === undefined || others.length > 0) {
      throw failedPrecondition(`a snapshot of ${mounts.length} mounts cannot be looked into`);
    }
    const { type, source, options } = first;
    if (parseMountOptions(options).loop || /^fuse3?\./.test(type)) {
      throw failedPrecondition(`a snapshot mounted as ${type} [${options.join(',')}] cannot be looked into`);
    }
    try {
      return new RootDirectory(mountAside(source, type, type === 'overlay' ? [...options, 'ro'] : options));
    } catch (error) {
      throw failedPrecondition(`cannot look into the snapshot: ${messageOf(error)}`, error);
    }
  }

  /**
   * A file's text; undefined when there is none.
   *
   * @param path from the root, such as `etc/passwd`
   * @throws RpcError InvalidArgument for what is no regular file, is too large, or a circle of links
   */
  readText(path: string): string | undefined {
    const folders: number[] = [];
    const pending = path.split('/');
    try {
      for (let links = 0; ;) {
        const name = pending.shift();
        // The way ended at a directory.
        if (name === undefined) throw invalidArgument(`/${path} in the root filesystem is no file`);
        if (name === '' || name === '.') continue;
        if (name === '..') {
          const left = folders.pop();
          if (left !== undefined) closeSync(left);
          continue;
        }
        // One name at a time, links not followed, so the kernel never leaves the folder (openat2(2) is not at hand).
        const entry = `/proc/self/fd/${folders.at(-1) ?? this.#root}/${name}`;
        const fd = openEntry(entry);
        if (fd === undefined) return undefined;
        folders.push(fd);
        const status = fstatSync(fd);
        if (status.isSymbolicLink()) {
          closeSync(folders.pop()!);
          if (++links > MAX_LINKS) throw invalidArgument(`too many symbolic links at /${path}`);
          const target = readlinkSync(entry);
          if (target.startsWith('/')) closeAll(folders);
          pending.unshift(...target.split('/'));
        } else if (!status.isDirectory()) {
          if (pending.some((rest) => rest !== '' && rest !== '.')) return undefined;
          if (!status.isFile()) throw invalidArgument(`/${path} in the root filesystem is no regular file`);
          if (status.size > MAX_BYTES) throw invalidArgument(`/${path} has more than ${MAX_BYTES} bytes`);
          return readFileSync(`/proc/self/fd/${fd}`, 'utf8');
        }
      }
    } finally {
      closeAll(folders);
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#root);
  }
}

function openEntry(path: string): number | undefined {
  try {
    return openSync(path, O_PATH | constants.O_NOFOLLOW);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

function closeAll(descriptors: number[]): void {
  for (const fd of descriptors.splice(0)) closeSync(fd);
}
