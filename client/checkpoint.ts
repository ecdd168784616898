/**
 * Containers as images: what runs, what its root filesystem has become, and what it was made from. An index that names the parts,
 * as containerd's clients write and read it (container_checkpoint_opts.go, container_restore_opts.go).
 */
import {
  type Container as ContainerInfo,
  ContainersDefinition,
} from '../proto/gen/containerd/services/containers.ts';
import { DiffDefinition } from '../proto/gen/containerd/services/diff.ts';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { CheckpointOptions } from '../proto/gen/containerd/runtime/runc.ts';
import { Descriptor } from '../proto/gen/containerd/types/descriptor.ts';
import { Status } from '../proto/gen/containerd/types/task.ts';
import { Any } from '../proto/gen/google/protobuf/any.ts';
import { Code, failedPrecondition, internal, invalidArgument, isCode } from '../ttrpc/errors.ts';
import type { CallOptions, PartialMessage } from '../ttrpc/service.ts';
import type { Headers } from '../grpc/channel.ts';
import { anyOf } from './any.ts';
import { Content } from './content.ts';
import { type Place, underLease } from './image-container.ts';
import { runnableImage } from './image-config.ts';
import { type Image, Images } from './images.ts';
import { type DescriptorJson, descriptorJson, OCI_INDEX, OCI_LAYER, readDocument } from './manifest.ts';
import { hostPlatform } from '../oci/platform.ts';
import { Snapshots } from './snapshots.ts';

const CHECKPOINT = 'application/vnd.containerd.container.criu.checkpoint.criu.tar';
const CONFIG = 'application/vnd.containerd.container.checkpoint.config.v1+proto';
const OPTIONS = 'application/vnd.containerd.container.checkpoint.options.v1+proto';
const RUNTIME_OPTIONS = 'application/vnd.containerd.container.checkpoint.runtime.options+proto';

const IMAGE_NAME = 'org.opencontainers.image.ref.name';
const RUNTIME_NAME = 'io.containerd.checkpoint.runtime';
const SNAPSHOTTER_NAME = 'io.containerd.checkpoint.snapshotter';

/** Longer than a checkpoint takes to be written. */
const LEASE_MS = 60 * 60_000;
const UNDO_MS = 10_000;

export interface ContainerCheckpointOptions extends CallOptions {
  /** With the memory of its processes, written by the runtime (CRIU). */
  readonly task?: boolean;
  /** With what its root filesystem has become. */
  readonly rw?: boolean;
  /** With the image it was made from. */
  readonly image?: boolean;
  /** What the runtime is told; with `exit` the container ends. */
  readonly runc?: PartialMessage<CheckpointOptions>;
}

export interface ContainerRestoreOptions extends CallOptions {
  /** With what its root filesystem had become. */
  readonly rw?: boolean;
}

interface CheckpointIndex {
  readonly manifests: readonly DescriptorJson[];
  readonly annotations?: { readonly [key: string]: string };
}

/**
 * Writes a container to an image. A task stands still meanwhile.
 *
 * @param name of the image
 * @throws RpcError AlreadyExists for the name, NotFound, and what the runtime says when it cannot
 */
export async function checkpointContainer(
  place: Place,
  id: string,
  name: string,
  options: ContainerCheckpointOptions = {},
): Promise<Image> {
  const { task = false, rw = false, image = false, runc = {}, ...call } = options;
  if (runc.imagePath !== undefined && runc.imagePath !== '')
    throw invalidArgument('an image path is for checkpoints of tasks: images have none');
  return await underLease(place, LEASE_MS, call, async (leased) => {
    const writer = new CheckpointWriter(place, leased, id, call);
    const container = await writer.container();
    await using _still = await writer.stillness();
    const parts: DescriptorJson[] = [];
    if (container.runtime?.options !== undefined)
      parts.push(await writer.blob(RUNTIME_OPTIONS, container.runtime.options));
    if (image) parts.push(await writer.image(container));
    if (rw) parts.push(await writer.rw(container));
    if (task) parts.push(...(await writer.task({ fileLocks: true, ...runc })));
    else parts.push(await writer.blob(CONFIG, container.spec));
    const annotations = {
      [IMAGE_NAME]: container.image,
      [RUNTIME_NAME]: container.runtime?.name ?? '',
      [SNAPSHOTTER_NAME]: container.snapshotter,
    };
    const target = await writer.index(parts, annotations);
    return await new Images(place.connection, leased, place.namespace).create({ name, target }, call);
  });
}

