/**
 * A task's directory, `<state>/tasks/<namespace>/<id>/`: the OCI bundle and what is needed to find the task again.
 *
 * The file operations but the removal are synchronous: they are few and small, the state directory is on tmpfs (gone at reboot by
 * decision), and there a trip to the thread pool costs more than the operation itself.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  readSync,
  renameSync,
  rmdirSync,
  fstatSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { removeTree } from '../../native/native.ts';
import type { ContainerId, Namespace } from '../identifiers.ts';
import { parseId, parseNamespace } from '../identifiers.ts';
import { type Bootstrap, formatBootstrap, mayListen, parseBootstrap } from './bootstrap.ts';
import { type ExitRecord, formatExit, parseExit } from './exit.ts';
import { unmountAll, unmountBelow } from './rootfs.ts';
import { parseState, type StateRecord } from './state-record.ts';
import { Turnstile } from './turnstile.ts';

const DIRECTORY_MODE = 0o711;
const FILE_MODE = 0o600;

/** Each removal has a thread, and a disk does not get faster by many. */
const removals = new Turnstile(2);

export interface BundleContent {
  /** The OCI spec as the client gave it. */
  readonly spec: Uint8Array;
  /** The runtime's options, an encoded Any. */
  readonly options: Uint8Array | undefined;
}

export class Bundle {
  readonly namespace: Namespace;
  readonly id: ContainerId;
  readonly path: string;

  /** @param tasks `<state>/tasks` */
  constructor(tasks: string, namespace: Namespace, id: ContainerId) {
    this.namespace = namespace;
    this.id = id;
    this.path = join(tasks, namespace, id);
  }

  get rootfs(): string {
    return join(this.path, 'rootfs');
  }

  get log(): string {
    return join(this.path, 'log');
  }

  /**
   * Makes the directory and what the runtime reads from it. As long as it has no bootstrap record, no shim has been
   * started, so that a crash half-way leaves nothing but files.
   * @throws the file system's error; EEXIST when the directory exists.
   */
  create(content: BundleContent): void {
    try {
      mkdirSync(this.path, { mode: DIRECTORY_MODE });
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error;
      mkdirSync(dirname(this.path), { recursive: true, mode: DIRECTORY_MODE });
      mkdirSync(this.path, { mode: DIRECTORY_MODE });
    }
    mkdirSync(this.rootfs, { mode: DIRECTORY_MODE });
    writeFileSync(join(this.path, 'config.json'), content.spec, { mode: FILE_MODE });
    if (content.options === undefined) return;
    writeFileSync(join(this.path, 'options'), content.options, { mode: FILE_MODE });
  }

  /** Written before the shim is started; `replace` when there is one already. */
  writeBootstrap(bootstrap: Bootstrap, how: 'first' | 'replace'): void {
    const text = formatBootstrap(bootstrap);
    if (how === 'replace') this.#replace('bootstrap.json', text);
    else writeFileSync(join(this.path, 'bootstrap.json'), text, { mode: FILE_MODE });
  }

  /**
   * Undefined when there is none, or what is there cannot be read.
   * @throws RpcError FailedPrecondition when a newer daemon has written it.
   */
  readBootstrap(): Bootstrap | undefined {
    const text = this.#read('bootstrap.json');
    return text === undefined ? undefined : parseBootstrap(text, join(this.path, 'bootstrap.json'));
  }

  /** Whether there is a record to find the shim by, and its socket. */
  leadsTo(address: string): boolean {
    return mayListen(address) && existsSync(join(this.path, 'bootstrap.json'));
  }

  /** Foreign shims may serve several containers, those of one pod say: whether another bundle's shim is the one at `address`. */
  sharesShim(address: string): boolean {
    const tasks = dirname(dirname(this.path));
    return entries(dirname(this.path)).some((name) => {
      const id = name === this.id ? undefined : valid(name, parseId);
      return id !== undefined && new Bundle(tasks, this.namespace, id).readBootstrap()?.address === address;
    });
  }

  /** Where a Go shim says it listens; it writes that itself, before it serves. */
  readForeignAddress(): string | undefined {
    return this.#read('address')?.trim();
  }

  /**
   * How the first process ended, as the shim has recorded it, or the daemon for a foreign shim.
   * @throws RpcError FailedPrecondition when a newer one has written it; so does `readDead`
   */
  readExit(): ExitRecord | undefined {
    return this.#exit('exit.json');
  }

  writeExit(record: ExitRecord): void {
    this.#replace('exit.json', formatExit(record));
  }

