/** The store under all metadata: LMDB, in transactions. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type RootDatabase, open } from 'lmdb';
import { dataLoss, internal, messageOf, resourceExhausted } from '../../ttrpc/errors.ts';
import type { MessageType } from '../../ttrpc/service.ts';
import { reached } from '../failpoint.ts';
import { PageFile } from './page-file.ts';
import { Reserve } from './reserve.ts';
import { FORMAT, type Key, below, formatKey } from './schema.ts';

/** Of lmdb's errors, which have numbers. */
const ENOSPC = 28;

type Store = RootDatabase<Buffer, string[]>;

/** A record with the last part of its key, which is its id. */
export interface Entry<T> {
  readonly id: string;
  readonly value: T;
}

/** Is told of every write in the transaction that makes it, when that can only fail by a failing disk any more. */
export interface Observer {
  put(key: readonly string[]): void;
  removed(key: readonly string[]): void;
}

/** Reads. Inside a transaction they see the state it began with. */
export class Reader {
  protected readonly store: Store;

  constructor(store: Store) {
    this.store = store;
  }

  get<T>(key: Key, type: MessageType<T>): T | undefined {
    const bytes = this.store.get([...key]);
    return bytes === undefined ? undefined : decode(key, type, bytes);
  }

  has(key: Key): boolean {
    return this.store.doesExist([...key]);
  }

  /** The records whose keys go on after `key`, in order. */
  *list<T>(key: Key, type: MessageType<T>): Generator<Entry<T>, void, undefined> {
    for (const { key: found, value } of this.store.getRange(below(key))) {
      yield { id: found.at(-1)!, value: decode(found, type, value) };
    }
  }

  /** What follows `key` in the keys of the records that go on after it. */
  *rest(key: Key): Generator<string[], void, undefined> {
    for (const found of this.store.getKeys(below(key))) yield found.slice(key.length);
  }

  isEmpty(key: Key): boolean {
    return this.store.getKeysCount({ ...below(key), limit: 1 }) === 0;
  }
}

/** Reads, and writes that are done all together when the action has returned, or not at all. */
export class Transaction extends Reader {
  readonly #writes: (() => void)[] = [];
  readonly #observers: readonly Observer[];
  #puts = 0;

  constructor(store: Store, observers: readonly Observer[]) {
    super(store);
    this.#observers = observers;
  }

  put<T>(key: Key, type: MessageType<T>, value: T): void {
    const bytes = Buffer.from(type.encode(value).finish());
    this.#puts += 1;
    this.#writes.push(() => {
      this.store.putSync([...key], bytes);
      for (const observer of this.#observers) observer.put(key);
    });
  }

  remove(key: Key): void {
    this.#writes.push(() => this.#remove([...key]));
  }

  /** Removes every record whose key goes on after `key`. */
  removeBelow(key: Key): void {
    const keys = [...this.store.getKeys(below(key))];
    this.#writes.push(() => {
      for (const found of keys) this.#remove(found);
    });
  }

  #remove(key: string[]): void {
    this.store.removeSync(key);
    for (const observer of this.#observers) observer.removed(key);
  }

  /** Whether it makes things fewer at most, and so may use what is kept of the disk for that. */
  get addsNothing(): boolean {
    return this.#puts === 0;
  }

  write(): void {
    for (const write of this.#writes) write();
  }
}

/** An action whose transaction has yet to be committed. */
interface Waiting {
  /** Does it, within the transaction. What it returns tells its caller, to be called after the commit. */
  readonly run: () => () => void;
  addsNothing: boolean;
  readonly reject: (error: unknown) => void;
}

/** A store that is only read, also while a daemon writes it. Each read sees the newest state. */
export class ReadOnlyDatabase extends Reader {
  /** @throws Error when it cannot be opened. Its pages must have been looked at (`PageFile`) */
  static open(directory: string): ReadOnlyDatabase {
    return new ReadOnlyDatabase(
      open({ path: directory, encoding: 'binary', overlappingSync: false, readOnly: true }),
    );
  }

  close(): Promise<void> {
    return this.store.close();
  }
}

export class Database extends Reader {
  readonly #observers: Observer[] = [];
  readonly #reserve: Reserve;
  readonly #directory: string;
  #waiting: Waiting[] = [];

  private constructor(store: Store, reserve: Reserve, directory: string) {
    super(store);
    this.#reserve = reserve;
    this.#directory = directory;
  }

  /**
   * Opens the store, which is made when it is not there.
   *
   * @throws Error when it was written by a newer version of Moor, is damaged, or cannot be opened
   */
  static async open(directory: string): Promise<Database> {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    checkPages(directory);
    const store: Store = open({ path: directory, encoding: 'binary', overlappingSync: false });
    try {
      if (!checkFormat(store, directory)) store.putSync([...formatKey], Buffer.from(String(FORMAT)));
    } catch (error) {
      await store.close();
      throw error;
    }
    const reserve = new Reserve(join(directory, 'data.mdb'), usedBytes(store));
    return new Database(store, reserve, directory);
  }

