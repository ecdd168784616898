/** Moving images: what all transfers of the daemon share, and what one of them has. */
import { randomUUID } from 'node:crypto';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import type { NamespacedContent } from '../content/namespaced-content.ts';
import type { Differs } from '../diff/differs.ts';
import { reached } from '../failpoint.ts';
import type { Namespace } from '../identifiers.ts';
import type { Image, ImageStore } from '../images/store.ts';
import type { LeaseStore } from '../metadata/leases.ts';
import type { Snapshotters } from '../snapshots/snapshotters.ts';
import type { Report } from './progress.ts';
import { Places, Turns } from './turns.ts';

/** What an operator may say of transfers; see containerd's `transfer.v1.local`. */
export interface TransferSettings {
  /** Layers that are under way at a time, in the whole daemon. */
  readonly max_concurrent_downloads: number;
  readonly max_concurrent_uploaded_layers: number;
  /** Where `hosts.toml` files are for clients that name no place; empty for nowhere. */
  readonly config_path: string;
}

const defaultSettings: TransferSettings = {
  max_concurrent_downloads: 6,
  max_concurrent_uploaded_layers: 6,
  config_path: '',
};
/** Milliseconds after which what a dead daemon has left is free to be collected. */
const LEASE_LIFE = 24 * 60 * 60 * 1000;
/** Label of the leases that are made here: what for. */
const PURPOSE = 'moor.transfer';
/** Of what cannot go on where a daemon before this one was killed. */
const ONCE = 'once';

export interface Stores {
  readonly content: NamespacedContent;
  readonly images: ImageStore;
  readonly leases: LeaseStore;
  readonly snapshotters: Snapshotters;
  readonly differs: Differs;
}

/** One transfer. */
export interface Session {
  readonly namespace: Namespace;
  /** Holds what is created until an image does. */
  readonly lease: string | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
  /** Of this transfer alone, where the client wants fewer than the daemon has. */
  readonly places?: Places | undefined;
}

/** Does something when the transfer and the daemon have a place for it. */
export function placed<T>(places: Places, session: Session, action: () => Promise<T>): Promise<T> {
  const { places: own, signal } = session;
  if (own === undefined) return places.take(signal, action);
  return own.take(signal, () => places.take(signal, action));
}

export class Distribution implements Stores {
  readonly content: NamespacedContent;
  readonly images: ImageStore;
  readonly leases: LeaseStore;
  readonly snapshotters: Snapshotters;
  readonly differs: Differs;
  readonly downloads = new Turns();
  readonly unpacking = new Turns();
  readonly places: Places;
  readonly uploads: Places;
  /** Where `hosts.toml` files are for clients that name no place. */
  readonly hosts: string | undefined;
  /** Ids of leases of transfers that are under way. */
  readonly #active = new Set<string>();

  constructor(
    { content, images, leases, snapshotters, differs }: Stores,
    settings: TransferSettings = defaultSettings,
  ) {
    this.places = new Places(settings.max_concurrent_downloads);
    this.uploads = new Places(settings.max_concurrent_uploaded_layers);
    this.hosts = settings.config_path || undefined;
    this.content = content;
    this.images = images;
    this.leases = leases;
    this.snapshotters = snapshotters;
    this.differs = differs;
  }

  /**
   * Runs under the session's lease, or one that is made for the time. When the daemon is killed meanwhile, that one keeps what there
   * is until the same purpose has been fulfilled, so that it is not fetched again.
   *
   * @param purpose what is done, if doing it once more goes on where it was: `pull docker.io/library/busybox:latest`
   */
  async leased<T>(session: Session, action: (session: Session) => Promise<T>, purpose = ONCE): Promise<T> {
    if (session.lease !== undefined) return action(session);
    const { namespace } = session;
    const expire = new Date(Date.now() + LEASE_LIFE).toISOString();
    const labels = { 'containerd.io/gc.expire': expire, [PURPOSE]: purpose };
    const id = `transfer-${randomUUID()}`;
    // Before another with the same purpose can see it.
    this.#active.add(id);
    try {
      await this.leases.create(namespace, id, labels);
      reached('lease-created');
      const result = await action({ ...session, lease: id });
      await this.#drop(namespace, (label) => label === purpose);
      return result;
    } finally {
      this.#active.delete(id);
      await this.leases.delete(namespace, id).catch(ignoreMissing);
    }
  }

  /** Lets go of what transfers have left that a daemon before this one was killed in, unless they can go on. To be called at start. */
  async recover(): Promise<void> {
    for (const namespace of this.content.records.namespaces())
      await this.#drop(namespace, (label) => label === ONCE);
  }

  /** Deletes leases of transfers that nobody is at work on. */
  async #drop(namespace: Namespace, isDone: (purpose: string) => boolean): Promise<void> {
    for (const { id, labels } of this.leases.list(namespace)) {
      const purpose = labels[PURPOSE];
      if (purpose === undefined || !isDone(purpose) || this.#active.has(id)) continue;
      await this.leases.delete(namespace, id).catch(ignoreMissing);
    }
  }

  /** Gives a name to content, also one that names something else by now. */
  async name(
    { namespace, lease, report }: Session,
    name: string,
    target: Descriptor,
    labels: Image['labels'] = {},
  ): Promise<Image> {
    const image = await this.#name(namespace, lease, { name, target, labels });
    report({ event: 'saved', name, desc: target });
    return image;
  }

  async #name(
    namespace: Namespace,
    lease: string | undefined,
    image: Pick<Image, 'name' | 'target' | 'labels'>,
  ): Promise<Image> {
    for (;;) {
      try {
        return await this.images.create(namespace, image, lease);
      } catch (error) {
        if (!isCode(error, Code.AlreadyExists)) throw error;
      }
      try {
        return await this.images.update(namespace, image, ['target', ...labelPaths(image.labels)]);
      } catch (error) {
        ignoreMissing(error);
      }
    }
  }
}

function labelPaths(labels: Image['labels']): string[] {
  return Object.keys(labels).map((key) => `labels.${key}`);
}

function ignoreMissing(error: unknown): void {
  if (!isCode(error, Code.NotFound)) throw error;
}
