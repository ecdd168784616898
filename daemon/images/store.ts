/** Images: names for content. */
import { ImageCreate, ImageDelete, ImageUpdate } from '../../proto/gen/containerd/events/image.ts';
import { Image } from '../../proto/gen/containerd/services/images.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { alreadyExists, invalidArgument, notFound } from '../../ttrpc/errors.ts';
import { parseDigest } from '../content/digest.ts';
import type { Exchange } from '../events/exchange.ts';
import { pack } from '../events/pack.ts';
import { type Fields, inMap, parseFilters, present } from '../filters/filter.ts';
import { reached } from '../failpoint.ts';
import { type Namespace, checkLabels } from '../identifiers.ts';
import type { Database } from '../metadata/database.ts';
import { set } from '../metadata/labels.ts';
import { addToLease, removeFromLease } from '../metadata/leases.ts';
import { ensureNamespace } from '../metadata/namespaces.ts';
import { type Key, Kind, MAX_KEY_PART_BYTES } from '../metadata/schema.ts';
import { timestampNow } from '../timestamp.ts';

export type { Image } from '../../proto/gen/containerd/services/images.ts';

const keyOf = (namespace: Namespace, name: string): Key => [namespace, Kind.Image, name];

/** An image as its maker gives it; times are the store's. */
export interface ImageContent {
  readonly name: string;
  readonly labels: Image['labels'];
  readonly target?: Descriptor | undefined;
}

/** Each change is an event: `/images/create`, `/images/update`, `/images/delete`. */
export class ImageStore {
  readonly #database: Database;
  readonly #exchange: Pick<Exchange, 'publish'>;

  constructor(database: Database, exchange: Pick<Exchange, 'publish'>) {
    this.#database = database;
    this.#exchange = exchange;
  }

  /** @throws RpcError NotFound */
  get(namespace: Namespace, name: string): Image {
    return found(this.find(namespace, name), name);
  }

  find(namespace: Namespace, name: string): Image | undefined {
    // A longer name cannot be a key.
    return isStorable(name) ? this.#database.get(keyOf(namespace, name), Image) : undefined;
  }

  /** @throws RpcError InvalidArgument for a filter that cannot be read */
  list(namespace: Namespace, filters: readonly string[] = []): Image[] {
    const filter = parseFilters(filters);
    const images: Image[] = [];
    for (const { value } of this.#database.list([namespace, Kind.Image], Image)) {
      if (filter(fieldsOf(value))) images.push(value);
    }
    return images;
  }

  /**
   * Names content, whether or not the namespace has it.
   *
   * @param lease what is created is added to it
   * @throws RpcError AlreadyExists, InvalidArgument, NotFound for the lease
   */
  async create(namespace: Namespace, image: ImageContent, lease?: string): Promise<Image> {
    check(image);
    const created = await this.#database.update((transaction) => {
      const key = keyOf(namespace, image.name);
      if (transaction.has(key)) throw alreadyExists(`image "${image.name}": already exists`);
      ensureNamespace(transaction, namespace);
      addToLease(transaction, namespace, lease, { type: 'images', id: image.name });
      const now = timestampNow();
      const stored: Image = {
        name: image.name,
        labels: set({}, image.labels),
        target: image.target,
        createdAt: now,
        updatedAt: now,
      };
      transaction.put(key, Image, stored);
      return stored;
    });
    reached('image-recorded');
    const { name, labels } = created;
    this.#exchange.publish(namespace, '/images/create', pack('ImageCreate', ImageCreate, { name, labels }));
    return created;
  }

  /**
   * Changes the fields that the paths name (`labels`, `labels.KEY`, `target`, `annotations`, `annotations.KEY`), or all of them
   * when there are none.
   *
   * @throws RpcError NotFound, InvalidArgument
   */
  async update(namespace: Namespace, image: ImageContent, paths: readonly string[] = []): Promise<Image> {
    checkName(image.name);
    const updated = await this.#database.update((transaction) => {
      const key = keyOf(namespace, image.name);
      const old = found(transaction.get(key, Image), image.name);
      const changed = (paths.length === 0 ? ['labels', 'target'] : paths).reduce(
        (result, path) => withField(result, image, path),
        old,
      );
      check(changed);
      const stored = { ...changed, labels: set({}, changed.labels), updatedAt: timestampNow() };
      transaction.put(key, Image, stored);
      return stored;
    });
    const { name, labels } = updated;
    this.#exchange.publish(namespace, '/images/update', pack('ImageUpdate', ImageUpdate, { name, labels }));
    return updated;
  }

  /**
   * Takes the name away; what only it referred to goes with the next garbage collection.
   *
   * @param digest what the name must stand for, if it is said
   * @throws RpcError NotFound, also when it stands for something else by now
   */
  async delete(namespace: Namespace, name: string, lease?: string, digest = ''): Promise<void> {
    await this.#database.update((transaction) => {
      const image = isStorable(name) ? transaction.get(keyOf(namespace, name), Image) : undefined;
      if (image === undefined) throw missing(name);
      const found = image.target?.digest ?? '';
      if (digest !== '' && digest !== found)
        throw notFound(`image "${name}" has the target ${found}, not ${digest}: not found`);
      transaction.remove(keyOf(namespace, name));
      removeFromLease(transaction, namespace, lease, { type: 'images', id: name });
    });
    this.deleted(namespace, name);
  }

  /** Publishes that an image is gone. */
  deleted(namespace: Namespace, name: string): void {
    this.#exchange.publish(namespace, '/images/delete', pack('ImageDelete', ImageDelete, { name }));
  }
}