class CheckpointWriter {
  readonly #place: Place;
  readonly #headers: Headers;
  readonly #id: string;
  readonly #call: CallOptions;
  readonly #content: Content;

  constructor(place: Place, headers: Headers, id: string, call: CallOptions) {
    this.#place = place;
    this.#headers = headers;
    this.#id = id;
    this.#call = call;
    this.#content = new Content(place.connection, headers);
  }

  async container(): Promise<ContainerInfo> {
    const service = this.#place.connection.service(ContainersDefinition, this.#headers);
    const { container } = await service.get({ id: this.#id }, this.#call);
    if (container === undefined) throw internal(`the daemon sent nothing of container ${this.#id}`);
    return container;
  }

  /** Has the task, if there is one that runs, stand still until it is disposed of. */
  async stillness(): Promise<AsyncDisposable> {
    const tasks = this.#tasks;
    const containerId = this.#id;
    const state = await tasks.get({ containerId }, this.#call).catch((error: unknown) => {
      if (isCode(error, Code.NotFound)) return undefined;
      throw error;
    });
    if (state?.process?.status !== Status.RUNNING) return { [Symbol.asyncDispose]: () => Promise.resolve() };
    await tasks.pause({ containerId }, this.#call);
    return {
      [Symbol.asyncDispose]: async () => {
        try {
          await tasks.resume({ containerId }, { timeout: UNDO_MS });
        } catch (error) {
          // It has ended, as it was perhaps to.
          const { process } = await tasks.get({ containerId }, { timeout: UNDO_MS });
          if (process?.status !== Status.STOPPED) throw error;
        }
      },
    };
  }

  async task(options: PartialMessage<CheckpointOptions>): Promise<DescriptorJson[]> {
    const any = anyOf('containerd.runc.v1.CheckpointOptions', CheckpointOptions, options);
    const request = { containerId: this.#id, options: any };
    const { descriptors } = await this.#tasks.checkpoint(request, this.#call);
    return [...descriptors.map((each) => here(descriptorJson(each))), await this.blob(OPTIONS, any)];
  }

  async image({ image }: ContainerInfo): Promise<DescriptorJson> {
    if (image === '') throw failedPrecondition(`container ${this.#id} was not made from an image`);
    const { connection, namespace } = this.#place;
    return descriptorJson(
      (await new Images(connection, this.#headers, namespace).get(image, this.#call)).target,
    );
  }

  /** The layer that leads from the snapshot's parent to what it is now. */
  async rw({ snapshotter, snapshotKey }: ContainerInfo): Promise<DescriptorJson> {
    if (snapshotKey === '') throw failedPrecondition(`container ${this.#id} has no snapshot`);
    const { connection, namespace } = this.#place;
    const snapshots = new Snapshots(connection, this.#headers, namespace, snapshotter);
    const { parent } = await snapshots.stat(snapshotKey, this.#call);
    const view = `${snapshotKey}-checkpoint-${Date.now()}`;
    const left = await snapshots.view(view, parent, this.#call);
    try {
      const right = await snapshots.mounts(snapshotKey, this.#call);
      const request = { left, right, mediaType: `${OCI_LAYER}+gzip`, ref: `checkpoint-rw-${snapshotKey}` };
      const { diff } = await connection.service(DiffDefinition, this.#headers).diff(request, this.#call);
      if (diff === undefined) throw internal('the daemon sent nothing of the layer');
      return here(descriptorJson(diff));
    } finally {
      await snapshots.remove(view, { timeout: UNDO_MS }).catch(() => {});
    }
  }

  async blob(mediaType: string, message: Any | undefined): Promise<DescriptorJson> {
    if (message === undefined) throw failedPrecondition(`container ${this.#id} has no specification`);
    const bytes = Buffer.from(Any.encode(message).finish());
    const digest = await this.#content.write(`checkpoint-${this.#id}-${mediaType}`, bytes, this.#call);
    return here({ mediaType, digest, size: bytes.length });
  }

  async index(
    manifests: DescriptorJson[],
    annotations: { readonly [key: string]: string },
  ): Promise<Descriptor> {
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests, annotations };
    const bytes = Buffer.from(JSON.stringify(index));
    const labels = manifests.map(({ digest }, at): [string, string] => [
      `containerd.io/gc.ref.content.${at}`,
      digest,
    ]);
    const digest = await this.#content.write(`checkpoint-${this.#id}-index`, bytes, {
      ...this.#call,
      labels: Object.fromEntries(labels),
    });
    return Descriptor.fromPartial({ mediaType: OCI_INDEX, digest, size: BigInt(bytes.length) });
  }

  get #tasks() {
    return this.#place.connection.service(TasksDefinition, this.#headers);
  }
}

/** Said to be of this host's platform: what looks for the parts by platform finds them. */
function here(descriptor: DescriptorJson): DescriptorJson {
  const { os, architecture } = hostPlatform();
  return { ...descriptor, platform: { os, architecture } };
}

/**
 * Stores the container that an image of `checkpointContainer` holds, with a root filesystem of its own. Nothing runs yet.
 *
 * @param store stores the container
 * @throws RpcError NotFound for a part that is not there, InvalidArgument for an image of another kind, AlreadyExists
 */
export async function restoreContainer<T>(
  place: Place,
  id: string,
  name: string,
  options: ContainerRestoreOptions,
  store: (container: PartialMessage<ContainerInfo>, headers: Headers) => Promise<T>,
): Promise<T> {
  const { rw = false, ...call } = options;
  const { connection, namespace } = place;
  return await underLease(place, LEASE_MS, call, async (leased) => {
    const content = new Content(connection, leased);
    const images = new Images(connection, leased, namespace);
    const index = await indexOf(images, content, name, call);
    const {
      [IMAGE_NAME]: image = '',
      [RUNTIME_NAME]: runtime = '',
      [SNAPSHOTTER_NAME]: snapshotter = '',
    } = index.annotations ?? {};
    const read = async (mediaType: string) => {
      const part = index.manifests.find((each) => each.mediaType === mediaType);
      return part && Any.decode(await content.readAll(part.digest, call));
    };
    const spec = await read(CONFIG);
    if (spec === undefined) throw invalidArgument(`${name} is no checkpoint: it has no specification`);
    const container = {
      id,
      image,
      spec,
      runtime: { name: runtime, options: await read(RUNTIME_OPTIONS) },
      labels: {},
    };
    if (image === '') return await store(container, leased);
    const { chainIds } = await runnableImage({ images, content }, image, hostPlatform(), call);
    const snapshots = new Snapshots(connection, leased, namespace, snapshotter);
    const mounts = await snapshots.prepare(id, chainIds.at(-1), call);
    try {
      if (rw) {
        const layer = index.manifests.find(({ mediaType }) => mediaType === `${OCI_LAYER}+gzip`);
        if (layer === undefined) throw invalidArgument(`${name} has no layer of the root filesystem`);
        const diff = Descriptor.fromPartial({ ...layer, size: BigInt(layer.size) });
        await connection.service(DiffDefinition, leased).apply({ diff, mounts }, call);
      }
      return await store({ ...container, snapshotter, snapshotKey: id }, leased);
    } catch (error) {
      await snapshots.remove(id, { timeout: UNDO_MS }).catch(() => {});
      throw error;
    }
  });
}

/** Where an image has the memory of processes. @throws RpcError InvalidArgument when it has none, NotFound */
export async function checkpointOf(place: Place, name: string, call: CallOptions): Promise<Descriptor> {
  const { connection, headers, namespace } = place;
  const images = new Images(connection, headers, namespace);
  const { manifests } = await indexOf(images, new Content(connection, headers), name, call);
  const part = manifests.find(({ mediaType }) => mediaType === CHECKPOINT);
  if (part === undefined) throw invalidArgument(`${name} has no checkpoint of a task`);
  return Descriptor.fromPartial({ ...part, size: BigInt(part.size) });
}

async function indexOf(
  images: Images,
  content: Content,
  name: string,
  call: CallOptions,
): Promise<CheckpointIndex> {
  const { target } = await images.get(name, call);
  if (target?.mediaType !== OCI_INDEX) throw invalidArgument(`${name} is no checkpoint`);
  const index = await readDocument<Partial<CheckpointIndex>>(content, target.digest, call);
  const { manifests, annotations } = index;
  if (!Array.isArray(manifests)) throw invalidArgument(`${name} is no checkpoint: it has no parts`);
  return { manifests: manifests as DescriptorJson[], ...(annotations && { annotations }) };
}
