/**
 * A snapshotter whose files another process has. Namespaces, names, labels, leases and garbage are the daemon's affair, as with
 * its own; the other process knows each snapshot as `namespace/number/name`, in one space of names.
 */
import { SnapshotsDefinition } from '../../proto/gen/containerd/services/snapshots.ts';
import { Code, alreadyExists, failedPrecondition, isCode, notFound, unknown } from '../../ttrpc/errors.ts';
import type { ServiceClient } from '../../ttrpc/service.ts';
import type { Namespace } from '../identifiers.ts';
import type { Transaction } from '../metadata/database.ts';
import type { Surroundings } from '../snapshots/local-snapshotter.ts';
import { SnapshotNews } from '../snapshots/news.ts';
import { type Creation, type Info, Kind, type Mount, type Usage } from '../snapshots/snapshotter.ts';
import type { OwnedSnapshotter } from '../snapshots/snapshotters.ts';
import { type NewSnapshot, type Snapshot, SnapshotTree } from '../snapshots/tree.ts';
import { ForeignSnapshots } from './foreign-snapshots.ts';
import type { PluginConnection } from './plugin-connection.ts';

type Labels = { readonly [key: string]: string };

/** The label by which a plugin may find that it has what a client is about to unpack. */
const TARGET = 'containerd.io/snapshot.ref';
const PASSED = 'containerd.io/snapshot/';
const NOTHING: Usage = { size: 0n, inodes: 0n };

export class ProxySnapshotter implements OwnedSnapshotter {
  readonly name: string;
  readonly tree: SnapshotTree;
  readonly #plugin: PluginConnection;
  readonly #remote: ServiceClient<typeof SnapshotsDefinition>;
  readonly #foreign: ForeignSnapshots;
  readonly #news: SnapshotNews;

