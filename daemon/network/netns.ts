/**
 * Network namespaces that are kept by a file: the namespace is mounted on it (nsfs), which holds it when no process is in it any
 * more. ip-netns(8) and CNI do the same.
 */
import { closeSync, mkdirSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { constants, mount, setns, statfsType, unmount, unshare } from '../../native/native.ts';
import { internal, messageOf } from '../../ttrpc/errors.ts';

const { CLONE_NEWNET, MNT_DETACH, MS_BIND, UMOUNT_NOFOLLOW } = constants;
/** NSFS_MAGIC of linux/magic.h. */
const NSFS = 0x6e736673;

/**
 * Makes a network namespace and keeps it at `path`, which must not be there. When it fails the file may be left.
 *
 * The main thread goes into it for the time of three system calls, in which nothing else can happen on it: no program has to
 * be run, none can outlive a daemon that is killed, and there is no moment at which the namespace exists unfound.
 */
export function makeNamespace(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o711 });
  const home = openSync('/proc/thread-self/ns/net', 'r');
  try {
    writeFileSync(path, '', { flag: 'wx', mode: 0o444 });
    unshare(CLONE_NEWNET);
    try {
      mount('/proc/thread-self/ns/net', path, '', MS_BIND, '');
    } finally {
      goHome(home);
    }
  } catch (error) {
    throw internal(`cannot make a network namespace at ${path}: ${messageOf(error)}`, error);
  } finally {
    closeSync(home);
  }
}

/**
 * Does something in the namespace that `path` is a file of, without waiting: the main thread goes there for the time and comes back. What
 * is opened there, a socket say, belongs to that network for ever.
 *
 * @throws the kernel's error when there is no such namespace; what the action throws
 */
export function inNamespace<T>(path: string, action: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  try {
    const there = openSync(path, 'r');
    try {
      setns(there, CLONE_NEWNET);
    } finally {
      closeSync(there);
    }
    try {
      return action();
    } finally {
      goHome(home);
    }
  } finally {
    closeSync(home);
  }
}

function goHome(home: number): void {
  try {
    setns(home, CLONE_NEWNET);
  } catch {
    // In a network that nobody expects it in, the daemon would do harm. The next one starts at home.
    process.kill(process.pid, 'SIGKILL');
  }
}

/** Lets go of the namespace and removes the file. The namespace itself goes with its last process. What is not there is fine. */
export function removeNamespace(path: string): void {
  // Once for each mount: somebody may have mounted over it.
  while (isNamespace(path)) unmount(path, MNT_DETACH | UMOUNT_NOFOLLOW);
  // This takes it from mount namespaces that were copied from this one, too (since Linux 3.18).
  rmSync(path, { force: true });
}

/** Whether a namespace is kept there. */
export function isNamespace(path: string): boolean {
  try {
    return statfsType(path) === NSFS;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}

/** The number by which /proc/PID/ns/net names the namespace. */
export function inodeOf(path: string): bigint {
  return statSync(path, { bigint: true }).ino;
}
