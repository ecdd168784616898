/**
 * Who is subscribed, and how far each has been told, in small files that outlive the daemon: a subscriber that lost its daemon and
 * subscribes again is told what came since, and nothing twice.
 *
 * A subscriber is known by its process and its filters, which is all that containerd's API says of it.
 */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../ttrpc/errors.ts';
import type { Logger } from '../log.ts';
import { processStat } from '../process-stat.ts';

/** The process of a subscriber. */
export interface Peer {
  /** 0 for one whose pid cannot be known, as it is of another pid namespace. */
  readonly pid: number;
  /** When it was started: pids are used again. */
  readonly started: string;
}

/** Undefined for a process that is gone. */
export function peerOf(pid = 0): Peer | undefined {
  const started = pid === 0 ? '' : processStat(pid)?.started;
  return started === undefined ? undefined : { pid, started };
}

/** The number of the last event that a subscriber has been told, before the rest of its file, which does not change. */
const NUMBER_BYTES = 8;

/** What there is of a subscriber whose daemon has died. */
interface Absent {
  readonly path: string;
  readonly key: string;
  readonly told: number;
}

/** Where a subscription begins: behind the event of which number. */
export interface Place {
  /** Of the last event that the subscriber says he has seen. */
  readonly seen: number | undefined;
  /** Of the last event that there is. */
  readonly last: number;
  /** For one who says nothing and is not known. */
  readonly otherwise: number;
}

export class Followers {
  readonly #directory: string;
  readonly #log: Logger;
  #absent: Absent[] = [];
  #count: number;

  /** Reads what the daemon before has left in the directory, which is made if need be. */
  constructor(directory: string, log: Logger) {
    this.#directory = directory;
    this.#log = log;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const names = readdirSync(directory)
      .map(Number)
      .sort((one, other) => one - other);
    this.#count = names.at(-1) ?? 0;
    for (const name of names) this.#find(join(directory, String(name)));
  }

  /** Somebody subscribes: one who says what he has seen, or was there before, goes on. */
  follow(peer: Peer, filters: readonly string[], { seen, last, otherwise }: Place): Follower | undefined {
    const key = keyOf(peer, filters);
    const at = this.#absent.findIndex((absent) => absent.key === key);
    const [absent] = at < 0 ? [] : this.#absent.splice(at, 1);
    this.#count += 1;
    const path = absent?.path ?? join(this.#directory, String(this.#count));
    try {
      // An event that could not be kept has no number with the next daemon.
      const told = seen ?? (absent && Math.min(absent.told, last)) ?? otherwise;
      return new Follower(path, key, told, this.#log);
    } catch (error) {
      this.#log.warn({ error: messageOf(error) }, 'a subscriber will not be known when it is back');
      return undefined;
    }
  }

  /** The directory has been removed by others: those who subscribe from now on are known to the next daemon. */
  renew(): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    this.#absent = [];
  }

  /** Nobody who is not back by now is expected any more. */
  forgetAbsent(): void {
    for (const { path } of this.#absent) rmSync(path, { force: true });
    this.#absent = [];
  }

  #find(path: string): void {
    try {
      const bytes = readFileSync(path);
      const key = bytes.toString('utf8', NUMBER_BYTES);
      const [pid, started] = JSON.parse(key) as [number, string];
      const peer = peerOf(pid);
      if (peer?.started === started) {
        this.#absent.push({ path, key, told: Number(bytes.readBigUInt64BE()) });
        return;
      }
    } catch (error) {
      this.#log.debug({ path, error: messageOf(error) }, 'a subscriber is not known any more');
    }
    rmSync(path, { force: true });
  }
}

/** A subscriber's file. */
export class Follower {
  readonly #path: string;
  readonly #log: Logger;
  readonly #fd: number;
  readonly #number = Buffer.alloc(NUMBER_BYTES);
  #told: number;

  /** @throws the file system's error */
  constructor(path: string, key: string, told: number, log: Logger) {
    this.#path = path;
    this.#log = log;
    this.#told = told;
    // Not emptied first: a daemon that is killed here leaves what was there.
    this.#fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    this.#number.writeBigUInt64BE(BigInt(told));
    writeSync(this.#fd, Buffer.concat([this.#number, Buffer.from(key)]), 0, undefined, 0);
  }

  /** The number of the last event that it has been told. */
  get told(): number {
    return this.#told;
  }

  /** It has been told the event of that number: the kernel has the bytes, and its process will find them there. */
  tell(sequence: number): void {
    this.#told = sequence;
    this.#number.writeBigUInt64BE(BigInt(sequence));
    try {
      writeSync(this.#fd, this.#number, 0, NUMBER_BYTES, 0);
    } catch (error) {
      this.#log.warn({ error: messageOf(error) }, 'a subscriber may be told an event again after a restart');
    }
  }

  /** It has left. */
  forget(): void {
    closeSync(this.#fd);
    rmSync(this.#path, { force: true });
  }

  /** The daemon leaves; it will be back. */
  leave(): void {
    closeSync(this.#fd);
  }
}

function keyOf({ pid, started }: Peer, filters: readonly string[]): string {
  return JSON.stringify([pid, started, filters]);
}