  /** What Moor's own shim has written down of its container; undefined where it has to be asked. */
  readState(): StateRecord | undefined {
    return parseState(this.#read('state.json') ?? '');
  }

  /** Present when the shim is gone and has been cleaned up after: what is left is to report this exit. */
  readDead(): ExitRecord | undefined {
    return this.#exit('dead.json');
  }

  writeDead(record: ExitRecord): void {
    this.#replace('dead.json', formatExit(record));
  }

  /** What the shim has written down of the container's execs. */
  readExecs(): string {
    return this.#read('execs') ?? '';
  }

  /** The first process's pid as the runtime wrote it; 0 when it never did. */
  readInitPid(): number {
    const pid = Number.parseInt(this.#read('init.pid') ?? '', 10);
    return pid > 0 ? pid : 0;
  }

  /** For a task whose files have been lost. */
  writeInitPid(pid: number): void {
    this.#replace('init.pid', String(pid));
  }

  /** The last `bytes` of the shim's log, for an error text. A foreign shim's is a FIFO, which is left alone. */
  logTail(bytes: number): string {
    let fd: number;
    try {
      fd = openSync(this.log, 'r+');
    } catch {
      return '';
    }
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) return '';
      const tail = Buffer.alloc(Math.min(bytes, stat.size));
      const length = readSync(fd, tail, 0, tail.length, stat.size - tail.length);
      return tail.toString('utf8', 0, length).trim();
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Takes the directory out of sight at once; its content is removed by `removeRemains`. What is mounted in it is
   * unmounted first: removing files must never reach through a mount into what the client owns.
   *
   * @returns where the remains are; undefined when there was no such directory
   * @throws the mount's error when it cannot be unmounted; the bundle is as it was then
   */
  hide(): string | undefined {
    unmountAll(this.rootfs);
    const remains = join(dirname(this.path), `.${this.id}.${randomBytes(4).toString('hex')}`);
    try {
      renameSync(this.path, remains);
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined;
      throw error;
    }
    return remains;
  }

  #exit(name: string): ExitRecord | undefined {
    return parseExit(this.#read(name) ?? '', join(this.path, name));
  }

  #read(name: string): string | undefined {
    const path = `${this.path}/${name}`;
    // Most are asked for in vain, and the error would cost more than all of the reading. A start reads six for each task.
    if (!existsSync(path)) return undefined;
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      if (hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR') || hasCode(error, 'EISDIR')) return undefined;
      throw error;
    }
  }

  /** A reader sees the old content or the new one, never half of it. */
  #replace(name: string, text: string): void {
    const temporary = join(this.path, `.${name}`);
    writeFileSync(temporary, text, { mode: FILE_MODE });
    renameSync(temporary, join(this.path, name));
  }
}

/** A hidden directory: a bundle on its way out. */
export interface Remains {
  readonly namespace: Namespace;
  readonly id: ContainerId;
  readonly path: string;
}

export interface BundleListing {
  readonly bundles: Bundle[];
  readonly remains: Remains[];
  /** What is there and has no business to be. */
  readonly strangers: string[];
}

/** Everything in `<state>/tasks`. */
export function listBundles(tasks: string): BundleListing {
  const listing: BundleListing = { bundles: [], remains: [], strangers: [] };
  for (const directory of entries(tasks)) {
    const namespace = valid(directory, parseNamespace);
    if (namespace === undefined) {
      listing.strangers.push(join(tasks, directory));
      continue;
    }
    const names = entries(join(tasks, directory));
    for (const name of names) sort(tasks, namespace, name, listing);
  }
  return listing;
}

/** Removes the directories of namespaces that have nothing in them. */
export function removeEmpty(tasks: string): void {
  for (const directory of entries(tasks)) {
    const path = join(tasks, directory);
    if (valid(directory, parseNamespace) !== undefined && entries(path).length === 0) rmdirSync(path);
  }
}

function sort(tasks: string, namespace: Namespace, name: string, listing: BundleListing): void {
  const hidden = /^\.(.+)\.[0-9a-f]{8}$/.exec(name);
  const id = valid(hidden?.[1] ?? name, parseId);
  const path = join(tasks, namespace, name);
  if (id === undefined) listing.strangers.push(path);
  else if (hidden !== null) listing.remains.push({ namespace, id, path });
  else listing.bundles.push(new Bundle(tasks, namespace, id));
}

/** The exit that a hidden bundle's task had, if it was recorded. */
export function exitOfRemains(remains: Remains): ExitRecord | undefined {
  for (const name of ['dead.json', 'exit.json']) {
    const path = join(remains.path, name);
    try {
      const record = parseExit(readFileSync(path, 'utf8'), path);
      if (record !== undefined) return record;
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error;
    }
  }
  return undefined;
}

/**
 * Removes a hidden directory, on a thread of its own: where the state directory is on a disk, each file is some time's wait. What
 * is still mounted in it is unmounted, and keeps its content.
 */
export function removeRemains(path: string): Promise<void> {
  return removals.pass(async () => {
    try {
      await removeTree(path);
    } catch (error) {
      if (!hasCode(error, 'EXDEV') && !hasCode(error, 'EBUSY')) throw error;
      unmountBelow(path);
      await removeTree(path);
    }
  });
}

function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR')) return [];
    throw error;
  }
}

function valid<T>(text: string, parse: (text: string) => T): T | undefined {
  try {
    return parse(basename(text));
  } catch {
    return undefined;
  }
}

export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
