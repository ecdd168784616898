import { ContainersDefinition } from '../proto/gen/containerd/services/containers.ts';
import { DiffDefinition } from '../proto/gen/containerd/services/diff.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { alreadyExists, Code, isCode } from '../ttrpc/errors.ts';
import type { CallOptions } from '../ttrpc/service.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import type { ContainerOptions } from './container.ts';
import { Content } from './content.ts';
import { type RunnableImage, runnableImage, STOP_SIGNAL_LABEL } from './image-config.ts';
import { Images } from './images.ts';
import { Leases } from './lease.ts';
import type { Labels } from './namespace.ts';
import { hostPlatform, parsePlatform } from '../oci/platform.ts';
import { isInterruption } from './process.ts';
import type { IdMappings } from './remap.ts';
import { RootDirectory } from '../oci/root-directory.ts';
import { Snapshots } from './snapshots.ts';
import { buildImageSpec, type ImageSpecOptions } from './spec.ts';
import { isUnpacked, unpackImage } from './unpack.ts';

/** What to run of an image. What is left out is as the image has it. */
export interface ImageContainerOptions extends Omit<ContainerOptions, 'spec' | 'image' | 'snapshotKey'> {
  /** `OS/ARCHITECTURE[/VARIANT]` to choose where the image has several. Default: this host's. */
  readonly platform?: string;
  /** Default: the namespace's. */
  readonly snapshotter?: string;
  /** Labels of the container's snapshot. */
  readonly snapshotLabels?: Labels;
  readonly spec?: ImageSpecOptions;
}

/** Longer than any unpacking. */
const UNPACK_LEASE_MS = 24 * 60 * 60_000;
/** A client that dies while it makes a container leaves a snapshot in the way of the next attempt for as long. */
const CREATE_LEASE_MS = 5 * 60_000;
const UNDO_MS = 10_000;

/** Tells a snapshotter to map the owners of files itself: containerd's. */
const UID_LABEL = 'containerd.io/snapshot/uidmapping';

/** Longer ones are refused by daemons (labels of containerd, key and value together). */
const MAX_LABEL_BYTES = 4096;

/** A namespace of a daemon. */
export interface Place {
  readonly connection: Connection;
  readonly headers: Headers;
  readonly namespace: string;
}

/**
 * Prepares what a container of an image needs, and has it stored. Undone when it fails.
 *
 * @param store stores the container
 * @throws RpcError as `Containers.createFromImage`
 */
export async function createFromImage<T>(
  place: Place,
  id: string,
  name: string,
  options: ImageContainerOptions,
  store: (options: ContainerOptions, headers: Headers) => Promise<T>,
): Promise<T> {
  const {
    platform,
    snapshotter = '',
    snapshotLabels = {},
    spec = {},
    labels = {},
    runtime,
    extensions,
    restart,
    ...call
  } = options;
  const { connection, headers, namespace } = place;
  const source = {
    images: new Images(connection, headers, namespace),
    content: new Content(connection, headers),
  };
  const target = platform === undefined ? hostPlatform() : parsePlatform(platform);
  const image = await runnableImage(source, name, target, call);
  // Its name is found out once.
  const within = await new Snapshots(connection, headers, namespace, snapshotter).name(call);
  if (!(await isUnpacked(new Snapshots(connection, headers, namespace, within), image, call))) {
    await underLease(place, UNPACK_LEASE_MS, call, async (leased) => {
      const snapshots = new Snapshots(connection, leased, namespace, within);
      const content = new Content(connection, leased);
      await unpackImage(
        { diff: connection.service(DiffDefinition, leased), content, snapshots },
        image,
        call,
      );
    });
  }
  return await underLease(place, CREATE_LEASE_MS, call, async (leased) => {
    const snapshots = new Snapshots(connection, leased, namespace, within);
    const top = image.chainIds.at(-1);
    const mappings = UID_LABEL in snapshotLabels ? undefined : spec.idMappings;
    const parent =
      mappings === undefined || top === undefined ? top : await remapped(snapshots, top, mappings, call);
    const mounts = await prepare(place, snapshots, id, parent, { ...call, labels: snapshotLabels });
    try {
      using root = RootDirectory.mount(mounts);
      const stored: ContainerOptions = {
        ...call,
        spec: buildImageSpec(namespace, id, spec, { config: image.config, root }),
        labels: labelsOf(image, labels),
        runtime,
        extensions,
        restart,
        image: name,
        snapshotter: within,
        snapshotKey: id,
      };
      return await store(stored, leased);
    } catch (error) {
      // A container may have been stored although nobody said so. Its snapshot stays, and is garbage without one.
      if (!isInterruption(error)) await snapshots.remove(id, { timeout: UNDO_MS }).catch(() => {});
      throw error;
    }
  });
}

async function prepare(
  { connection, headers }: Place,
  snapshots: Snapshots,
  id: string,
  parent: string | undefined,
  options: CallOptions & { readonly labels: Labels },
): Promise<Mount[]> {
  const { labels: _labels, ...call } = options;
  try {
    return await snapshots.prepare(id, parent, options);
  } catch (error) {
    if (!isCode(error, Code.AlreadyExists)) throw error;
    // Named after what the caller asked for, when that is what is in the way.
    const containers = connection.service(ContainersDefinition, headers);
    const taken = await containers.get({ id }, call).then(
      () => true,
      () => false,
    );
    throw taken ? alreadyExists(`container "${id}": already exists`, error) : error;
  }
}

/** What only few need is loaded by them. */
async function remapped(
  snapshots: Snapshots,
  parent: string,
  mappings: IdMappings,
  call: CallOptions,
): Promise<string> {
  const { remappedSnapshot } = await import('./remap.ts');
  return await remappedSnapshot(snapshots, parent, mappings, call);
}

/** Keeps what is made meanwhile from the garbage collector. */
export async function underLease<T>(
  { connection, headers }: Place,
  expires: number,
  call: CallOptions,
  work: (headers: Headers) => Promise<T>,
): Promise<T> {
  const given = [...headers];
  if (given.some(([key]) => key === LEASE_HEADER)) return await work(given);
  const leases = new Leases(connection, given);
  const { id } = await leases.create({ ...call, expires });
  try {
    return await work([...given, [LEASE_HEADER, id]]);
  } finally {
    await leases.delete(id, { timeout: UNDO_MS }).catch(() => {});
  }
}

const LEASE_HEADER = 'containerd-lease';

/** As ctr puts them together: the configuration's, the image's, those asked for. */
function labelsOf({ config, labels }: RunnableImage, asked: Labels): Labels {
  const fits = ([key, value]: [string, string]) =>
    key !== '' && Buffer.byteLength(key) + Buffer.byteLength(value) <= MAX_LABEL_BYTES;
  const own = Object.entries({ ...config.labels, ...labels }).filter(fits);
  return { ...Object.fromEntries(own), ...asked, [STOP_SIGNAL_LABEL]: config.stopSignal || 'SIGTERM' };
}
