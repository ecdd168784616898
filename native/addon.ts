import { fileURLToPath } from 'node:url';
import type { ForkOutcome } from './fork.ts';

/** What the compiled addon exports. Private to this folder: the typed functions are in the files named after their noun. */
interface Addon {
  setChildSubreaper(on: boolean): void;
  waitPid(pid: number): { code: number; signal: number } | undefined;
  pidfdOpen(pid: number): number;
  pidfdSendSignal(pidfd: number, signal: number): void;
  setSid(): void;
  getPid(): number;
  prctlName(name: string): void;

  trimMemory(): boolean;

  setCloexec(fd: number, on: boolean): void;
  setNonblock(fd: number, on: boolean): void;
  pipe(): { read: number; write: number };
  setPipeSize(fd: number, bytes: number): number;
  unreadBytes(fd: number): number;
  splice(from: number, to: number, length: number): number | undefined;
  flock(fd: number, exclusive: boolean): boolean;
  allocate(fd: number, offset: number, length: number): void;
  eventfd(): number;
  closeRange(first: number, onExec: boolean): void;

  pollOpen(fd: number, writable: boolean, callback: (error?: Error) => void): PollHandle;
  pollClose(handle: PollHandle): void;
  pollKeepAlive(handle: PollHandle, on: boolean): void;

  listenUnix(path: string, backlog: number): number;
  acceptUnix(fd: number): number | undefined;
  receiveFd(socket: number): number | undefined;
  sendFd(socket: number, fd: number): void;
  socketPair(): { first: number; second: number };
  peerPid(fd: number): number;
  sendDatagram(path: string, payload: string): void;
  startConnect(address: string, port: number): number;
  finishConnect(fd: number): void;

  setWindowSize(fd: number, rows: number, columns: number): void;
  getWindowSize(fd: number): { rows: number; columns: number };
  openPty(): { master: number; slave: number };

  mount(source: string, target: string, type: string, flags: number, data: string): void;
  unmount(target: string, flags: number): void;
  mountAside(source: string, type: string, flags: number, data: string, folder: string): number;
  mkfifo(path: string, mode: number): void;
  unshare(flags: number): void;
  setns(fd: number, flags: number): void;
  statfsType(path: string): number;

  fork(): number;
  forkForLines(fd: number, watched: readonly string[]): ForkOutcome;
  exitNow(code: number): never;
  spawn(
    paths: readonly string[],
    words: readonly string[],
    environment: readonly string[],
    cwd: string,
    descriptors: Float64Array,
    passing: number,
  ): number;
  sealedCopy(fd: number, name: string): number;
  announceMove(procs: string): void;

  lstat(path: string, status: Float64Array): boolean;
  setAttributes(path: string, attributes: Float64Array): void;
  writeFile(path: string, data: Uint8Array, attributes: Float64Array): void;
  mknod(path: string, mode: number, major: number, minor: number): void;
  setXattr(path: string, name: string, value: Uint8Array): void;
  getXattr(path: string, name: string): Buffer | undefined;
  listXattr(path: string): Buffer;

  chroot(path: string): void;
  keepCapabilities(low: number, high: number): void;
  syncFilesystem(path: string): void;

  treeUsage(path: string, base: string, cancel: Uint8Array): Promise<{ size: number; inodes: number }>;
  removeTree(path: string, cancel: Uint8Array): Promise<undefined>;
  copyTree(from: string, to: string, cancel: Uint8Array): Promise<undefined>;

  createSubvolume(folder: string, name: string, cancel: Uint8Array): Promise<undefined>;
  snapshotSubvolume(
    from: string,
    folder: string,
    name: string,
    readOnly: boolean,
    cancel: Uint8Array,
  ): Promise<undefined>;
  setSubvolumeReadOnly(path: string, on: boolean, cancel: Uint8Array): Promise<undefined>;
  deleteSubvolume(folder: string, name: string, cancel: Uint8Array): Promise<undefined>;
  subvolumeId(path: string): number;
}

/** A poll of the addon, opaque to JavaScript. */
export type PollHandle = { readonly poll: unique symbol };

let loaded: Addon | undefined;

/**
 * The addon, loaded by the first call rather than at import: a program that needs no system call pays nothing for it.
 *
 * The path is right from the sources (native/addon.ts) and from a bundle (dist/*.js) alike, as both lie one folder below
 * the root.
 *
 * @throws Error when the addon has not been built or does not fit this Node
 */
export function addon(): Addon {
  if (loaded === undefined) {
    const path = fileURLToPath(new URL('../native/build/moor.node', import.meta.url));
    const module: { exports: object } = { exports: {} };
    try {
      process.dlopen(module, path);
    } catch (cause) {
      throw new Error(`the native addon ${path} cannot be loaded; native/build.sh builds it`, { cause });
    }
    loaded = module.exports as Addon;
  }
  return loaded;
}