function withField(old: Image, from: ImageContent, path: string): Image {
  switch (path) {
    case 'labels':
      return { ...old, labels: from.labels };
    case 'target':
      return { ...old, target: from.target };
    case 'annotations':
      return withAnnotations(old, from.target?.annotations ?? {});
    default:
      if (path.startsWith('labels.')) return { ...old, labels: withEntry(old.labels, from.labels, path) };
      if (path.startsWith('annotations.')) {
        const annotations = withEntry(old.target?.annotations ?? {}, from.target?.annotations ?? {}, path);
        return withAnnotations(old, annotations);
      }
      throw invalidArgument(`cannot update "${path}" field on image "${from.name}": invalid argument`);
  }
}

function withAnnotations(old: Image, annotations: Descriptor['annotations']): Image {
  return { ...old, target: old.target && { ...old.target, annotations: set({}, annotations) } };
}

function withEntry(old: Image['labels'], from: Image['labels'], path: string): Image['labels'] {
  const key = path.slice(path.indexOf('.') + 1);
  return set(old, { [key]: Object.hasOwn(from, key) ? from[key]! : '' });
}

function isStorable(name: string): boolean {
  return name !== '' && Buffer.byteLength(name) <= MAX_KEY_PART_BYTES;
}

function checkName(name: string): void {
  if (name === '') throw invalidArgument('image name must not be empty: invalid argument');
  if (!isStorable(name))
    throw invalidArgument(`image name is longer than ${MAX_KEY_PART_BYTES} bytes: invalid argument`);
}

function check({ name, labels, target }: ImageContent): void {
  checkName(name);
  checkLabels('image.Labels', labels);
  try {
    parseDigest(target?.digest ?? '');
  } catch (error) {
    throw invalidArgument(`Target.Digest invalid: ${(error as Error).message}`, error);
  }
  if (target!.size <= 0n) throw invalidArgument('Target.Size must be greater than zero: invalid argument');
  if (target!.mediaType === '') throw invalidArgument('Target.MediaType must be set: invalid argument');
}

function missing(name: string): Error {
  return notFound(`image ${JSON.stringify(name)}: not found`);
}

function found(image: Image | undefined, name: string): Image {
  if (image === undefined) throw missing(name);
  return image;
}

function fieldsOf({ name, target, labels }: Image): Fields {
  return ([first = '', ...rest]) => {
    switch (first) {
      case 'name':
        return present(name);
      case 'target':
        if (rest[0] === 'digest') return present(target?.digest);
        return rest[0] === 'mediatype' ? present(target?.mediaType) : undefined;
      case 'labels':
        return inMap(labels, rest);
      case 'annotations':
        return inMap(target?.annotations ?? {}, rest);
      default:
        return undefined;
    }
  };
}