  constructor(plugin: PluginConnection, surroundings: Surroundings) {
    const { name } = plugin;
    this.name = name;
    this.#plugin = plugin;
    this.#remote = plugin.service(SnapshotsDefinition);
    this.tree = new SnapshotTree(surroundings.database, name);
    this.#news = new SnapshotNews(name, surroundings.exchange);
    this.#foreign = new ForeignSnapshots(this.tree, name, surroundings, async ({ namespace }, key) => {
      await plugin.quick({ namespace }, (options) =>
        this.#remote.remove({ snapshotter: name, key }, options),
      );
    });
  }

  stat(namespace: Namespace, key: string): Info {
    return this.tree.get(namespace, key).info;
  }

  list(namespace: Namespace, filters: readonly string[] = []): Info[] {
    return this.tree.list(namespace, filters);
  }

  async prepare(
    namespace: Namespace,
    key: string,
    parent: string,
    creation: Creation = {},
  ): Promise<Mount[]> {
    const mounts = await this.#create(namespace, key, parent, Kind.ACTIVE, creation);
    this.#news.prepared(namespace, key, parent);
    return mounts;
  }

  view(namespace: Namespace, key: string, parent: string, creation: Creation = {}): Promise<Mount[]> {
    return this.#create(namespace, key, parent, Kind.VIEW, creation);
  }

  async mounts(namespace: Namespace, key: string, signal?: AbortSignal): Promise<Mount[]> {
    const { info, backend } = this.tree.get(namespace, key);
    if (info.kind === Kind.COMMITTED) {
      throw failedPrecondition(`requested snapshot ${key} not active or view: failed precondition`);
    }
    const request = { snapshotter: this.name, key: backend };
    const { mounts } = await this.#plugin.quick({ namespace, signal }, (options) =>
      this.#remote.mounts(request, options),
    );
    return mounts;
  }

  async commit(namespace: Namespace, name: string, key: string, creation: Creation = {}): Promise<void> {
    const { labels = {}, lease, signal } = creation;
    const { id, backend } = this.tree.checkCommit(namespace, name, key);
    const to = `${namespace}/${id}/${name}`;
    await this.#foreign.making(to, { namespace, id }, async (also) => {
      const request = { snapshotter: this.name, name: to, key: backend, labels: passed(labels) };
      await this.#plugin.work({ namespace, signal }, (options) => this.#remote.commit(request, options));
      await this.tree.commit(namespace, { name, key, labels, lease, usage: NOTHING }, { backend: to, also });
    });
    this.#news.committed(namespace, key, name);
  }

  async update(namespace: Namespace, info: Info, paths: readonly string[] = []): Promise<Info> {
    const before = this.tree.get(namespace, info.name);
    const after = await this.tree.update(namespace, info, paths);
    const [old, labels] = [passed(before.info.labels), passed(after.labels)];
    const changed = Object.keys({ ...old, ...labels }).filter((key) => old[key] !== labels[key]);
    if (changed.length === 0) return after;
    const updateMask = changed.map((key) => `labels.${key}`);
    const request = { snapshotter: this.name, info: { name: before.backend, labels }, updateMask };
    await this.#plugin.quick({ namespace }, (options) => this.#remote.update(request, options));
    return after;
  }

  async usage(namespace: Namespace, key: string, signal?: AbortSignal): Promise<Usage> {
    const request = { snapshotter: this.name, key: this.tree.get(namespace, key).backend };
    return this.#plugin.work({ namespace, signal }, (options) => this.#remote.usage(request, options));
  }

  async remove(namespace: Namespace, key: string, lease?: string): Promise<void> {
    const also = (transaction: Transaction, snapshot: Snapshot): void =>
      this.dropped(transaction, namespace, snapshot);
    this.reclaim(namespace, await this.tree.remove(namespace, key, lease, { also }));
  }

  dropped(transaction: Transaction, namespace: Namespace, { id, backend }: Snapshot): void {
    this.#foreign.dropped(transaction, backend, { namespace, id });
  }

  reclaim(namespace: Namespace, { info: { name: key } }: Snapshot): void {
    this.#foreign.sweep();
    this.#news.removed(namespace, key);
  }

  settled(): Promise<void> {
    // Whatever could not be removed before is tried again with every collection.
    this.#foreign.sweep();
    return this.#foreign.settled();
  }

  async cleanup(): Promise<void> {
    await this.settled();
    try {
      await this.#plugin.work({}, (options) => this.#remote.cleanup({ snapshotter: this.name }, options));
    } catch (error) {
      // Few have something of their own to clean up.
      if (!isCode(error, Code.Unimplemented)) throw error;
    }
  }

  async close(): Promise<void> {
    this.#plugin.close();
    await this.#foreign.close();
  }

  async #create(
    namespace: Namespace,
    key: string,
    parent: string,
    kind: typeof Kind.ACTIVE | typeof Kind.VIEW,
    { labels = {}, lease, signal }: Creation,
  ): Promise<Mount[]> {
    const snapshot = { key, kind, parent, labels, lease };
    const place = this.tree.plan(namespace, snapshot);
    const backend = `${namespace}/${place.id}/${key}`;
    const below = parent === '' ? '' : this.tree.get(namespace, parent).backend;
    return this.#foreign.making(backend, { namespace, id: place.id }, async (also) => {
      const request = { snapshotter: this.name, key: backend, parent: below, labels: passed(labels) };
      const create = kind === Kind.ACTIVE ? this.#remote.prepare : this.#remote.view;
      const purpose = { namespace, signal };
      const { mounts } = await this.#plugin
        .work(purpose, (options) => create(request, options))
        .catch(async (error: unknown) => {
          if (!isCode(error, Code.AlreadyExists)) throw error;
          throw await this.#adopt(namespace, snapshot, below, error);
        });
      await this.tree.create(namespace, snapshot, place, { backend, also });
      return mounts;
    });
  }

  /**
   * Takes over a committed snapshot that the plugin has brought by itself, as it says by refusing to prepare what would become
   * it: that is how snapshotters work that fetch layers when they are read.
   *
   * @returns what to tell the client
   */
  async #adopt(
    namespace: Namespace,
    { parent, labels, lease }: NewSnapshot,
    below: string,
    cause: unknown,
  ): Promise<Error> {
    const target = Object.hasOwn(labels, TARGET) ? labels[TARGET]! : '';
    if (target === '')
      return unknown(`unexpected error from snapshotter ${this.name}: ${String(cause)}`, cause);
    const found = await this.#find(namespace, target, below);
    if (found === undefined) return notFound(`target snapshot "${target}" in backend: not found`);
    this.#foreign.checkStays(found.name);
    const snapshot: NewSnapshot = {
      key: target,
      kind: Kind.COMMITTED,
      parent,
      labels: { ...found.labels, ...labels },
      lease,
    };
    await this.tree.create(namespace, snapshot, this.tree.plan(namespace, snapshot), { backend: found.name });
    return alreadyExists(`target snapshot "${target}" from snapshotter: already exists`, cause);
  }

  #find(namespace: Namespace, target: string, parent: string): Promise<Info | undefined> {
    const filter = `labels."${TARGET}"==${JSON.stringify(target)},parent==${JSON.stringify(parent)}`;
    return this.#plugin.quick({ namespace }, async (options) => {
      for await (const { info } of this.#remote.list(
        { snapshotter: this.name, filters: [filter] },
        options,
      )) {
        // Not every plugin knows filters.
        const fits = (info: Info): boolean =>
          info.kind === Kind.COMMITTED && info.labels[TARGET] === target && info.parent === parent;
        const found = info.find(fits);
        if (found !== undefined) return found;
      }
      return undefined;
    });
  }
}

/** The labels that are for the snapshotter. */
function passed(labels: Labels): { [key: string]: string } {
  return Object.fromEntries(
    Object.entries(labels).filter(([key]) => key === TARGET || key.startsWith(PASSED)),
  );
}