  /**
   * Runs one transaction. When the promise resolves, the change survives the end of this process and of the machine.
   *
   * @param options whether the observers are told of its writes
   * @throws what the action throws, with nothing changed; RpcError ResourceExhausted when the disk is full
   */
  update<T>(action: (transaction: Transaction) => T, { observed = true } = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      const run = (): (() => void) => {
        waiting.addsNothing = false;
        const transaction = new Transaction(this.store, observed ? this.#observers : []);
        let result: T;
        try {
          result = action(transaction);
        } catch (error) {
          return () => reject(error);
        }
        // What fails from here on undoes all that is committed together.
        transaction.write();
        waiting.addsNothing = transaction.addsNothing;
        return () => resolve(result);
      };
      const waiting: Waiting = { run, reject, addsNothing: false };
      this.#waiting.push(waiting);
      // What has arrived by then shares one commit, and so one wait for the disk.
      if (this.#waiting.length === 1) setImmediate(() => this.#commit());
    });
  }

  /** Tells the observer of every write from the next transaction on. */
  observe(observer: Observer): void {
    this.#observers.push(observer);
  }

  async close(): Promise<void> {
    this.#commit();
    await this.store.close();
    this.#reserve.close();
  }

  /**
   * Commits what is waiting. On this thread, although it waits for the disk: of lmdb's two ways, the one on a thread of its own
   * corrupts the heap when a commit fails (3.5.6).
   */
  #commit(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0) return;
    this.#waiting = [];
    for (const each of this.#settle(waiting)) each();
  }

  #settle(waiting: readonly Waiting[]): (() => void)[] {
    try {
      const settle = this.#write(waiting);
      reached('metadata-committed');
      return settle;
    } catch (error) {
      // On a full disk, what removes goes on; the rest has failed.
      const removals = isFull(error) ? waiting.filter(({ addsNothing }) => addsNothing) : [];
      if (removals.length === 0 || removals.length === waiting.length) return this.#refuse(waiting, error);
      const others = waiting.filter((each) => !removals.includes(each));
      return [...this.#settle(removals), ...this.#refuse(others, error)];
    }
  }

  #write(waiting: readonly Waiting[]): (() => void)[] {
    return this.store.transactionSync(() => {
      const settle = waiting.map(({ run }) => run());
      const adds = !waiting.every(({ addsNothing }) => addsNothing);
      // Thrown before lmdb has written anything.
      if (!this.#reserve.suffices(usedBytes(this.store), adds)) throw new FullDisk();
      reached('metadata-written');
      return settle;
    });
  }

  #refuse(waiting: readonly Waiting[], cause: unknown): (() => void)[] {
    const failure = isFull(cause)
      ? resourceExhausted(`cannot write metadata to ${this.#directory}: No space left on device`, cause)
      : internal(`cannot write metadata: ${messageOf(cause)}`, cause);
    return waiting.map(
      ({ reject }) =>
        () =>
          reject(failure),
    );
  }
}

class FullDisk extends Error {
  readonly code = ENOSPC;
}

function isFull(error: unknown): boolean {
  return (error as { code?: unknown }).code === ENOSPC;
}

/** Of the store's file, as of the last commit. */
function usedBytes(store: Store): number {
  const { lastPageNumber, pageSize } = store.getStats() as { lastPageNumber: number; pageSize: number };
  return (lastPageNumber + 1) * pageSize;
}

/** @throws RpcError DataLoss that names a record which is none of its kind */
function decode<T>(key: readonly string[], type: MessageType<T>, bytes: Uint8Array): T {
  try {
    return type.decode(bytes);
  } catch (error) {
    throw dataLoss(
      `the record ${key.join('/')} of the metadata is damaged (${messageOf(error)}); \`moord check\` says more`,
      error,
    );
  }
}

/** Reads all that is in use, as lmdb ends the whole process where it meets a damaged page. @throws Error for a damaged store */
function checkPages(directory: string): void {
  const [damage] = PageFile.read(directory)?.newest().damages ?? [];
  if (damage === undefined) return;
  throw new Error(
    `${directory}/data.mdb is damaged: page ${damage.page}: ${damage.problem}; ` +
      '`moord check` says what can be read of it, and a backup can take its place (docs/operations.md)',
  );
}

/**
 * Reads the layout's version.
 *
 * @returns whether the store has one; a new store has none
 * @throws Error when it is damaged or newer than this daemon
 */
export function checkFormat(store: Store, directory: string): boolean {
  const found = store.get([...formatKey])?.toString();
  if (found === undefined) return false;
  readFormat(found, directory);
  return true;
}

/** @returns the version that the record of the layout names @throws Error when it names none, or one that is newer than this daemon */
export function readFormat(found: string, directory: string): number {
  const format = Number(found);
  if (!Number.isInteger(format) || format < 1)
    throw new Error(`${directory} is damaged: its format reads "${found}"`);
  if (format > FORMAT) {
    throw new Error(
      `${directory} was written by a newer version of Moor (format ${format}, this one knows ${FORMAT}); use that version`,
    );
  }
  return format;
}
