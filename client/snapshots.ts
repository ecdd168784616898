import {
  type Info as SnapshotInfo,
  Kind,
  SnapshotsDefinition,
} from '../proto/gen/containerd/services/snapshots.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { NamespacesDefinition } from '../proto/gen/containerd/services/namespaces.ts';
import { Code, internal, isCode } from '../ttrpc/errors.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import type { Labels } from './namespace.ts';

export type { SnapshotInfo };

/** The snapshotter of a namespace that names no other. */
export const DEFAULT_SNAPSHOTTER = 'overlayfs';

/** By this label a namespace names its snapshotter: containerd's. */
const DEFAULT_LABEL = 'containerd.io/defaults/snapshotter';

/** VIEW, ACTIVE, COMMITTED or UNKNOWN. */
export type SnapshotKind = Exclude<keyof typeof Kind, 'UNRECOGNIZED'>;

/** What a snapshot takes beyond its parent. */
export interface Usage {
  readonly bytes: bigint;
  readonly inodes: bigint;
}

export interface SnapshotOptions extends CallOptions {
  readonly labels?: Labels;
}

/** The snapshots of a namespace in one snapshotter: root filesystems and the layers they are made of. */
export class Snapshots {
  readonly #service: ServiceClient<typeof SnapshotsDefinition>;
  readonly #namespaces: ServiceClient<typeof NamespacesDefinition>;
  readonly #namespace: string;
  #name: string;

  /** @param name the snapshotter; empty for the namespace's default */
  constructor(connection: Connection, headers: Headers, namespace: string, name: string) {
    this.#service = connection.service(SnapshotsDefinition, headers);
    this.#namespaces = connection.service(NamespacesDefinition, headers);
    this.#namespace = namespace;
    this.#name = name;
  }

  /** The snapshotter's name; asks the namespace for its default once, when none was given. */
  async name(options?: CallOptions): Promise<string> {
    if (this.#name === '') this.#name = await this.#default(options);
    return this.#name;
  }

  async #default(options?: CallOptions): Promise<string> {
    try {
      const { namespace } = await this.#namespaces.get({ name: this.#namespace }, options);
      return namespace?.labels[DEFAULT_LABEL] ?? DEFAULT_SNAPSHOTTER;
    } catch (error) {
      // A namespace comes into being with the first thing in it.
      if (!isCode(error, Code.NotFound)) throw error;
      return DEFAULT_SNAPSHOTTER;
    }
  }

  /** @throws RpcError NotFound */
  async stat(key: string, options?: CallOptions): Promise<SnapshotInfo> {
    const snapshotter = await this.name(options);
    return present((await this.#service.stat({ snapshotter, key }, options)).info, key);
  }

  /** All at once; `walk` takes them as they come. @param filters alternatives: `kind==active,parent==base` */
  async list(filters: readonly string[] = [], options?: CallOptions): Promise<SnapshotInfo[]> {
    return await Array.fromAsync(this.walk(filters, options));
  }

  /** @param filters as for `list` */
  async *walk(filters: readonly string[] = [], options?: CallOptions): AsyncGenerator<SnapshotInfo> {
    const snapshotter = await this.name(options);
    for await (const { info } of this.#service.list({ snapshotter, filters: [...filters] }, options)) {
      yield* info;
    }
  }

  /**
   * Makes a snapshot to be written, on top of a committed one or (`parent` empty) of nothing.
   *
   * @returns how to mount it
   * @throws RpcError AlreadyExists, NotFound for the parent
   */
  async prepare(key: string, parent = '', options: SnapshotOptions = {}): Promise<Mount[]> {
    const { labels = {}, ...call } = options;
    const snapshotter = await this.name(call);
    return (await this.#service.prepare({ snapshotter, key, parent, labels }, call)).mounts;
  }

  /** Makes a snapshot to be read only. @returns how to mount it. @throws RpcError AlreadyExists, NotFound for the parent */
  async view(key: string, parent = '', options: SnapshotOptions = {}): Promise<Mount[]> {
    const { labels = {}, ...call } = options;
    const snapshotter = await this.name(call);
    return (await this.#service.view({ snapshotter, key, parent, labels }, call)).mounts;
  }

  /** How to mount one that was prepared or viewed. @throws RpcError NotFound */
  async mounts(key: string, options?: CallOptions): Promise<Mount[]> {
    const snapshotter = await this.name(options);
    return (await this.#service.mounts({ snapshotter, key }, options)).mounts;
  }

  /** Makes of a prepared snapshot one that others can be made on. @throws RpcError AlreadyExists, NotFound */
  async commit(name: string, key: string, options: SnapshotOptions = {}): Promise<void> {
    const { labels = {}, ...call } = options;
    const snapshotter = await this.name(call);
    await this.#service.commit({ snapshotter, name, key, labels }, call);
  }

  /** @throws RpcError NotFound, FailedPrecondition when others are made on it */
  async remove(key: string, options?: CallOptions): Promise<void> {
    const snapshotter = await this.name(options);
    await this.#service.remove({ snapshotter, key }, options);
  }

  async usage(key: string, options?: CallOptions): Promise<Usage> {
    const snapshotter = await this.name(options);
    const { size, inodes } = await this.#service.usage({ snapshotter, key }, options);
    return { bytes: size, inodes };
  }

  /** Sets the given labels and leaves the others; an empty value clears one. @returns all of them */
  async label(key: string, labels: Labels, options?: CallOptions): Promise<Labels> {
    const updateMask = Object.keys(labels).map((label) => `labels.${label}`);
    return (await this.update({ name: key, labels }, updateMask, options)).labels;
  }

  /** Replaces fields. @param updateMask `labels`, or `labels.app` for example; nothing else can change */
  async update(
    info: { readonly name: string; readonly labels?: Labels },
    updateMask: string[],
    options?: CallOptions,
  ): Promise<SnapshotInfo> {
    const snapshotter = await this.name(options);
    const answer = await this.#service.update({ snapshotter, info, updateMask }, options);
    return present(answer.info, info.name);
  }

  /** Frees what removed snapshots have left, for snapshotters that put it off. */
  async cleanup(options?: CallOptions): Promise<void> {
    const snapshotter = await this.name(options);
    await this.#service.cleanup({ snapshotter }, options);
  }
}

/** The word for a kind. */
export function kindName(kind: Kind): SnapshotKind {
  const found = Object.entries(Kind).find(([, value]) => value === kind);
  return (found?.[0] ?? 'UNKNOWN') as SnapshotKind;
}

function present(info: SnapshotInfo | undefined, key: string): SnapshotInfo {
  if (info === undefined) throw internal(`the daemon sent nothing of snapshot ${key}`);
  return info;
}
