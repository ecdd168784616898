/** A private place for a snapshotter: metadata, files and mounts, all gone at the end. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  SnapshotCommit,
  SnapshotPrepare,
  SnapshotRemove,
} from '../../../proto/gen/containerd/events/snapshot.ts';
import type { Any } from '../../../proto/gen/google/protobuf/any.ts';
import {
  compactLowerDirectories,
  constants,
  mount,
  parseMountOptions,
  unmount,
} from '../../../native/native.ts';
import { type Code, isCode } from '../../../ttrpc/errors.ts';
import { parseNamespace } from '../../identifiers.ts';
import { openLog } from '../../log.ts';
import { Database } from '../../metadata/database.ts';
import type { Backend } from '../backend.ts';
import { LocalSnapshotter } from '../local-snapshotter.ts';
import type { Mount } from '../snapshotter.ts';

export type OpenBackend = (root: string) => Promise<Backend>;

const events = { SnapshotPrepare, SnapshotCommit, SnapshotRemove };

export const namespace = parseNamespace('here');

export class Stage {
  readonly directory: string;
  readonly root: string;
  readonly published: { namespace: string; topic: string; event: object }[] = [];
  readonly #name: string;
  readonly #openBackend: OpenBackend;
  #database: Database | undefined;
  #snapshotter: LocalSnapshotter | undefined;
  #mounted = 0;

  /**
   * @param root where the snapshots are to be, if elsewhere; it stays when the stage goes
   * @param directory of another stage
   */
  constructor(name: string, openBackend: OpenBackend, root?: string, directory?: string) {
    this.#name = name;
    this.#openBackend = openBackend;
    this.directory = directory ?? mkdtempSync(join(tmpdir(), 'moor-snapshots-'));
    this.root = root ?? join(this.directory, 'snapshots');
  }

  get database(): Database {
    return this.#database!;
  }

  get snapshotter(): LocalSnapshotter {
    return this.#snapshotter!;
  }

  async open(): Promise<LocalSnapshotter> {
    this.#database = await Database.open(join(this.directory, 'metadata'));
    const exchange = {
      publish: (namespace: string, topic: string, { typeUrl, value }: Any): void => {
        const type = events[typeUrl.replace('containerd.events.', '') as keyof typeof events];
        this.published.push({ namespace, topic, event: type.decode(value) });
      },
    };
    const backend = await this.#openBackend(this.root);
    const surroundings = { database: this.#database, exchange, log: openLog('fatal') };
    this.#snapshotter = await LocalSnapshotter.open(this.#name, backend, surroundings);
    return this.#snapshotter;
  }

  async close(): Promise<void> {
    await this.#snapshotter?.close();
    await this.#database?.close();
    this.#database = undefined;
  }

  async reopen(): Promise<LocalSnapshotter> {
    await this.close();
    return this.open();
  }

  /** Mounts, lets `look` see it, and unmounts. */
  async within<T>(mounts: readonly Mount[], look: (path: string) => T | Promise<T>): Promise<T> {
    const target = join(this.directory, `mount-${(this.#mounted += 1)}`);
    mkdirSync(target);
    mountOn(mounts, target);
    try {
      return await look(target);
    } finally {
      unmount(target, constants.MNT_DETACH);
      rmSync(target, { recursive: true });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** As shims and differs do it, who are given the same mounts. */
export function mountOn(mounts: readonly Mount[], target: string): void {
  const before = process.cwd();
  for (const { type, source, options } of mounts) {
    const { flags, data } = parseMountOptions(options);
    const compacted = compactLowerDirectories(data);
    if (compacted !== undefined) process.chdir(compacted.folder);
    try {
      mount(source, target, type, flags, (compacted?.data ?? data).join(','));
    } finally {
      process.chdir(before);
    }
    const readOnlyBind = constants.MS_BIND | constants.MS_RDONLY;
    if ((flags & readOnlyBind) === readOnlyBind) mount('', target, '', flags | constants.MS_REMOUNT, '');
  }
}

export async function refused(call: () => unknown, code: Code, text: RegExp): Promise<void> {
  await assert.rejects(
    async () => call(),
    (error: Error) => {
      assert.ok(isCode(error, code), `${error.stack}: not code ${code}`);
      assert.match(error.message, text);
      return true;
    },
  );
}

/** Makes a committed snapshot. */
export async function layer(
  stage: Stage,
  name: string,
  parent: string,
  change: (path: string) => void,
): Promise<void> {
  await stage.within(await stage.snapshotter.prepare(namespace, `${name}-active`, parent), change);
  await stage.snapshotter.commit(namespace, name, `${name}-active`);
}
