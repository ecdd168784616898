/** The daemon's listening sockets. */
import { chmodSync, chownSync, lstatSync, mkdirSync, rmSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { listenUnix } from '../native/native.ts';
import type { Charge } from './caretaker.ts';
import { pidBehind } from './grpc/peer.ts';
import { isAlive, processStat } from './process-stat.ts';

export interface SocketOwner {
  readonly uid: number;
  /** A group other than 0 may use the socket too. */
  readonly gid: number;
}

const BACKLOG = 4096;

/**
 * True when somebody accepts connections at `path`. The kernel takes them also for a daemon that is dead, as long as a child of its has the
 * socket that it was killed in starting: between fork and exec.
 */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      const pid = pidBehind(socket) ?? 0;
      // That of another pid namespace is not known.
      resolve(pid === 0 || isAlive(processStat(pid)));
      socket.destroy();
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false);
      else reject(error);
    });
  });
}

/** Removes the socket file that a daemon left behind. */
async function removeStale(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new Error(`${path} is in the way: it exists and is not a socket`);
  if (await answers(path)) throw new Error(`another daemon is serving ${path}`);
  unlinkSync(path);
}

/**
 * Listens at `path`, with its directory made and a dead daemon's socket replaced. The file never has a wider mode than asked
 * for: 0600, or 0660 with a group.
 *
 * @returns the listening descriptor
 * @throws Error that names the path
 */
export async function openSocket(path: string, { uid, gid }: SocketOwner): Promise<number> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o711 });
  await removeStale(path);
  const umask = process.umask(0o177);
  let fd: number;
  try {
    fd = listenUnix(path, BACKLOG);
  } catch (error) {
    throw new Error(`cannot listen on ${path}: ${(error as Error).message}`, { cause: error });
  } finally {
    process.umask(umask);
  }
  if (uid !== 0 || gid !== 0) chownSync(path, uid, gid);
  if (gid !== 0) chmodSync(path, 0o660);
  return fd;
}

/** A listening socket whose file is at its path as long as it is open. */
export class KeptSocket implements Charge {
  readonly what: string;
  readonly #path: string;
  readonly #owner: SocketOwner;
  readonly #serve: (fd: number) => Promise<void>;
  #file = '';

  private constructor(path: string, owner: SocketOwner, serve: (fd: number) => Promise<void>) {
    this.what = `the socket ${path}`;
    this.#path = path;
    this.#owner = owner;
    this.#serve = serve;
  }

  /**
   * @param serve takes a listening descriptor over; another one whenever the file has been removed
   * @throws as `openSocket`
   */
  static async open(
    path: string,
    owner: SocketOwner,
    serve: (fd: number) => Promise<void>,
  ): Promise<KeptSocket> {
    const socket = new KeptSocket(path, owner, serve);
    await socket.restore();
    return socket;
  }

  isThere = (): boolean => this.#file === identityOf(this.#path);

  restore = async (): Promise<void> => {
    const fd = await openSocket(this.#path, this.#owner);
    this.#file = identityOf(this.#path);
    await this.#serve(fd);
  };

  /** Removes the file, unless it is another's. */
  remove(): void {
    if (this.isThere()) rmSync(this.#path, { force: true });
  }
}

/** Empty when there is nothing at the path. */
function identityOf(path: string): string {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat === undefined ? '' : `${stat.dev} ${stat.ino}`;
}
